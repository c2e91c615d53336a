"""Images as a source: files of any size, a frame for each picture that they hold."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from pathlib import Path

import av
import numpy as np
from av.container import InputContainer

from rdn_engine.errors import VideoError
from rdn_engine.frame import Frame, Image
from rdn_engine.media.base import VideoSource, reason
from rdn_engine.media.picture import EXIF, STRICT, UPRIGHT, Orientation, rgb

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm"})
VIDEO_SUFFIXES = frozenset(
    {".mp4", ".mkv", ".mov", ".avi", ".webm", ".ts", ".mpg", ".mpeg", ".m4v", ".wmv", ".flv", ".mxf", ".3gp"}
)
"""By which a folder's videos are noticed; what is a video decides FFmpeg"""

_ORIENTATION = 0x0112
"""The tag of Exif 3.0."""


Picture = tuple[Image | None, float | None]
"""[H, W, 3] RGB as it is shown, None for a damaged one; and for how many seconds, None where the file does not say."""


class ImageFiles(VideoSource):
    """Files in the order given. Each picture is a frame; an animation or a file of pages has several."""

    def __init__(self, paths: Sequence[Path], source_id: str, *, videos: int = 0) -> None:
        """Nothing is opened yet.

        Args:
            paths: of images, whatever they are called.
            source_id: what messages say; frames say their own file.
            videos: how many lie beside the images and are passed over, of which it warns.

        Raises:
            VideoError: for an empty list.
        """
        if not paths:
            raise VideoError(f"{source_id} holds no image; wanted {', '.join(sorted(IMAGE_SUFFIXES))}")
        super().__init__(source_id, len(paths), None, tuple(paths))
        if videos:
            what = "a video is" if videos == 1 else f"{videos} videos are"
            self._warn(f"{what} passed over, because there are images too; videos want a glob that names them alone")

    def _frames(self) -> Iterator[Frame]:
        numbered = _Numbered(timed=len(self.files) == 1)
        for path in self.files:
            try:
                data = path.read_bytes()
            except FileNotFoundError:
                raise VideoError(f"{path} does not exist") from None
            except OSError as error:
                data = b""
                self._warn(f"{path} cannot be read: {error.strerror}")
            for image, index, seconds in numbered.pictures(data):
                if image is None:
                    self.skipped += 1
                    self._warn(f"{path} is damaged and skipped")
                else:
                    yield Frame(image, index, seconds, str(path))


class ImagePackets(VideoSource):
    """Images that FFmpeg found where their name does not tell: on stdin, in a pipe, behind an address."""

    def __init__(self, container: InputContainer, source_id: str) -> None:
        """Take an open container over.

        Args:
            container: of an image format (`is_still`), each of whose packets is a file.
            source_id: what frames say, without credentials.
        """
        super().__init__(source_id, None, None)
        self._container = container

    def _release(self) -> None:
        self._container.close()

    def _frames(self) -> Iterator[Frame]:
        numbered, came = _Numbered(timed=True), False
        packets = self._container.demux(video=0)
        while True:
            why = ""
            try:
                packet = next(packets, None)
            except av.FFmpegError as error:
                why = reason(error)
            if why:  # out here, so that PyAV's error, which holds the whole address, is not the context of ours
                raise VideoError(f"{self.source_id}: reading stopped: {why}")
            if packet is None:
                break
            came |= packet.size > 0
            for image, index, seconds in numbered.pictures(bytes(packet)) if packet.size else ():
                if image is None:
                    self.skipped += 1
                else:
                    yield Frame(image, index, seconds, self.source_id)
        if not came:  # FFmpeg wants to know the size first, but of formats that it can cut into images
            name = self._container.streams.video[0].codec_context.name
            raise VideoError(f"{self.source_id}: {name} cannot be read from a pipe or an address; wanted a file")


def is_still(container: InputContainer) -> bool:
    """Whether FFmpeg found images of single files, by their content.

    Args:
        container: open.
    """
    return container.format.name == "image2" or container.format.name.endswith("_pipe")


def has_image_suffix(path: Path) -> bool:
    """Whether a file is named as an image. Hidden files are none: macOS keeps `._name` beside `name` on foreign disks.

    Args:
        path: of a file that need not exist.
    """
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".") and not path.is_dir()


def has_video_suffix(path: Path) -> bool:
    """Whether a file is named as a video; hidden files are none.

    Args:
        path: of a file that need not exist.
    """
    return path.suffix.lower() in VIDEO_SUFFIXES and not path.name.startswith(".") and not path.is_dir()


class _Numbered:
    """Numbers the pictures of one file after another."""

    def __init__(self, *, timed: bool) -> None:
        self._index = 0
        self._seconds = 0.0 if timed else None
        """When the next picture is shown, in an animation"""

    def pictures(self, data: bytes) -> Iterator[tuple[Image | None, int, float | None]]:
        for image, duration in _pictures(data):
            yield image, self._index, self._seconds if duration is not None else None
            self._index += 1
            if self._seconds is not None:
                self._seconds += duration or 0.0


def _pictures(data: bytes) -> Iterator[Picture]:
    """Grey, palette, alpha and 16-bit files become 8-bit RGB."""
    upright, by_pillow = _header(data)
    pictures = _leniently(data) if by_pillow else _strictly(data)
    while True:
        try:
            image, duration = next(pictures)
        except StopIteration:
            return
        except Exception:  # Pillow has no base class for what is wrong with a file
            yield None, None
            return
        yield upright.apply(image), duration


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
            return upright, header.format in ("PNG", "WEBP", "GIF") and getattr(header, "is_animated", False)
    except Exception:  # as above; what Pillow cannot read FFmpeg may
        return UPRIGHT, False


def _leniently(data: bytes) -> Iterator[tuple[Image, float | None]]:
    """Every picture of an animation or a file of pages, by Pillow."""
    import PIL.Image
    from PIL import ImageSequence

    with PIL.Image.open(io.BytesIO(data)) as file:
        for picture in ImageSequence.Iterator(file):
            if picture.mode.startswith("I;16"):  # which `convert` would cut at 255
                image = np.repeat((np.asarray(picture) >> 8).astype(np.uint8)[..., None], 3, axis=2)
            else:
                image = np.asarray(picture.convert("RGB"))
            duration = picture.info.get("duration")
            yield image, None if duration is None else duration / 1e3


def _strictly(data: bytes) -> Iterator[tuple[Image, float | None]]:
    """One picture by FFmpeg's decoders: told to be strict, they refuse what those of Pillow fill with grey."""
    # From memory and without its name, which the image demuxer would read as a pattern (`%d`).
    with av.open(io.BytesIO(data), mode="r") as container:
        stream = container.streams.video[0]
        stream.codec_context.options = STRICT
        frame = next(container.decode(stream))
        if frame.is_corrupt:
            raise ValueError
        yield rgb(frame), None
