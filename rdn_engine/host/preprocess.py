"""From an image to the network input."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rdn_engine.config import InputConfig
from rdn_engine.kernels import cpu
from rdn_engine.kernels.cpu.arrays import Float


def network_input(image: NDArray[np.uint8], config: InputConfig, threads: int, *, pixel_aspect: float = 1.0) -> Float:
    """Resize and normalise an image; DESIGN section 2 (Input).

    Args:
        image: uint8 [H, W, 3] RGB.
        config: size, channel order, mean and standard deviation.
        threads: bounds the CPU threads.
        pixel_aspect: width over height of the image's pixels.

    Returns:
        [3, h, w].
    """
    size = config.network_size(image.shape[0], image.shape[1], pixel_aspect)
    return cpu.resize_normalize(image, size, config, threads=threads)
