"""Frames in: PyAV decodes, and every frame leaves as upright RGB with its index and time."""

from __future__ import annotations

import glob
import io
import re
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

import av
import numpy as np
from av.stream import Disposition
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from rdn_engine.errors import VideoError
from rdn_engine.frame import Frame, Image

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm"})

# Without `explode` many decoders paint over what they could not read and hand the picture out as if it were whole.
_STRICT = {"err_detect": "crccheck+explode"}
_NETWORK_TIMEOUT_S = 10.0
_MAX_READ_ERRORS = 100
_LOST_KEPT = 64  # more than any decoder holds back for reordering


class VideoSource(ABC):
    """An iterable of `Frame`, and a context manager. It is read once: a second iteration raises `VideoError`.

    One frame is held at a time. Leaving the context, or the end of the iteration, closes what was opened. A frame that
    the decoder found damaged is skipped and counted; one that was only predicted from it comes as decoded, and so does
    damage that the decoder does not notice (CABAC, the arithmetic coding of H.264, has no check of its own).
    """

    def __init__(
        self, source_id: str, frames_hint: int | None, fps: float | None, files: tuple[Path, ...] = ()
    ) -> None:
        self.source_id = source_id
        """What frames say where they come from, without credentials"""
        self.files = files
        """The files that are read, so that nobody writes over them; empty for an address"""
        self.frames_hint = frames_hint
        """About how many frames will come, where the source says so; for progress bars"""
        self.fps = fps
        """Mean frames per second; None for images"""
        self.skipped = 0
        """Damaged frames met and left out so far"""
        self._delivered = 0
        self._started = False

    def __iter__(self) -> Iterator[Frame]:
        if self._started:
            raise VideoError(f"{self.source_id} was read or closed already; open it again to read it from the start")
        self._started = True
        return self._read()

    def _read(self) -> Iterator[Frame]:
        try:
            for frame in self._frames():
                self._delivered += 1
                yield frame
        finally:
            self.close()
        if self._delivered == 0:
            raise VideoError(f"{self.source_id}: no frame could be decoded ({self.skipped} damaged)")

    @abstractmethod
    def _frames(self) -> Iterator[Frame]: ...

    def close(self) -> None:
        """Release the source; calling it again does nothing."""
        self._started = True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def open_source(source: str | Path | Sequence[str | Path]) -> VideoSource:
    """Open a video, an image, or several images.

    Args:
        source: a video file, an address (`rtsp://...`), an image, a folder of images, a glob of images, or a list of
            images. Folders and globs are read in natural order (`2.png` before `10.png`), a list in its own order.
            Other files in a folder are passed over. Images may differ in size.

    Returns:
        The source, open; nothing is decoded yet.

    Raises:
        VideoError: where there is nothing to read, or nothing that can be opened.
    """
    if not isinstance(source, (str, Path)):
        return _Images([Path(p) for p in source], f"{len(source)} images")
    text = str(source)
    if not text:
        # `Path("")` would be the current folder, which nobody who passes an unset variable means.
        raise VideoError("the source is an empty string; wanted a video file, an image folder, a glob or an address")
    if "://" in text:
        return _Video(text, _without_credentials(text), network=True)
    path = Path(source)
    if path.is_dir():
        return _Images(_natural_order(p for p in path.iterdir() if _is_image(p)), text)
    if path.exists():
        if _is_image(path):
            return _Images([path], text)
        if path.stat().st_size == 0:
            raise VideoError(f"{text} is empty (0 bytes); wanted a video")
        # The `file:` prefix keeps a colon in a name from being taken for a protocol.
        return _Video(f"file:{path}", text, network=False)
    if glob.has_magic(text):
        return _Images(_natural_order(Path(p) for p in glob.glob(text, recursive=True) if _is_image(Path(p))), text)
    raise VideoError(f"{text} does not exist; wanted a video file, an image folder, a glob or an address")


class _Video(VideoSource):
    def __init__(self, url: str, source_id: str, network: bool) -> None:
        # A file may name further inputs (playlists do); one that came from outside must not reach the network.
        options = {} if network else {"protocol_whitelist": "file"}
        timeout = _NETWORK_TIMEOUT_S if network else None
        try:
            self._container = av.open(url, mode="r", options=options, timeout=timeout)
        except (av.FFmpegError, OSError, ValueError) as error:
            raise VideoError(f"{source_id} cannot be opened as video: {reason(error)}") from None
        streams = [s for s in self._container.streams.video if not s.disposition & Disposition.attached_pic]
        if not streams:
            kinds = ", ".join(sorted({s.type for s in self._container.streams}))
            self._container.close()
            raise VideoError(f"{source_id} holds no video, only {kinds or 'an empty container'}")
        self._stream: VideoStream = streams[0]
        if self._stream.codec_context is None:
            self._container.close()
            raise VideoError(f"{source_id} is in a format that this build of FFmpeg has no decoder for")
        if self._stream.codec.intra_only:
            # Decoders that predict flag what they patched; told to be strict, they lose further pictures on the way.
            self._stream.codec_context.options = _STRICT
        self._sent: set[int] = set()
        """Timestamps of packets whose picture has not come out yet"""
        self._damaged: set[int] = set()
        self._lost: deque[int] = deque(maxlen=_LOST_KEPT)
        """Timestamps counted as skipped: after damage a decoder may hand out an older picture late, out of order"""
        rate = self._stream.average_rate or self._stream.guessed_rate
        files = () if network else (Path(url.removeprefix("file:")),)
        super().__init__(source_id, _count(self._stream, rate), float(rate) if rate else None, files)

    def close(self) -> None:
        super().close()
        self._container.close()

    def _frames(self) -> Iterator[Frame]:
        index = 0
        for decoded in self._decode():
            pts = decoded.pts
            if decoded.is_corrupt:
                index += self._damage(pts)
            elif pts not in self._damaged and pts not in self._lost:
                index += self._pass(pts)
                yield Frame(_upright_rgb(decoded), index, decoded.time, self.source_id)
                index += 1
        if self._damaged:
            self.skipped += len(self._sent)

    def _damage(self, pts: int | None) -> int:
        """Note a damaged packet or picture; returns how many numbers that takes at once."""
        if pts is None:
            self.skipped += 1
            return 1
        self._sent.add(pts)
        self._damaged.add(pts)
        return 0

    def _pass(self, pts: int | None) -> int:
        """A whole picture is out: the damaged ones before it are lost. Returns their number.

        Pictures come out in display order, errors come up in coding order, and a decoder that fails on a packet may
        drop the picture that it was about to hand out. So around damage every packet without a picture is lost; where
        nothing was damaged such a packet is no loss (the second field of an interlaced picture).
        """
        if pts is None:
            self._sent.clear()
            return 0
        lost = [p for p in self._sent if p < pts] if self._damaged else []
        self._lost.extend(lost)
        self.skipped += len(lost)
        self._sent = {p for p in self._sent if p > pts}
        self._damaged = {p for p in self._damaged if p > pts}
        return len(lost)

    def _decode(self) -> Iterator[VideoFrame]:
        read_errors = 0
        packets = self._container.demux(self._stream)
        while True:
            try:
                packet = next(packets)
            except StopIteration:
                return
            except av.FFmpegError as error:
                read_errors += 1
                if read_errors > _MAX_READ_ERRORS or not isinstance(error, av.error.InvalidDataError):
                    raise VideoError(
                        f"{self.source_id}: reading stopped after {self._delivered} frames: {reason(error)}"
                    ) from None
                packets = self._container.demux(self._stream)
                continue
            if packet.pts is not None and not packet.is_discard:
                self._sent.add(packet.pts)
            try:
                decoded = packet.decode()
            except av.error.EOFError:
                return
            except av.FFmpegError:
                self._damage(packet.pts)
                continue
            yield from decoded


class _Images(VideoSource):
    def __init__(self, paths: Sequence[Path], source_id: str) -> None:
        if not paths:
            raise VideoError(f"{source_id} holds no image; wanted {', '.join(sorted(IMAGE_SUFFIXES))}")
        for path in paths:
            if not _is_image(path):
                raise VideoError(f"{path} is not an image file; wanted {', '.join(sorted(IMAGE_SUFFIXES))}")
        super().__init__(source_id, len(paths), None, tuple(paths))

    def _frames(self) -> Iterator[Frame]:
        for index, path in enumerate(self.files):
            image = _read_image(path)
            if image is None:
                self.skipped += 1
            else:
                yield Frame(image, index, None, str(path))


def _read_image(path: Path) -> Image | None:
    """[H, W, 3] RGB, or None where the file is damaged. Grey, palette, alpha and 16-bit files become 8-bit RGB."""
    try:
        # From memory and without its name, which the image demuxer would read as a pattern (`%d`).
        with av.open(io.BytesIO(path.read_bytes()), mode="r") as container:
            stream = container.streams.video[0]
            stream.codec_context.options = _STRICT
            frame = next(container.decode(stream))
            return None if frame.is_corrupt else _upright_rgb(frame)
    except FileNotFoundError:
        raise VideoError(f"{path} does not exist") from None
    except (av.FFmpegError, OSError, StopIteration, IndexError):
        return None


def _upright_rgb(frame: VideoFrame) -> Image:
    image = frame.to_ndarray(format="rgb24")
    turns = round(frame.rotation / 90) % 4
    return np.ascontiguousarray(np.rot90(image, turns) if turns else image).astype(np.uint8, copy=False)


def _count(stream: VideoStream, rate: Fraction | None) -> int | None:
    if stream.frames:
        return stream.frames
    if stream.duration and stream.time_base and rate:
        return round(stream.duration * stream.time_base * rate)
    return None


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.is_dir()


def _natural_order(paths: Iterator[Path]) -> list[Path]:
    def key(path: Path) -> list[tuple[int, str]]:
        return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", str(path))]

    return sorted(paths, key=key)


def _without_credentials(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def reason(error: Exception) -> str:
    """Why PyAV or the system failed, without the address, which may hold credentials.

    Args:
        error: what was raised.
    """
    return getattr(error, "strerror", None) or type(error).__name__
