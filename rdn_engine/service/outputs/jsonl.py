"""Lines at the end of files that nobody else writes."""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rdn_engine.lines import append_lines
from rdn_engine.service.outputs.settings import JsonlSettings
from rdn_engine.service.outputs.writer import Attempt, place_of


@dataclass
class _File:
    descriptor: int
    identity: tuple[int, int]
    """Device and inode: whether what is at the path is still this file"""
    size: int
    """Bytes"""


class JsonlWriter:
    """Appends whole lines. A file that was moved away is begun anew, one that grows too large is moved away."""

    def __init__(self, settings: JsonlSettings) -> None:
        """Nothing is opened yet.

        Args:
            settings: of the output.
        """
        self._settings = settings
        self._files: dict[str, _File] = {}

    def write(self, stream: str, lines: Sequence[bytes]) -> Attempt:
        """Append lines. Where that fails the file ends with a whole line.

        Args:
            stream: name.
            lines: without line feeds.
        """
        path = place_of(self._settings.path, stream)
        done = 0
        try:
            while done < len(lines):
                file = self._open(path)
                count = self._fitting(file, lines[done:])
                if count == 0:
                    self._rotate(path)
                    continue
                done += self._append(file, lines[done : done + count])
        except _Partly as error:
            self._close(path)
            return Attempt(done + error.written, message=f"{path}: {error.strerror}")
        except OSError as error:
            self._close(path)
            return Attempt(done, message=f"{path}: {error.strerror}")
        return Attempt(done)

    def forget(self, stream: str) -> None:
        """Close the stream's file, where it has one of its own."""
        if "{stream}" in self._settings.path:
            self._close(place_of(self._settings.path, stream))

    def stop(self) -> None:
        """Nothing: a write into a file cannot be ended from outside."""

    def close(self) -> None:
        """Close all files."""
        for path in list(self._files):
            self._close(path)

    def _open(self, path: str) -> _File:
        """The file at a path: the one that is open, unless somebody moved it away."""
        file = self._files.get(path)
        with contextlib.suppress(FileNotFoundError):
            if file is not None and _identity(status := os.stat(path)) == file.identity:
                file.size = status.st_size  # others may have shortened it (logrotate's copytruncate)
                return file
        self._close(path)
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        # Without O_NONBLOCK a pipe without a reader would never be open.
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NONBLOCK
        descriptor = os.open(path, flags, 0o666)
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise OSError(0, "it is no regular file")
            _lock(descriptor)
            size = status.st_size
            if size and os.pread(descriptor, 1, size - 1) != b"\n":
                # Left by a power cut. Cutting it off might take what is not ours: it becomes a line of its own.
                _, error = append_lines(descriptor, [b""])
                if error is not None:
                    raise error
                size += 1
        except BaseException:
            os.close(descriptor)
            raise
        self._files[path] = file = _File(descriptor, _identity(status), size)
        return file

    def _fitting(self, file: _File, lines: Sequence[bytes]) -> int:
        """How many of the lines the file has room for; an empty one has it for the first line, whatever its size."""
        if self._settings.max_bytes is None:
            return len(lines)
        size = file.size
        for count, line in enumerate(lines):
            size += len(line) + 1
            if size > self._settings.max_bytes and (count or file.size):
                return count
        return len(lines)

    def _append(self, file: _File, lines: Sequence[bytes]) -> int:
        whole, error = append_lines(file.descriptor, lines)
        if error is None and self._settings.fsync:
            try:
                os.fsync(file.descriptor)
            except OSError as failure:
                # The system may have forgotten what it did not write: all of it is written again.
                with contextlib.suppress(OSError):
                    os.ftruncate(file.descriptor, file.size)
                whole, error = 0, failure
        file.size += sum(len(line) + 1 for line in lines[:whole])
        if error is not None:
            raise _Partly(whole, error)
        return whole

    def _rotate(self, path: str) -> None:
        """Move PATH.1 to PATH.2 and so on up to the first that is free, and PATH to PATH.1; where none is free the
        oldest is overwritten. So where PATH cannot be moved, and is tried again, nothing more is overwritten.
        """
        names = [f"{path}.{number}" for number in range(1, self._settings.keep + 1)]
        free = next((i for i, name in enumerate(names) if not os.path.lexists(name)), len(names) - 1)
        for i in range(free, 0, -1):
            os.rename(names[i - 1], names[i])
        os.rename(path, f"{path}.1")
        self._close(path)

    def _close(self, path: str) -> None:
        file = self._files.pop(path, None)
        if file is not None:
            with contextlib.suppress(OSError):
                os.close(file.descriptor)


class _Partly(OSError):
    def __init__(self, written: int, error: OSError) -> None:
        super().__init__(error.errno, error.strerror)
        self.written = written


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def _lock(descriptor: int) -> None:
    """Keep other outputs, of this process and of others, from cutting lines off that are not theirs."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise OSError(0, "another output writes into it") from None
    except OSError:
        pass  # a file system without locks
