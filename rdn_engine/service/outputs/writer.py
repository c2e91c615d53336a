"""What a kind of output gives to the queue in front of it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import quote

_LONGEST_PART = 150
"""Characters; a file's name has 255, and something may stand around it"""


@dataclass(frozen=True)
class Attempt:
    """What came of an attempt to write a batch."""

    done: int
    """Lines, from the batch's beginning, that are over: written, or never to be"""
    refused: int = 0
    """Those of them that will never be taken"""
    message: str | None = None
    """Why not all were written; None where they were"""
    everywhere: bool = False
    """Whether no other stream's lines can be written now either"""
    after: float = 0.0
    """Seconds before which another attempt is of no use"""


class Writer(Protocol):
    """Writes batches. All methods but `stop` are called from one thread, the output's."""

    def write(self, stream: str, lines: Sequence[bytes]) -> Attempt:
        """Write lines, or the first of them. Those that are not done come again, as the same objects.

        Args:
            stream: name.
            lines: one or more, without line feeds.
        """
        ...

    def forget(self, stream: str) -> None:
        """A stream has ended: give back what is held for it."""
        ...

    def stop(self) -> None:
        """End an attempt that is going on, as soon as may be, and every later one. Called from another thread."""
        ...

    def close(self) -> None:
        """Give everything back; after the last attempt."""
        ...


def place_of(template: str, stream: str) -> str:
    """A path or a topic with a stream's name in it. Two streams never get the same one.

    Args:
        template: `{stream}` in it is replaced.
        stream: any text; what is no letter, digit or one of `_.-~` is percent-encoded.
    """
    part = quote(stream, safe="", errors="surrogatepass")
    if not part.strip("."):
        part = part.replace(".", "%2E")  # `.` and `..` are folders
    if len(part) > _LONGEST_PART:
        digest = hashlib.sha256(stream.encode("utf-8", "surrogatepass")).hexdigest()
        part = f"{part[: _LONGEST_PART // 2]}%-{digest}"  # no encoded name has `%-`
    return template.replace("{stream}", part)
