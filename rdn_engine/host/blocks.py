"""A frame in blocks as large as some pixels of the network input: the means of their colours."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from rdn_engine.input_config import InputConfig
from rdn_engine.kernels import cpu
from rdn_engine.kernels.cpu import Float
from rdn_engine.stream.following import Picture

ROWS = 8
"""Rows of a block, at most, whose pixels are read: the others look like them, and reading is all that this costs"""
FINE = 2
"""Pixels of the network input: side of a block of `small_picture`"""


def block_side(config: InputConfig, geometry: tuple[int, int, float], block: int) -> tuple[int, int]:
    """How large a block is on a frame.

    Args:
        config: says how large the frame is to the network.
        geometry: height, width and pixel aspect of the frame.
        block: side in pixels of the network input.

    Returns:
        (height, width) in whole pixels of the frame, 1 to its own.
    """
    wide, tall = config.frame_scale(*geometry)
    return min(max(round(block * tall), 1), geometry[0]), min(max(round(block * wide), 1), geometry[1])


def most_blocks(config: InputConfig, block: int) -> int:
    """How many blocks a frame of any size has at most.

    Args:
        config: says how large frames are to the network.
        block: side in pixels of the network input.
    """
    sides = config.size or (config.shorter_side, config.longer_side)
    # A side that is rounded down is two thirds of what it was to be, or more; or it is 1 pixel, of which a frame
    # that is enlarged has fewer than its network input.
    return math.prod(math.ceil(1.5 * side / block) + 1 for side in sides)


def small_picture(image: NDArray[np.uint8], geometry: tuple[int, int, float], config: InputConfig) -> Picture:
    """A frame as boxes are followed on it.

    Args:
        image: uint8 [H, W, 3] RGB.
        geometry: height, width and pixel aspect of the frame.
        config: says how large it is to the network.
    """
    side = block_side(config, geometry, FINE)
    return Picture(np.rint(block_means(image, side)).astype(np.uint8), side)


def picture_nbytes(config: InputConfig) -> int:
    """Bytes of a `small_picture`, at most.

    Args:
        config: says how large frames are to the network.
    """
    return most_blocks(config, FINE) * 3


def block_means(image: NDArray[np.uint8], side: tuple[int, int]) -> Float:
    """The mean of each colour over each block of an image, of whose rows at most ROWS count.

    Args:
        image: uint8 [H, W, 3].
        side: (height, width) of a block in pixels, at most those of the image.

    Returns:
        [rows, columns, 3] grey levels, as `cpu.block_means`.
    """
    return cpu.block_means(image, side, most_rows=ROWS)
