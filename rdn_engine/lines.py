"""JSON lines, each whole or not there."""

from __future__ import annotations

import contextlib
import json
import os
import select
import stat
from collections.abc import Sequence
from itertools import accumulate
from typing import Any


def encode_line(fields: dict[str, Any]) -> bytes:
    """A JSON object as one line of UTF-8, without the line feed.

    Args:
        fields: what JSON can hold. A character that UTF-8 cannot, of a file's name in another encoding, is escaped:
            `os.fsencode` gives the name's bytes back.
    """
    return json.dumps(fields, ensure_ascii=False).encode("utf-8", "backslashreplace")


def append_lines(file: int, lines: Sequence[bytes]) -> tuple[int, OSError | None]:
    """Write lines to the end of a file; a regular file never keeps a part of one.

    Args:
        file: descriptor, at the end of what it holds. A pipe may be non-blocking: it is waited for.
        lines: without line feeds.

    Returns:
        How many of them were written, and why not all; None where all were.
    """
    data = b"".join(line + b"\n" for line in lines)
    taken, error = _write(file, data)
    if error is None:
        return len(lines), None
    ends = list(accumulate(len(line) + 1 for line in lines))
    whole = sum(end <= taken for end in ends)
    torn = taken - (ends[whole - 1] if whole else 0)
    with contextlib.suppress(OSError):
        status = os.fstat(file)
        if torn and stat.S_ISREG(status.st_mode):
            os.ftruncate(file, status.st_size - torn)
    return whole, error


def _write(file: int, data: bytes) -> tuple[int, OSError | None]:
    """How many bytes the system took, and why not all."""
    taken = 0
    try:
        while taken < len(data):
            try:
                taken += os.write(file, data[taken:])
            except BlockingIOError:  # a pipe that somebody else made non-blocking is full
                select.select([], [file], [])
    except OSError as error:
        return taken, error
    return taken, None
