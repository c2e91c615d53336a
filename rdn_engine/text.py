"""Text files as every system writes them, and text that stands where a binary file should."""

from __future__ import annotations

import codecs
import io
from pathlib import Path

# The longer mark first: that of UTF-32 begins with that of UTF-16.
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def read_text(path: Path) -> str:
    """Read a text file without its byte order mark, which Windows puts in front; the mark tells the encoding.

    Args:
        path: of a file in UTF-8, or in UTF-16 or UTF-32 with a mark.

    Returns:
        The text, its lines ended by a line feed.

    Raises:
        OSError: where it cannot be read.
        UnicodeDecodeError: for bytes that are not of the encoding.
    """
    data = path.read_bytes()
    encoding = next((name for mark, name in _MARKS if data.startswith(mark)), "utf-8")
    return io.TextIOWrapper(io.BytesIO(data), encoding=encoding).read()


def what_came_instead(head: bytes) -> str | None:
    """What stands in the place of a binary file that was not downloaded.

    Args:
        head: the first bytes of the file, 64 or more where it has as many.

    Returns:
        What it is and what to do, in words; None for what may be the file itself.
    """
    if not head:
        return "empty; download it again"
    if head.startswith(b"version https://git-lfs.github.com/spec/"):
        return "a Git LFS pointer, not the file that it stands for; fetch that with `git lfs pull`"
    text = head.removeprefix(codecs.BOM_UTF8).lstrip().lower()
    for start, kind in ((b"<!doctype html", "an HTML page"), (b"<html", "an HTML page"), (b"<?xml", "an XML document")):
        if text.startswith(start):
            return f"{kind}, as a download that wants a login or a confirmation leaves; download it again"
    if text.startswith(b"{"):
        return "JSON, as a refused download or the index of a model in several files is; wanted the file itself"
    return None
