"""Things that pass in front of an object and hide it wholly, for as many frames as are asked for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from rdn_engine.kernels.cpu.arrays import Float
from training.data.drawing import draw_background, paste

SEEN = 6
"""An object is inside the frame for so many frames before it is hidden, and after."""
_TRIES = 4  # lengths that are drawn for an object, until one leaves it enough time in sight


@dataclass(frozen=True)
class Passer:
    """A patch that comes from one side, goes along with its object for a while, and leaves on the other side.

    In the frame before, and in the one after, it covers half of its object.
    """

    sprite: Image.Image
    first: int
    """First frame in which it hides its object"""
    last: int
    """Last frame in which it does"""
    step: Float
    """[2] pixels that it moves in a frame, against its object, before and after"""

    @classmethod
    def draw(
        cls,
        rng: np.random.Generator,
        position: Callable[[float], Float],
        *,
        side: int,
        middle: float,
        num_frames: int,
        size: tuple[int, int],
        length: tuple[int, int],
    ) -> Passer | None:
        """Draws what passes in front of one object.

        Args:
            rng: draws it.
            position: [2] middle of the object at a time, pixels of the frame.
            side: of the patch, pixels; no smaller than the object.
            middle: time about which the object is hidden, frames.
            num_frames: of the video.
            size: (width, height) of a frame, pixels.
            length: (shortest, longest) time that the object is hidden, frames.

        Returns:
            None where the object is not long enough in sight for any of the lengths that were drawn.
        """
        for _ in range(_TRIES):
            hidden = int(rng.integers(length[0], length[1] + 1))
            first = round(middle - hidden / 2)
            ends = (first - 1 - SEEN, first + hidden + SEEN)
            if ends[0] >= 0 and ends[1] < num_frames and all(_inside(position(t), size) for t in ends):
                heading = rng.uniform(0, 2 * np.pi)
                step = np.array([np.cos(heading), np.sin(heading)], np.float32) * np.float32(side / 2)
                sprite = Image.fromarray(draw_background(rng, side, side, clutter=2))
                sprite.putalpha(Image.new("L", sprite.size, 255))
                return cls(sprite, first, first + hidden - 1, step)
        return None

    def paste(self, frame: NDArray[np.uint8], owner: NDArray[np.int16], where: Float, t: int) -> None:
        """Draws it over its object.

        Args:
            frame: uint8 [H, W, 3] RGB, which changes.
            owner: [H, W] number of the object that each pixel shows, which becomes -1.
            where: [2] middle of the object, pixels of the frame.
            t: the frame's place in the video.
        """
        away = max(self.first - t, 0) - max(t - self.last, 0)
        if abs(away) > 1:
            return
        corner = np.floor(where + away * self.step).astype(int) - self.sprite.width // 2
        paste(frame, owner, self.sprite, np.ones(self.sprite.size[::-1], bool), corner, -1)


def _inside(where: Float, size: tuple[int, int]) -> bool:
    return bool((where > 0).all() and (where < size).all())
