"""From a frame to the network input and back: sizes, channels, boxes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from rdn_engine.plain import check, check_fields

Fit = Literal["shorter_side", "letterbox", "stretch"]

LONGEST_SIDE = 2**14
"""Pixels; nothing here needs more, and a slip of the pen ends in a message instead of no memory"""


@dataclass(frozen=True)
class InputConfig:
    """From a frame to the network input."""

    shorter_side: int = 600
    """Pixels of the network input, fewer where the longer side would pass its limit."""
    longer_side: int = 1000
    """Pixels of the network input, at most."""
    channel_order: Literal["bgr", "rgb"] = "bgr"
    """Order in the network input; frames are RGB."""
    mean: tuple[float, ...] = (102.9801, 115.9465, 122.7717)
    """Subtracted from 0..255, in `channel_order`."""
    std: tuple[float, ...] = (1.0, 1.0, 1.0)
    """Divides after the mean; ones for the public checkpoints."""
    fit: Fit = "shorter_side"
    """`shorter_side`: by the two sides above; `letterbox`: as large as `size` holds, in its top left corner; `stretch`:
    both sides to `size`."""
    size: tuple[int, ...] | None = None
    """(height, width) of the network input, pixels, for `letterbox` and `stretch`; None for `shorter_side`."""
    padding: float = 114.0
    """0..255, of every channel: what `letterbox` has to the right of the image and below it."""

    def __post_init__(self) -> None:
        check_fields(self, "input", shorter_side=(1, LONGEST_SIDE), longer_side=(1, LONGEST_SIDE), mean=(-1e3, 1e3),
                      std=(1e-6, 1e6), size=(1, LONGEST_SIDE), padding=(0, 255))  # fmt: skip
        wanted = "none for shorter_side" if self.fit == "shorter_side" else f"(height, width) for {self.fit}"
        sized = self.size is not None and len(self.size) == 2
        check(sized == (self.fit != "shorter_side"), "input.size", self.size, wanted)
        check(self.shorter_side <= self.longer_side, "input.shorter_side", self.shorter_side, f"1..{self.longer_side}")
        check(len(self.mean) == len(self.std) == 3, "input.mean, std", (self.mean, self.std), "three numbers each")

    def network_size(self, height: int, width: int, pixel_aspect: float = 1.0) -> tuple[int, int]:
        """The size of the network input for a frame; DESIGN section 2 (Input).

        Args:
            height, width: of the frame, pixels.
            pixel_aspect: width over height of its pixels; the network's are square.

        Returns:
            (height, width) in pixels, 1 or more.
        """
        if self.size is not None:
            return self.size[0], self.size[1]
        return self.image_size(height, width, pixel_aspect)

    def image_size(self, height: int, width: int, pixel_aspect: float = 1.0) -> tuple[int, int]:
        """The size of the image in the network input; less than `network_size` where it is padded.

        Args:
            height, width, pixel_aspect: of the frame, as `network_size` has them.

        Returns:
            (height, width) in pixels, 1 or more.
        """
        width = max(round(width * pixel_aspect), 1)
        if self.size is not None:
            tall, wide = self.size
            if self.fit == "stretch":
                return tall, wide
            # Whole numbers throughout: a rounded ratio would now and then lose the last pixel.
            if tall * width <= wide * height:
                return tall, max(tall * width // height, 1)
            return max(wide * height // width, 1), wide
        short, long = min(height, width), max(height, width)
        side = self.shorter_side
        if side * long / short > self.longer_side:
            side = round(self.longer_side * short / long)
        other = int(side * long / short) if side else self.longer_side
        side = max(side, 1)
        return (side, other) if height <= width else (other, side)

    def frame_scale(self, height: int, width: int, pixel_aspect: float = 1.0) -> tuple[float, float]:
        """What takes boxes from the network input to the frame; each axis has its own.

        Args:
            height, width, pixel_aspect: of the frame, as `network_size` has them.

        Returns:
            (x, y): pixels of the frame for one of the network input.
        """
        network_height, network_width = self.image_size(height, width, pixel_aspect)
        return width / network_width, height / network_height

    def on_frame(
        self, xyxy: NDArray[np.float32], height: int, width: int, pixel_aspect: float = 1.0
    ) -> NDArray[np.float32]:
        """Take boxes from the network input to the frame; each axis has its own ratio.

        Corners are scaled as they are, as the public checkpoints have it. With `letterbox` and `stretch` edges are,
        which lie a pixel behind the last one.

        Args:
            xyxy: [n, 4] network-input pixels, the last pixel included.
            height, width, pixel_aspect: of the frame, as `network_size` has them.

        Returns:
            [n, 4] pixels of the frame, the last pixel included.
        """
        scale = self.frame_scale(height, width, pixel_aspect) * 2
        return np.asarray((xyxy + self._last) * scale - self._last, np.float32)

    def on_network(self, xyxy: NDArray[np.float32], height: int, width: int) -> NDArray[np.float32]:
        """The inverse of `on_frame`, of frames whose pixels are square.

        Args:
            xyxy: [n, 4] pixels of the frame, the last pixel included.
            height, width: of the frame.

        Returns:
            [n, 4] network-input pixels, the last pixel included.
        """
        scale = np.array(self.frame_scale(height, width) * 2)
        return np.asarray((xyxy + self._last) / scale - self._last, np.float32)

    @property
    def _last(self) -> NDArray[np.int64]:
        """From corners to what is scaled."""
        return np.array([0, 0, 0, 0] if self.size is None else [0, 0, 1, 1])
