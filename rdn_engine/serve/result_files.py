"""A file of one video's results, JSON lines or Parquet, that is there once it is whole."""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal, Protocol

from rdn_engine.errors import BackendUnavailable
from rdn_engine.lines import encode_line
from rdn_engine.results import Detections
from rdn_engine.serve.atomic import replacing

ResultFormat = Literal["jsonl", "parquet"]
_ROW_GROUP = 1024
"""Frames that are held until they are written as one group of a Parquet file"""


class ResultFile:
    """Writes results, and counts them."""

    def __init__(self, writer: _Writer) -> None:
        self._writer = writer
        self.frames = 0
        self.encoded = 0
        self.per_class: Counter[str] = Counter()
        self.epochs = 0

    def write(self, results: Iterable[Detections]) -> None:
        """Append results, in order.

        Args:
            results: of the next frames.

        Raises:
            OSError: where they cannot be written.
        """
        for result in results:
            self._writer.write(result.to_dict())
            self.frames += 1
            self.encoded += result.encoded
            self.per_class.update(result.class_names[c] for c in result.class_id)
            self.epochs = result.epoch + 1


@contextlib.contextmanager
def result_file(path: Path, form: ResultFormat) -> Iterator[ResultFile]:
    """A file that takes the place of the one before when the context ends well.

    Args:
        path: of the file.
        form: what it is: lines of docs/jsonl.md, or Parquet with the same fields, a row a frame.

    Raises:
        BackendUnavailable: for Parquet without pyarrow.
        OSError: where it cannot be written.
    """
    with replacing(path) as place:
        writer: _Writer = _Lines(place) if form == "jsonl" else _Parquet(place)
        try:
            yield ResultFile(writer)
        finally:
            writer.close()


def check_format(form: ResultFormat) -> None:
    """Check that files of a format can be written.

    Args:
        form: the format.

    Raises:
        BackendUnavailable: for Parquet without pyarrow.
    """
    if form == "parquet":
        try:
            import pyarrow.parquet  # noqa: F401
        except ImportError as error:
            raise BackendUnavailable(f"Parquet needs pyarrow ({error}); pip install pyarrow") from error


class _Writer(Protocol):
    def write(self, line: dict[str, Any]) -> None: ...

    def close(self) -> None: ...


class _Lines:
    def __init__(self, path: Path) -> None:
        self._file = path.open("wb")

    def write(self, line: dict[str, Any]) -> None:
        self._file.write(encode_line(line) + b"\n")

    def close(self) -> None:
        with self._file:
            self._file.flush()
            os.fsync(self._file.fileno())


class _Parquet:
    def __init__(self, path: Path) -> None:
        check_format("parquet")
        import pyarrow as pa
        from pyarrow.parquet import ParquetWriter

        box = {
            "xyxy": pa.list_(pa.float32(), 4),
            "confidence": pa.float32(),
            "class_id": pa.int64(),
            "class_name": pa.string(),
            "tracker_id": pa.int64(),
        }
        numbers = ("height", "width", "pool_fill", "lookahead", "epoch")
        self._schema = pa.schema(
            {
                "frame_index": pa.int64(),
                "pts": pa.float64(),
                "source_id": pa.string(),
                **dict.fromkeys(numbers, pa.int64()),
                "basis": pa.string(),
                "detections": pa.list_(pa.struct(box)),
            }
        )
        self._table = pa.Table
        self._file = path.open("wb")
        self._writer = ParquetWriter(self._file, self._schema)
        self._lines: list[dict[str, Any]] = []

    def write(self, line: dict[str, Any]) -> None:
        # Parquet's text is UTF-8; other bytes of a name are escaped as in the lines.
        name = line["source_id"].encode("utf-8", "backslashreplace").decode()
        self._lines.append({**line, "source_id": name})
        if len(self._lines) == _ROW_GROUP:
            self._group()

    def close(self) -> None:
        with self._file:
            if self._lines:
                self._group()
            self._writer.close()
            self._file.flush()
            os.fsync(self._file.fileno())

    def _group(self) -> None:
        self._writer.write_table(self._table.from_pylist(self._lines, self._schema))
        self._lines.clear()
