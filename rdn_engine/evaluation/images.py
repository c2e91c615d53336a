"""Frames of a data set, from their files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from rdn_engine.errors import DatasetError
from rdn_engine.evaluation.coco_vid import Frame


def read_image(images: Path, frame: Frame) -> NDArray[np.uint8]:
    """One frame of a data set.

    Args:
        images: the folder that file names start from.
        frame: to read.

    Returns:
        uint8 [H, W, 3] RGB.

    Raises:
        DatasetError: the file is missing, damaged, or of another size than annotated.
    """
    path = images / frame.file_name
    try:
        with Image.open(path) as image:
            pixels = np.asarray(image.convert("RGB"))
    except FileNotFoundError:
        raise DatasetError(
            f"there is no file {path}, frame {frame.id} of the data set, whose file names are taken to start in "
            f"{images}: `images`, or --images, says where they do"
        ) from None
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        raise DatasetError(f"{path} cannot be read: {error}") from error
    if pixels.shape[:2] != (frame.height, frame.width):
        height, width = pixels.shape[:2]
        raise DatasetError(f"{path} is {width} x {height}; the annotations say {frame.width} x {frame.height}")
    return pixels
