"""Open what holds frames: a video, an address, an image, a folder, a glob, a list of images."""

from __future__ import annotations

import glob
import os
import re
import stat
from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from pathlib import Path

from rdn_engine.errors import VideoError
from rdn_engine.media.address import without_credentials
from rdn_engine.media.base import SourceOptions, VideoSource
from rdn_engine.media.camera import device_path, is_device, open_camera
from rdn_engine.media.container import open_container
from rdn_engine.media.images import (
    IMAGE_SUFFIXES,
    ImageFiles,
    ImagePackets,
    has_image_suffix,
    has_video_suffix,
    is_still,
)
from rdn_engine.media.packet_losses import PacketLosses, loses_packets
from rdn_engine.media.video import Video

_STDIN = ("-", "/dev/stdin")


def open_source(source: str | Path | Sequence[str | Path], options: SourceOptions | None = None) -> VideoSource:
    """Open a video, an image, or several images.

    Args:
        source: a video file, an address (`rtsp://...`), an image, a folder of images, a glob of images, a list of
            images, a named pipe, a video device (`/dev/video0`), or `-` for stdin. Folders and globs are read in
            natural order (`2.png` before `10.png`), a list in its own order. Other files in a folder are passed over,
            videos with a warning. Images may differ in size.
        options: how it is read.

    Returns:
        The source, open; nothing is decoded yet.

    Raises:
        VideoError: where there is nothing to read, or nothing that can be opened.
    """
    options = options or SourceOptions()
    if isinstance(source, Iterable) and not isinstance(source, (str, bytes, Path)):
        return _images(source)
    if not isinstance(source, (str, Path)):
        shown = without_credentials(f"{source!r:.80}")
        raise VideoError(f"the source is {shown}; wanted a path, an address, or a list of images")
    text = str(source)
    if not text:
        # `Path("")` would be the current folder, which nobody who passes an unset variable means.
        raise VideoError("the source is an empty string; wanted a video file, an image folder, a glob or an address")
    # What follows `file:` is a name as it is, to FFmpeg too. A file so given may not be written over either.
    place = text.removeprefix("file:") if text.startswith("file:/") else text
    if "://" in place:
        return _open(text, without_credentials(text), options, network=True)
    if is_device(text):
        return Video(open_camera(text, options), text, options=options, network=True)
    if text in _STDIN:
        url = _stdin(text)
        return _open(url, text, options, file=Path("/dev/stdin") if url.startswith("file:") else None)
    path = Path(place)
    if path.is_dir():
        return _images_among(path.iterdir(), text)
    if path.exists():
        if has_image_suffix(path):
            return ImageFiles([path], text)
        # A pipe has no size, and what was read of it to look inside would be gone.
        if path.is_file() and path.stat().st_size == 0:
            raise VideoError(f"{text} is empty (0 bytes); wanted a video")
        # The `file:` prefix keeps a colon in a name from being taken for a protocol.
        return _open(f"file:{path}", text, options, file=path)
    if glob.has_magic(place):
        paths = [Path(p) for p in glob.glob(place, recursive=True)]
        # A mistyped address with a query is a glob of nothing.
        return _images_among(paths, text if paths else without_credentials(text))
    shown = without_credentials(text)
    hint = f"; a camera is {device}" if (device := device_path(text)) else ""
    raise VideoError(f"{shown} does not exist; wanted a video file, an image folder, a glob or an address{hint}")


def _images_among(paths: Iterable[Path], source_id: str) -> VideoSource:
    """The images of a folder or of a glob; other files are passed over, videos with a warning."""
    there = list(paths)
    images = natural_order(filter(has_image_suffix, there))
    return ImageFiles(images, source_id, videos=sum(map(has_video_suffix, there)))


def _images(names: Iterable[str | Path]) -> VideoSource:
    paths = []
    for name in names:
        if not isinstance(name, (str, Path)) or Path(name).suffix.lower() not in IMAGE_SUFFIXES:
            wanted = ", ".join(sorted(IMAGE_SUFFIXES))
            raise VideoError(f"{without_credentials(str(name))} is not an image file; wanted {wanted}")
        paths.append(Path(name))
    return ImageFiles(paths, f"{len(paths)} images")


def _open(
    url: str, source_id: str, options: SourceOptions, *, network: bool = False, file: Path | None = None
) -> VideoSource:
    """What FFmpeg finds behind an address: a video, or images that are not called so."""
    losses = PacketLosses() if loses_packets(url, options.rtsp_over) else None
    try:
        with nullcontext() if losses is None else losses.counted():
            container = open_container(url, source_id, network=network, options=options)
    except VideoError:
        if losses is not None:
            losses.close()
        raise
    if not is_still(container):
        files = () if file is None else (file,)
        return Video(container, source_id, options=options, network=network, files=files, losses=losses)
    if file is None or not file.is_file():
        return ImagePackets(container, source_id)
    container.close()
    return ImageFiles([file], source_id)


def _stdin(text: str) -> str:
    """FFmpeg's address of stdin."""
    try:
        mode = os.fstat(0).st_mode
    except OSError:
        raise VideoError(f"{text} cannot be read: stdin is closed") from None
    # A file is opened anew, so that a container whose index stands at its end can be read. Nothing else can be: opening
    # a pipe whose writer has finished waits for another one, and a socket (ssh) has no name.
    return "file:/dev/stdin" if stat.S_ISREG(mode) else "pipe:0"


def natural_order(paths: Iterable[Path]) -> list[Path]:
    """Sort paths so that `2.png` comes before `10.png`.

    Args:
        paths: in any order.
    """

    def key(path: Path) -> list[tuple[int, str]]:
        return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", str(path))]

    return sorted(paths, key=key)
