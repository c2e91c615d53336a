"""Boxes looked for in a later picture: the kernel of csrc/bindings/following.cpp."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rdn_engine.kernels import _C
from rdn_engine.kernels.cpu.arrays import Float


def follow(before: NDArray[np.uint8], after: NDArray[np.uint8], *, boxes: Float, guess: Float) -> tuple[Float, Float]:
    """Where what boxes show has gone to: template matching by normalised cross-correlation of colours.

    A box with a margin of a tenth on every side is cut into 12 x 12 cells, whose means are compared at every place up
    to 8 cells away from the guess in either direction, the less the farther; the best is refined between cells by a
    parabola. The middle of a box counts most, its corners least, where there is rather what lies behind its object.
    What lies outside the pictures is not compared. No box changes its size.

    Args:
        before: [h, w, 3] colours, 0..255, of the picture that the boxes lie on.
        after: [h, w, 3] those of the one in which they are looked for.
        boxes: [n, 4] x1, y1, x2, y2: edges (not last pixels) in pixels of the pictures, finite, sides above 0.
        guess: [n, 2] x and y that each is likely to have moved, in pixels, finite.

    Returns:
        [n, 2] x and y that each has moved, and [n] the correlation there, -1..1: 1 where a box that shows nothing finds
        nothing, -1 where less than two fifths of it lie on the picture.

    Raises:
        ValueError: an argument does not fit.
    """
    return _C.follow(
        np.ascontiguousarray(before),
        np.ascontiguousarray(after),
        np.ascontiguousarray(boxes),
        np.ascontiguousarray(guess),
    )
