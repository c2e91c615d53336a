"""What a long export is doing, said on a terminal or in a log."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

Report = Callable[[str], None]
"""Is called with the name of each step before it."""


@contextmanager
def shown(console: Console) -> Iterator[Report]:
    """Show the step that runs and how long all have taken.

    Args:
        console: where. On a terminal it is one line that moves, and nothing is left of it at the end; anything else,
            as a log file, gets a line for each step.

    Yields:
        What is to be called with the name of each step.
    """
    if not console.is_terminal:
        begin = time.monotonic()

        def tell(step: str) -> None:
            seconds = int(time.monotonic() - begin)
            console.print(f"{seconds // 60}:{seconds % 60:02d} {step}", markup=False, highlight=False, soft_wrap=True)

        yield tell
        return
    with Progress(SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn(), console=console,
                  transient=True) as progress:  # fmt: skip
        task = progress.add_task("", total=None)
        yield lambda step: progress.update(task, description=step)
