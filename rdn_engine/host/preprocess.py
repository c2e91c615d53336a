"""From an image to the network input."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rdn_engine.input_config import InputConfig
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
    geometry = image.shape[0], image.shape[1], pixel_aspect
    size, whole = config.image_size(*geometry), config.network_size(*geometry)
    resized = cpu.resize_normalize(image, size, config, threads=threads)
    if size == whole:
        return resized
    empty = (config.padding - np.asarray(config.mean, np.float32)) / np.asarray(config.std, np.float32)
    padded = np.empty((3, *whole), np.float32)
    padded[:, : size[0], : size[1]] = resized
    padded[:, size[0] :] = empty[:, None, None]
    padded[:, : size[0], size[1] :] = empty[:, None, None]
    return padded
