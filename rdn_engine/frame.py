"""A frame of a video, and the one check of an image at the boundary."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from rdn_engine.capture import Capture
from rdn_engine.errors import FrameError

Image = NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Frame:
    """One frame of a source, as `open_source` gives it and `Stream.push` takes it."""

    image: Image
    """[H, W, 3] RGB, upright (rotation metadata applied)"""
    index: int
    """Position in the source, from 0. A frame that was skipped as damaged keeps its number, so a gap shows."""
    pts: float | None
    """Seconds on the source's own clock; None for images and for sources without timestamps"""
    source_id: str
    """The path or address that the frame comes from, as given, without credentials"""
    pixel_aspect: float = 1.0
    """Width over height of a pixel, 1/16..16. The network sees square ones; boxes stay in the pixels of the image"""
    capture: Capture | None = None
    """How it was come by; None where it comes from no live source"""

    def __repr__(self) -> str:
        """What the frame is; of its pixels only type and shape, and of the rest what is not as usual."""
        image, *rest = fields(self)
        said = ((field.name, getattr(self, field.name)) for field in rest if getattr(self, field.name) != field.default)
        return f"Frame({image.name}={_described(self.image)}, {', '.join(f'{name}={value!r}' for name, value in said)})"


YuvMatrix = Literal["bt601", "bt709", "bt2020"]
"""How luma and chroma are made from red, green and blue (ITU-T H.273, table 4: 5 or 6, 1, 9)"""
YUV_MATRICES: tuple[YuvMatrix, ...] = get_args(YuvMatrix)


class NV12(NamedTuple):
    """A frame as video decoders give it, in two device arrays, whose rows may have gaps."""

    luma: Any
    """uint8 [H, W], W even"""
    chroma: Any
    """uint8 [(H + 1) / 2, W] of alternating u and v"""
    matrix: YuvMatrix = "bt709"
    """As the stream says; HD that says nothing is BT.709, smaller video BT.601"""
    full_range: bool = False
    """Whether the bytes are 0..255; otherwise luma is 16..235, chroma 16..240"""

    def __repr__(self) -> str:
        """Types and shapes: the values are on the device."""
        planes = f"luma={_described(self.luma)}, chroma={_described(self.chroma)}"
        return f"NV12({planes}, matrix={self.matrix!r}, full_range={self.full_range})"


Source = str | Path | Image | Sequence[str | Path] | Iterable["Image | Frame"]


MIN_SIDE = 16
"""Pixels: the shortest side of a frame, one cell of the feature map"""


MAX_PIXELS = 2**26
"""The largest height x width of a frame, pixels: 8192 x 8192"""


def check_image(image: object) -> NDArray[np.uint8]:
    """The one check of an image at the boundary.

    Args:
        image: wanted is uint8 [H, W, 3] RGB, with any strides.

    Returns:
        The image as it is.

    Raises:
        FrameError: quotes shape and dtype, and says how to convert.
    """
    if not isinstance(image, np.ndarray):
        raise FrameError(f"got {type(image).__name__}; wanted a uint8 [H, W, 3] RGB array; use numpy.asarray(image)")
    fits = image.ndim == 3 and image.shape[2] == 3 and image.dtype == np.uint8
    wrong = wrong_size(image.shape[0], image.shape[1]) if fits else f"; {_hint(image)}"
    # The message is made only where it is wanted: to name a dtype takes longer than all of the checks.
    if wrong is not None:
        raise FrameError(f"got {image.dtype} {list(image.shape)}; wanted uint8 [H, W, 3] RGB{wrong}")
    return image


def wrong_size(height: int, width: int) -> str | None:
    """The one check of a frame's size.

    Args:
        height, width: of the frame, pixels.

    Returns:
        What was wanted, for the end of a message, of a side below MIN_SIDE or more than MAX_PIXELS; None where the size
        is right.
    """
    if min(height, width) < MIN_SIDE:
        return f" with sides of at least {MIN_SIDE} pixels"
    if height * width > MAX_PIXELS:
        return f" with at most {MAX_PIXELS} pixels; scale it down first"
    return None


def _described(image: object) -> str:
    """An array by type and shape, of any library; what is no array by its own repr."""
    if not hasattr(image, "shape") or not hasattr(image, "dtype"):
        return f"{image!r:.80}"
    return f"{image.dtype}{list(image.shape)}"


def _hint(image: NDArray[np.generic]) -> str:
    if image.ndim == 2 or (image.ndim == 3 and image.shape[2] == 1):
        return "a grey image becomes RGB with numpy.repeat(image.reshape(H, W, 1), 3, axis=2)"
    if image.ndim == 3 and image.shape[2] == 4:
        return "drop the alpha channel with image[:, :, :3]"
    if image.ndim == 3 and image.shape[0] == 3 and image.shape[2] != 3:
        return "move the channels last with image.transpose(1, 2, 0)"
    if image.ndim == 4:
        return "push one image at a time"
    if image.dtype == np.uint16:
        return "16-bit becomes 8-bit with (image >> 8).astype(numpy.uint8)"
    if image.dtype.kind == "f":
        return "a float image in 0..1 becomes 8-bit with (image * 255).round().astype(numpy.uint8)"
    return "convert it first"
