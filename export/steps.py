"""What a long export is doing, said on a terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

Report = Callable[[str], None]
"""Is called with the name of each step before it."""


@contextmanager
def shown(console: Console) -> Iterator[Report]:
    """Show the step that runs and how long all have taken; nothing is left of it at the end.

    Args:
        console: where; one that is no terminal shows nothing.

    Yields:
        What is to be called with the name of each step.
    """
    with Progress(SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn(), console=console,
                  transient=True) as progress:  # fmt: skip
        task = progress.add_task("", total=None)
        yield lambda step: progress.update(task, description=step)
