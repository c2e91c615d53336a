"""The standard streams, which may be closed, broken or full."""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import stat
import sys
import termios
from typing import TextIO

from rdn_engine.errors import RDNError, VideoError

_STDIN, _STDOUT, STDERR = 0, 1, 2
TELL_SECONDS = 2.0
"""That room on stderr is waited for: where nobody reads it, the process is to end all the same"""


class StdoutClosed(RDNError):
    """Whoever read stdout has gone (`| head`)."""


def open_streams() -> None:
    """Give a standard stream that is closed to /dev/null, else the next file that is opened takes its number, and what
    a library prints goes into that file. Names that are not UTF-8 can be printed.
    """
    for number in (_STDIN, _STDOUT, STDERR):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    if sys.stdout is not None:
        sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]


def check_stdin(source: str) -> None:
    """Refuse to read a video from stdin where there is none; waits until that is known. Reads nothing.

    Args:
        source: of `rdn-engine predict`; one that is not stdin is not looked at.

    Raises:
        VideoError: for a stdin that is closed or holds nothing.
    """
    if source not in ("-", "/dev/stdin"):
        return
    if sys.stdin is None:  # its number is /dev/null's by now
        raise VideoError(f"{source} cannot be read: stdin is closed")
    if _is_empty(_STDIN):
        raise VideoError(f"{source} cannot be read: stdin is empty; wanted a video")


def _is_empty(number: int) -> bool:
    status = os.fstat(number)
    if stat.S_ISREG(status.st_mode):
        return status.st_size == 0
    if not stat.S_ISFIFO(status.st_mode) and not stat.S_ISSOCK(status.st_mode):
        return os.path.samestat(status, os.stat(os.devnull))
    select.select([number], [], [])
    waiting = fcntl.ioctl(number, termios.FIONREAD, bytes(4))
    return int.from_bytes(waiting, sys.byteorder) == 0


def say(message: str) -> None:
    """One line on stderr; where it cannot be written nothing is said, and nothing else changes.

    Args:
        message: of one line or several, which become one.
    """
    tell(f"rdn-engine: {' '.join(message.split())}\n")


def tell(text: str) -> None:
    """Write to stderr; where that fails, or there is no room in time, nothing else changes.

    Args:
        text: with its line ends; of a few hundred characters, which fit into the room of a pipe that has some.
    """
    with contextlib.suppress(OSError):
        if not select.select([], [STDERR], [], TELL_SECONDS)[1]:
            return
    _write(text, sys.stderr, STDERR, strict=False)


def emit(text: str) -> None:
    """Write to stdout, now. Where the process was started without one, nothing is written.

    Args:
        text: with its line ends.

    Raises:
        StdoutClosed: where its reader has gone.
        OSError: where it cannot be written, with `stdout` as the file's name.
    """
    try:
        _write(text, sys.stdout, _STDOUT, strict=True)
    except BrokenPipeError:
        raise StdoutClosed("stdout was closed by its reader") from None
    except OSError as error:
        raise OSError(error.errno, error.strerror, "stdout") from None


def _write(text: str, stream: TextIO | None, number: int, *, strict: bool) -> None:
    if stream is None:
        return
    try:
        stream.write(text)
        stream.flush()
    except OSError:
        # What is left in its buffer would be tried again at exit, and make the exit code Python's own 120.
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, number)
        os.close(null)
        if strict:
            raise
