"""Files that are read though nobody names them: a playlist does, or an address."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

_PROBE = 4096
"""Bytes by which text is told from a video"""
_BINARY = re.compile(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f]")
_LONGEST = 2**26
"""Bytes that are read of a playlist: about a million segments"""
_QUOTED = re.compile(r"\"([^\"]*)\"|'([^']*)'")
_ESCAPED = re.compile(r"'([^']*)'?|\\(.)|([^'\\]+)")
_ENDS = re.compile(r"[\s,=\"']+")
"""Of names that stand in no quotes"""
_IN_ADDRESS = re.compile(r"[|]|:(?=/)")
"""Between names in an address: `concat:///a.ts|/b.ts` and `cache:///a.ts` are files"""


def files_read(source: str, files: Iterable[Path]) -> list[Path]:
    """Every file that is there and may be read with a source.

    No format of playlists is parsed: whatever part of a line names a file, beside the playlist or absolute, counts. So
    do those that playlists among them name. HLS has keys and initial parts beside its segments, ffconcat quotes.

    Args:
        source: what a user typed: a name or an address.
        files: of which it is known that they are read (`VideoSource.files`).

    Returns:
        `files`, and what else there is, each once.
    """
    found: dict[object, Path] = {}
    waiting = [*files, *map(Path, _IN_ADDRESS.split(source) if "://" in source else ())]
    while waiting:
        file = waiting.pop()
        key = file_key(file)
        if key is not None and key not in found:
            found[key] = file
            names = {name for line in re.split("[\r\n]+", _text(file)) for name in _names(line)}
            waiting += [file.parent / name for name in names]
    return list(found.values())


def file_key(path: Path) -> tuple[int, int] | None:
    """What is equal for two names of one file, of links too.

    Args:
        path: of a file.

    Returns:
        Device and inode; None for what is no file, or cannot be looked at.
    """
    try:
        found = path.stat()
    except (OSError, ValueError):  # also a name with a zero in it
        return None
    return (found.st_dev, found.st_ino) if stat.S_ISREG(found.st_mode) else None


def _text(path: Path) -> str:
    """What a file holds, if that is text."""
    try:
        with path.open("rb") as file:
            beginning = file.read(_PROBE)
            return "" if _BINARY.search(beginning) else os.fsdecode(beginning + file.read(_LONGEST))
    except OSError:
        return ""


def _names(line: str) -> Iterator[str]:
    """Whatever may be the name of a file in a line."""
    stripped = line.strip()
    quoted = (one or other for one, other in _QUOTED.findall(line))
    # After the word `file` ffconcat has quotes and backslashes as a shell has them.
    unescaped = "".join("".join(parts) for parts in _ESCAPED.findall(stripped.partition(" ")[2].strip()))
    for name in (line, stripped, *quoted, unescaped, *_ENDS.split(line)):
        if name:
            yield name
            yield re.sub("^file:(//)?", "", name)
