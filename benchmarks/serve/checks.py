"""What a program that tries a server out has found: checks that held or did not, and figures."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Row:
    """One check."""

    what: str
    wanted: str
    got: str
    held: bool


@dataclass
class Found:
    """What is written into the file."""

    rows: list[Row] = field(default_factory=list)
    figures: dict[str, Any] = field(default_factory=dict)

    def row(self, what: str, wanted: str, got: str, held: bool) -> None:
        self.rows.append(Row(what, wanted, got, held))
        print(f"{'held' if held else 'FAILED':6}  {what}: {got}; wanted {wanted}", flush=True)
