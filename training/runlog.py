"""The log of a run: JSON lines in log.jsonl and on the terminal, and the same for TensorBoard where it is installed."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from rdn_engine.text import read_text

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

LOG, BOARD = "log.jsonl", "tensorboard"

Line = dict[str, Any]


class RunLog:
    def __init__(self, output: Path, iteration: int, total: int) -> None:
        """Of a run that goes on after `iteration`; lines of the steps that it will repeat are taken out."""
        self.path = output / LOG
        self.lines: list[Line] = _keep_until(self.path, iteration) if self.path.exists() else []
        """All that are in the file"""
        self._board = _open_board(output / BOARD, iteration)
        console = Console()
        self._progress: Progress | None = None
        if console.is_terminal:
            self._progress = Progress(
                TextColumn("{task.fields[phase]}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("loss {task.fields[loss]}  {task.fields[eta_minutes]} min left"),
                console=console,
            )
            self._task = self._progress.add_task(
                "", total=total, completed=iteration, phase="", loss="-", eta_minutes="-"
            )
            self._progress.start()

    def write(self, line: Line) -> None:
        """Adds a line to log.jsonl, to the terminal and to TensorBoard.

        Args:
            line: `iteration`, `phase` and numbers; each number becomes a curve in TensorBoard.
        """
        self.lines.append(line)
        text = json.dumps(line)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(text + "\n")
        if self._board is not None:
            for name, value in line.items():
                if name not in ("iteration", "phase"):
                    self._board.add_scalar(name, value, line["iteration"])
        if self._progress is None:
            print(text, flush=True)
        else:
            shown = {k: line[k] for k in ("phase", "loss", "eta_minutes") if k in line}
            self._progress.update(self._task, completed=line["iteration"], **shown)

    @property
    def takes_pictures(self) -> bool:
        return self._board is not None

    def picture(self, image: NDArray[np.uint8], iteration: int) -> None:
        """Shows a picture in TensorBoard, where it is installed.

        Args:
            image: uint8 [H, W, 3] RGB.
            iteration: of the run.
        """
        if self._board is not None:
            self._board.add_image("annotated, found", image, iteration, dataformats="HWC")

    def close(self) -> None:
        if self._progress is not None:
            self._progress.stop()
        if self._board is not None:
            self._board.close()


def _open_board(folder: Path, iteration: int) -> SummaryWriter | None:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        print("tensorboard is not installed (pip install tensorboard): log.jsonl is the only log", file=sys.stderr)
        return None
    return SummaryWriter(str(folder), purge_step=iteration + 1)


def _keep_until(path: Path, iteration: int) -> list[Line]:
    kept = []
    for text in read_text(path).splitlines():
        try:
            line = json.loads(text)
            if line["iteration"] <= iteration:
                kept.append(line)
        except (ValueError, KeyError, TypeError):
            continue  # cut off when the run was stopped
    part = path.with_name(path.name + ".part")
    part.write_text("".join(json.dumps(line) + "\n" for line in kept), encoding="utf-8")
    os.replace(part, path)
    return kept
