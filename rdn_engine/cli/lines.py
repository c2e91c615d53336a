"""The file of results that `predict` writes, or stdout."""

from __future__ import annotations

import os
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from rdn_engine.cli.streams import StdoutClosed
from rdn_engine.lines import append_lines, encode_line

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
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
        self._file: int | None = os.dup(1) if path == STDOUT else os.open(path, flags, 0o666)

    def write(self, fields: dict[str, Any]) -> None:
        """Append a line.

        Args:
            fields: as `encode_line` takes them.

        Raises:
            OSError: where the line cannot be written; a file then ends with the line before it.
            StdoutClosed: where the reader of stdout has gone.
        """
        assert self._file is not None
        error = append_lines(self._file, [encode_line(fields)])[1]
        if error is not None:
            raise self._refusal(error)

    def close(self) -> None:
        """Finish the file; calling it again does nothing.

        Raises:
            OSError: where the system says only now that it could not write.
        """
        file, self._file = self._file, None
        if file is None:
            return
        try:
            os.close(file)
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
