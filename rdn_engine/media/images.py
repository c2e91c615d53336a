"""Images as a source: files of any size, a frame for each picture that they hold."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from pathlib import Path

import av
import numpy as np

from rdn_engine.errors import VideoError
from rdn_engine.frame import Frame, Image
from rdn_engine.media.base import VideoSource
from rdn_engine.media.picture import EXIF, STRICT, UPRIGHT, Orientation, rgb

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm"})

_ORIENTATION = 0x0112
"""The tag of Exif 3.0."""


class ImageFiles(VideoSource):
    """Files in the order given. Each picture is a frame; an animation or a file of pages has several."""

    def __init__(self, paths: Sequence[Path], source_id: str) -> None:
        if not paths:
            raise VideoError(f"{source_id} holds no image; wanted {', '.join(sorted(IMAGE_SUFFIXES))}")
        for path in paths:
            if not has_image_suffix(path):
                raise VideoError(f"{path} is not an image file; wanted {', '.join(sorted(IMAGE_SUFFIXES))}")
        super().__init__(source_id, len(paths), None, tuple(paths))

    def _frames(self) -> Iterator[Frame]:
        index = 0
        for path in self.files:
            try:
                data = path.read_bytes()
            except FileNotFoundError:
                raise VideoError(f"{path} does not exist") from None
            except OSError as error:
                data = b""
                self._warn(f"{path} cannot be read: {error.strerror}")
            for image in _pictures(data):
                if image is None:
                    self.skipped += 1
                    self._warn(f"{path} is damaged and skipped")
                else:
                    yield Frame(image, index, None, str(path))
                index += 1


def has_image_suffix(path: Path) -> bool:
    """Whether a file is named as an image. Hidden files are none: macOS keeps `._name` beside `name` on foreign disks.

    Args:
        path: of a file that need not exist.
    """
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".") and not path.is_dir()


def _pictures(data: bytes) -> Iterator[Image | None]:
    """[H, W, 3] RGB each, as shown; None for a damaged one. Grey, palette, alpha and 16-bit files become 8-bit RGB."""
    upright, by_pillow = _header(data)
    pictures = _leniently(data) if by_pillow else _strictly(data)
    while True:
        try:
            image = next(pictures)
        except StopIteration:
            return
        except Exception:  # Pillow has no base class for what is wrong with a file
            yield None
            return
        yield upright.apply(image)


def _header(data: bytes) -> tuple[Orientation, bool]:
    """How to turn what is read, and whether Pillow is to read it.

    FFmpeg reads the first of several pictures only, no animated WebP, and when it is strict no TIFF with Exif.
    """
    import PIL.Image  # here, because it takes longer to import than videos need to open

    try:
        with PIL.Image.open(io.BytesIO(data)) as header:
            if header.format == "TIFF":  # which Pillow turns as it loads it
                return UPRIGHT, True
            upright = EXIF.get(header.getexif().get(_ORIENTATION, 1), UPRIGHT)
            return upright, header.format in ("PNG", "WEBP") and getattr(header, "is_animated", False)
    except Exception:  # as above; what Pillow cannot read FFmpeg may
        return UPRIGHT, False


def _leniently(data: bytes) -> Iterator[Image]:
    """Every picture of an animation or a file of pages, by Pillow."""
    import PIL.Image
    from PIL import ImageSequence

    with PIL.Image.open(io.BytesIO(data)) as file:
        for picture in ImageSequence.Iterator(file):
            if picture.mode.startswith("I;16"):  # which `convert` would cut at 255
                yield np.repeat((np.asarray(picture) >> 8).astype(np.uint8)[..., None], 3, axis=2)
            else:
                yield np.asarray(picture.convert("RGB"))


def _strictly(data: bytes) -> Iterator[Image]:
    """One picture by FFmpeg's decoders: told to be strict, they refuse what those of Pillow fill with grey."""
    # From memory and without its name, which the image demuxer would read as a pattern (`%d`).
    with av.open(io.BytesIO(data), mode="r") as container:
        stream = container.streams.video[0]
        stream.codec_context.options = STRICT
        frame = next(container.decode(stream))
        if frame.is_corrupt:
            raise ValueError
        yield rgb(frame)
