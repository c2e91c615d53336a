"""Whether a frame shows what the last encoded one shows: the dial `still`.

A frame is cut into blocks of BLOCK x BLOCK pixels of the network input. The mean of each colour over a block hardly
knows the noise of a sensor, and moves when something in the block does. Frames are compared with the last one that was
*encoded*, not with the one before, so what creeps is seen as soon as it has come far enough.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rdn_engine.config import Dials
from rdn_engine.frame import Image
from rdn_engine.input_config import InputConfig
from rdn_engine.kernels.cpu import Float, Index

BLOCK = 8
"""Pixels of the network input: side of a block"""
ROWS = 8
"""Rows of a block, at most, whose pixels are read: the others look like them, and reading is all that this costs"""


class StillGate:
    """The blocks of one stream's last encoded frame, and how many still ones came since."""

    def __init__(self, config: InputConfig) -> None:
        """config: says how large a block is."""
        self._config = config
        self._reference: Float | None = None
        self._dials: Dials | None = None
        self._seen: Float | None = None
        self._run = 0

    def look(self, image: Image, geometry: tuple[int, int, float], dials: Dials, *, new: bool) -> bool:
        """Whether a frame is still.

        Args:
            image: uint8 [H, W, 3] RGB.
            geometry: height, width and pixel aspect of the frame.
            dials: with the threshold `still` above 0, and still_run (m).
            new: whether the frame begins an epoch, and so looks like nothing.

        Returns:
            Whether no block's mean colour is more than `still` grey levels from the last encoded frame's. False after m
            still ones in a row, and after dials were turned: a result by old ones is no result by new ones.
        """
        scale = self._config.frame_scale(*geometry)
        side = (max(round(BLOCK * scale[1]), 1), max(round(BLOCK * scale[0]), 1))
        self._seen = block_means(image, (min(side[0], image.shape[0]), min(side[1], image.shape[1])))
        reference = self._reference
        if new or reference is None or dials != self._dials or self._run >= dials.still_run:
            return False
        return not np.abs(self._seen - reference).max() > dials.still

    def done(self, dials: Dials, *, still: bool) -> None:
        """A step was appended.

        Args:
            dials: in effect.
            still: what `look` said of it; False of a step that was not looked at.
        """
        if still:
            self._run += 1
            return
        self._reference, self._seen = self._seen, None
        self._dials, self._run = dials, 0

    def forget(self) -> None:
        """A frame was encoded that was not looked at: the next one is not still."""
        self._reference = self._seen = None


def block_means(image: NDArray[np.uint8], side: tuple[int, int]) -> Float:
    """The mean of each colour over each block of an image.

    Args:
        image: uint8 [H, W, 3].
        side: (height, width) of a block in pixels, at most those of the image. The last row and the last column of
            blocks end with the image, and lie over those before them where it is no multiple of a block.

    Returns:
        [rows, columns, 3] grey levels; of a block's rows at most ROWS count, evenly spread.
    """
    height, width = image.shape[:2]
    tall, wide = side
    spread = (np.arange(min(ROWS, tall)) + 0.5) * tall / min(ROWS, tall)
    taken = (_starts(height, tall)[:, None] + spread.astype(np.int64)).ravel()
    # Sums of up to ROWS bytes fit into 16 bits, which numpy adds fastest.
    rows = image[taken].reshape(-1, len(spread), width * 3).sum(1, dtype=np.uint16).astype(np.float32)
    whole = width // wide
    pick = np.tile(np.eye(3, dtype=np.float32) / (wide * len(spread)), (wide, 1))
    means: Float = (rows[:, : whole * wide * 3].reshape(-1, wide * 3) @ pick).reshape(len(rows), whole, 3)
    if whole * wide < width:
        means = np.concatenate([means, (rows[:, -wide * 3 :] @ pick)[:, None]], 1)
    return means


def _starts(length: int, side: int) -> Index:
    starts: Index = np.minimum(np.arange(0, length, side), length - side)
    return starts
