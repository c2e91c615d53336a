"""Frames to measure with, of any size, the same on every machine."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]
_BAND = 32  # rows


def make_frame(t: int, size: tuple[int, int], take: int = 0) -> Image:
    """Frame t, uint8 [H, W, 3]: discs of flat colour that move over a smooth background, some noise; size (H, W).

    Another take shows the same with other noise.

    Some rows at a time, because what it takes counts as memory of the process that is measured.
    """
    height, width = size
    rng, noise = np.random.default_rng(7), np.random.default_rng([8, t] + [take] * (take > 0))
    coarse = rng.uniform(40, 215, (2 + height // 60, 2 + width // 60, 3))
    place, speed = rng.uniform(0, 1, (12, 2)) * size, rng.normal(0, 0.01, (12, 2)) * size
    radius, colour = rng.uniform(0.04, 0.25, 12) * height, rng.uniform(0, 255, (12, 3))
    frame = np.empty((height, width, 3), np.uint8)
    for top in range(0, height, _BAND):
        y, x = np.mgrid[top : min(top + _BAND, height), :width]
        image = coarse[y // 60, x // 60] * 0.5 + coarse[(y + 30) // 60, (x + 30) // 60] * 0.5
        for p, v, r, c in zip(place, speed, radius, colour, strict=True):
            cy, cx = np.mod(p + t * v, size)
            image[(y - cy) ** 2 + (x - cx) ** 2 < r * r] = c
        image += noise.normal(0, 6, image.shape)
        frame[top : top + _BAND] = image.clip(0, 255).astype(np.uint8)
    return frame
