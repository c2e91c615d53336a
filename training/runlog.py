"""The log of a run: one JSON line at a time in log.jsonl, and on the terminal."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

LOG = "log.jsonl"


class RunLog:
    def __init__(self, output: Path, iteration: int, total: int) -> None:
        """Of a run that goes on after `iteration`; lines of the steps that it will repeat are taken out."""
        self.path = output / LOG
        if self.path.exists():
            _keep_until(self.path, iteration)
        console = Console()
        self._progress: Progress | None = None
        if console.is_terminal:
            self._progress = Progress(
                TextColumn("{task.fields[phase]}"), BarColumn(), MofNCompleteColumn(),
                TextColumn("loss {task.fields[loss]}  {task.fields[eta_minutes]} min left"), console=console,
            )  # fmt: skip
            self._task = self._progress.add_task(
                "", total=total, completed=iteration, phase="", loss="-", eta_minutes="-"
            )
            self._progress.start()

    def write(self, line: dict[str, Any]) -> None:
        text = json.dumps(line)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(text + "\n")
        if self._progress is None:
            print(text, flush=True)
        else:
            shown = {k: line[k] for k in ("phase", "loss", "eta_minutes") if k in line}
            self._progress.update(self._task, completed=line["iteration"], **shown)

    def close(self) -> None:
        if self._progress is not None:
            self._progress.stop()


def _keep_until(path: Path, iteration: int) -> None:
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            if json.loads(line)["iteration"] <= iteration:
                kept.append(line + "\n")
        except (ValueError, KeyError, TypeError):
            continue  # cut off when the run was stopped
    part = path.with_name(path.name + ".part")
    part.write_text("".join(kept), encoding="utf-8")
    os.replace(part, path)
