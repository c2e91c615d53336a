"""Open what holds frames: a video, an address, an image, a folder, a glob, a list of images."""

from __future__ import annotations

import glob
import os
import re
import stat
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from rdn_engine.errors import VideoError
from rdn_engine.media.address import without_credentials
from rdn_engine.media.base import SourceOptions, VideoSource
from rdn_engine.media.container import open_container
from rdn_engine.media.images import IMAGE_SUFFIXES, ImageFiles, ImagePackets, has_image_suffix, is_still
from rdn_engine.media.video import Video

_STDIN = ("-", "/dev/stdin")


def open_source(source: str | Path | Sequence[str | Path], options: SourceOptions | None = None) -> VideoSource:
    """Open a video, an image, or several images.

    Args:
        source: a video file, an address (`rtsp://...`), an image, a folder of images, a glob of images, a list of
            images, a named pipe, or `-` for stdin. Folders and globs are read in natural order (`2.png` before
            `10.png`), a list in its own order. Other files in a folder are passed over. Images may differ in size.
        options: how it is read.

    Returns:
        The source, open; nothing is decoded yet.

    Raises:
        VideoError: where there is nothing to read, or nothing that can be opened.
    """
    options = options or SourceOptions()
    if isinstance(source, Iterable) and not isinstance(source, (str, Path)):
        return _images([Path(p) for p in source])
    if not isinstance(source, (str, Path)):
        raise VideoError(f"the source is {source!r:.80}; wanted a path, an address, or a list of images")
    text = str(source)
    if not text:
        # `Path("")` would be the current folder, which nobody who passes an unset variable means.
        raise VideoError("the source is an empty string; wanted a video file, an image folder, a glob or an address")
    # What follows `file:` is a name as it is, to FFmpeg too. A file so given may not be written over either.
    place = text.removeprefix("file:") if text.startswith("file:/") else text
    if "://" in place:
        return _open(text, without_credentials(text), options, network=True)
    if text in _STDIN:
        url = _stdin(text)
        return _open(url, text, options, file=Path("/dev/stdin") if url.startswith("file:") else None)
    path = Path(place)
    if path.is_dir():
        return ImageFiles(_natural_order(p for p in path.iterdir() if has_image_suffix(p)), text)
    if path.exists():
        if has_image_suffix(path):
            return ImageFiles([path], text)
        # A pipe has no size, and what was read of it to look inside would be gone.
        if path.is_file() and path.stat().st_size == 0:
            raise VideoError(f"{text} is empty (0 bytes); wanted a video")
        # The `file:` prefix keeps a colon in a name from being taken for a protocol.
        return _open(f"file:{path}", text, options, file=path)
    if glob.has_magic(place):
        return ImageFiles(
            _natural_order(Path(p) for p in glob.glob(place, recursive=True) if has_image_suffix(Path(p))), text
        )
    raise VideoError(f"{text} does not exist; wanted a video file, an image folder, a glob or an address")


def _images(paths: list[Path]) -> VideoSource:
    for path in paths:
        if path.suffix.lower() not in IMAGE_SUFFIXES:
            raise VideoError(f"{path} is not an image file; wanted {', '.join(sorted(IMAGE_SUFFIXES))}")
    return ImageFiles(paths, f"{len(paths)} images")


def _open(
    url: str, source_id: str, options: SourceOptions, *, network: bool = False, file: Path | None = None
) -> VideoSource:
    """What FFmpeg finds behind an address: a video, or images that are not called so."""
    container = open_container(url, source_id, network=network, options=options)
    if not is_still(container):
        files = () if file is None else (file,)
        return Video(container, source_id, options=options, network=network, files=files)
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


def _natural_order(paths: Iterator[Path]) -> list[Path]:
    def key(path: Path) -> list[tuple[int, str]]:
        return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", str(path))]

    return sorted(paths, key=key)
