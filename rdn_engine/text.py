"""Text files as editors and shells of every system write them."""

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
