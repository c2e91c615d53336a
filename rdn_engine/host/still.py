"""Whether a frame shows what the last encoded one shows: the dial `still`.

A frame is cut into blocks of BLOCK x BLOCK pixels of the network input. The mean of each colour over a block hardly
knows the noise of a sensor, and moves when something in the block does. Frames are compared with the last one that was
*encoded*, not with the one before, so what creeps is seen as soon as it has come far enough.
"""

from __future__ import annotations

import numpy as np

from rdn_engine.config import Dials
from rdn_engine.frame import Image
from rdn_engine.host.blocks import block_means, block_side, most_blocks
from rdn_engine.input_config import InputConfig
from rdn_engine.kernels.cpu import Float

BLOCK = 8
"""Pixels of the network input: side of a block"""


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
        self._seen = block_means(image, block_side(self._config, geometry, BLOCK))
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


def still_nbytes(config: InputConfig) -> int:
    """Bytes that a StillGate holds at most: the means of the last encoded frame and of the one that is looked at.

    Args:
        config: says how large frames are to the network.
    """
    return 2 * most_blocks(config, BLOCK) * 3 * 4
