"""What is shown on the terminal while something runs."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.progress import Progress


def progress_bar(show: bool) -> Progress:
    """Frames done, frames a second, memory and time left, on stderr.

    Args:
        show: False shows nothing.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    class Speed(TextColumn):
        def render(self, task: Any) -> Any:
            return f"{task.speed or 0:.1f} fps"

    return Progress(
        BarColumn(),
        MofNCompleteColumn(),
        Speed(""),
        TextColumn("{task.fields[memory]}"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        disable=not show,
    )


def videos_bar(show: bool) -> Progress:
    """Videos done, their frames and the time left, on stderr.

    Args:
        show: False shows nothing.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    return Progress(
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("videos, {task.fields[frames]} frames"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        disable=not show,
    )


@contextlib.contextmanager
def spinner() -> Iterator[Callable[[str], None]]:
    """A line on the terminal that says what is done now."""
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn()
    console = Console(stderr=True)
    # Where nobody looks, all that it would leave is an empty line.
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("", total=None)
        yield lambda step: progress.update(task, description=step)
