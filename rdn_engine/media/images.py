"""Images as a source: files of any size, one frame each."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from pathlib import Path

import av

from rdn_engine.errors import VideoError
from rdn_engine.frame import Frame, Image
from rdn_engine.media.base import VideoSource
from rdn_engine.media.picture import STRICT, upright_rgb

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm"})


class ImageFiles(VideoSource):
    def __init__(self, paths: Sequence[Path], source_id: str) -> None:
        if not paths:
            raise VideoError(f"{source_id} holds no image; wanted {', '.join(sorted(IMAGE_SUFFIXES))}")
        for path in paths:
            if not is_image(path):
                raise VideoError(f"{path} is not an image file; wanted {', '.join(sorted(IMAGE_SUFFIXES))}")
        super().__init__(source_id, len(paths), None, tuple(paths))

    def _frames(self) -> Iterator[Frame]:
        for index, path in enumerate(self.files):
            image = _read_image(path)
            if image is None:
                self.skipped += 1
            else:
                yield Frame(image, index, None, str(path))


def is_image(path: Path) -> bool:
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.is_dir()


def _read_image(path: Path) -> Image | None:
    """[H, W, 3] RGB, or None where the file is damaged. Grey, palette, alpha and 16-bit files become 8-bit RGB."""
    try:
        # From memory and without its name, which the image demuxer would read as a pattern (`%d`).
        with av.open(io.BytesIO(path.read_bytes()), mode="r") as container:
            stream = container.streams.video[0]
            stream.codec_context.options = STRICT
            frame = next(container.decode(stream))
            return None if frame.is_corrupt else upright_rgb(frame)
    except FileNotFoundError:
        raise VideoError(f"{path} does not exist") from None
    except (av.FFmpegError, OSError, StopIteration, IndexError):
        return None
