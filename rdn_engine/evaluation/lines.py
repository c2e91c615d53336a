"""JSON lines of results (docs/jsonl.md), read back to be scored."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from rdn_engine.errors import ResultError
from rdn_engine.results import Detections
from rdn_engine.text import read_text


@dataclass(frozen=True)
class Line:
    """One line and where it stands."""

    where: str
    """file:line, for messages"""
    result: Detections


def read_lines(paths: Sequence[Path]) -> list[Line]:
    """Every result of some files, with the classes of all of them.

    Args:
        paths: of files as `rdn-engine predict --output` writes them.

    Returns:
        In the order of the files. All results have the same `class_names`: a class that no line names is called by its
        number, since nobody knows its name.

    Raises:
        ResultError: for a file that cannot be read or has no line, a line that is not of the format, or two names of
            one class; it says which line.
    """
    lines = [Line(where, _result(data, where)) for path in paths for where, data in json_lines(path)]
    names: dict[int, str] = {}
    for line in lines:
        for class_id in np.unique(line.result.class_id).tolist():
            name = line.result.class_names[class_id]
            if names.setdefault(class_id, name) != name:
                raise ResultError(
                    f"{line.where}: class {class_id} is {name!r}, and {names[class_id]!r} in a line before it; wanted "
                    "the results of one model"
                )
    every = tuple(names.get(c, str(c)) for c in range(max(names, default=-1) + 1))
    return [replace(line, result=replace(line.result, class_names=every)) for line in lines]


def json_lines(path: Path) -> Iterator[tuple[str, Any]]:
    """The values of a file of JSON lines; empty lines are passed over.

    Args:
        path: of the file.

    Returns:
        file:line and what stands there, parsed.

    Raises:
        ResultError: for a file that cannot be read or is empty, or a line that is not JSON.
    """
    try:
        text = read_text(path)
    except OSError as error:
        raise ResultError(f"{path} cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise ResultError(f"{path} is no text in UTF-8: {error}") from error
    rows = [(f"{path}:{number}", row) for number, row in enumerate(text.split("\n"), 1) if row.strip()]
    if not rows:
        raise ResultError(f"{path} has no line; wanted one a frame (docs/jsonl.md)")
    for where, row in rows:
        try:
            yield where, json.loads(row)
        except (ValueError, RecursionError) as error:
            raise ResultError(f"{where} is not JSON: {error}") from error


def _result(data: Any, where: str) -> Detections:
    try:
        return Detections.from_dict(data)
    except ResultError as error:
        raise ResultError(f"{where}: {error}") from error
