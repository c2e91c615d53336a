"""JSON lines, each whole or not there."""

from __future__ import annotations

import contextlib
import io
import json
import os
import select
import stat
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from rdn_engine.cli.streams import StdoutClosed

STDOUT = Path("-")


class Lines:
    """A file of JSON lines (docs/jsonl.md), or stdout. Use it as a context manager."""

    def __init__(self, path: Path) -> None:
        """Open it.

        Args:
            path: of a file, which is overwritten; `-` is stdout.

        Raises:
            OSError: for a file that cannot be written.
        """
        self._name = "stdout" if path == STDOUT else str(path)
        if path != STDOUT and not path.absolute().parent.is_dir():
            raise OSError(f"{path} cannot be written: its folder does not exist")
        # Without a buffer, which would write a part of a line when it is full, and try again when it is closed.
        self._file = io.FileIO(os.dup(1) if path == STDOUT else path, "w")
        self._can_cut = stat.S_ISREG(os.fstat(self._file.fileno()).st_mode)

    def write(self, fields: dict[str, Any]) -> None:
        """Append a line.

        Args:
            fields: what JSON can hold. A character that UTF-8 cannot, of a file's name in another encoding, is escaped:
                `os.fsencode` gives the name's bytes back.

        Raises:
            OSError: where the line cannot be written; a file then ends with the line before it.
            StdoutClosed: where the reader of stdout has gone.
        """
        line = json.dumps(fields, ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n"
        written = 0
        try:
            while written < len(line):
                taken = self._file.write(line[written:])
                if taken is None:  # a pipe that somebody else made non-blocking is full
                    select.select([], [self._file], [])
                written += taken or 0
        except OSError as error:
            if self._can_cut and written:
                with contextlib.suppress(OSError):
                    os.ftruncate(self._file.fileno(), os.fstat(self._file.fileno()).st_size - written)
            raise self._refusal(error) from None

    def close(self) -> None:
        """Finish the file; calling it again does nothing.

        Raises:
            OSError: where the system says only now that it could not write.
        """
        try:
            self._file.close()
        except OSError as error:
            raise self._refusal(error) from None

    def _refusal(self, error: OSError) -> OSError | StdoutClosed:
        if isinstance(error, BrokenPipeError) and self._name == "stdout":
            return StdoutClosed("stdout was closed by its reader")
        return OSError(error.errno, error.strerror, self._name)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
