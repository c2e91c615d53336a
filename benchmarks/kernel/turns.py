"""Sides of a comparison, each a process of its own on the same core, which take turns, frame by frame."""

from __future__ import annotations

import multiprocessing
import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from multiprocessing.connection import Connection
from typing import Any, Protocol

from benchmarks.measure import environment_of, peak_megabytes

ENVIRONMENT = environment_of(threads=1)
"""Of all sides' processes"""
WARM_UP = 2
"""Steady frames that are not counted"""


class Side(Protocol):
    """What is compared."""

    parts: dict[str, float]
    """Seconds of the last frame, by part; may stay empty"""

    def push(self, frame: Any) -> Any:
        """What it makes of a frame; None until its window is full."""
        ...


def take_turns(
    sides: Mapping[str, Callable[[], Side]],
    frame: Callable[[int], Any],
    *,
    first: int,
    rounds: int,
    check: Callable[[str, str, Any], Any],
) -> dict[str, dict[str, Any]]:
    """Time every side on the same frames.

    Args:
        sides: what makes each in its process; picklable.
        frame: makes a frame by its number, from 0; picklable. Its time does not count.
        first: number of the first steady frame.
        rounds: steady frames that are timed.
        check: called with a side's name, `first` or `last`, and what it made of that steady frame. Gives its error, and
            exits where that is too large: before the side is timed, and before it is reported.

    Returns:
        By side: ms and cpu_ms of each round with their spread, relative_error of the first and the last frame, the
        median of each of its parts, and its memory before the first frame and at most.
    """
    os.environ.update(ENVIRONMENT)  # For the processes to come: allocator and BLAS read it as they start.
    context = multiprocessing.get_context("spawn")
    found: dict[str, dict[str, Any]] = {name: {"relative_error": {}, "ms": [], "cpu_ms": []} for name in sides}
    parts: dict[str, list[dict[str, float]]] = {name: [] for name in sides}
    pipes: dict[str, Connection] = {}
    last = first + WARM_UP + rounds
    with ExitStack() as stack:
        for name, make in sides.items():
            ours, theirs = context.Pipe()
            pipes[name] = stack.enter_context(ours)
            context.Process(target=_serve, args=(make, frame, core(), theirs), daemon=True).start()
            theirs.close()
            for t in range(first + 1):
                result, _, _ = _ask(ours, t)
            found[name]["relative_error"]["first"] = check(name, "first", result)
        results: dict[str, Any] = {}
        for t in range(first + 1, last + 1):
            for name, side in found.items():
                results[name], seconds, took = _ask(pipes[name], t)
                if t > first + WARM_UP:
                    for clock, passed in seconds.items():
                        side[clock].append(round(1000 * passed, 3))
                    parts[name].append(took)
        for name, side in found.items():
            side["relative_error"]["last"] = check(name, "last", results[name])
            side |= _ask(pipes[name], None) | spread(side["ms"], "ms")
            medians = {part: statistics.median(took[part] for took in parts[name]) for part in parts[name][0]}
            side["parts_ms"] = {part: round(1000 * seconds, 3) for part, seconds in medians.items()}
    return found


def core() -> int:
    """The one that all sides run on."""
    return max(os.sched_getaffinity(0))


def spread(values: Sequence[float], what: str) -> dict[str, float]:
    """Median, least and most.

    Args:
        values: one or more.
        what: ends each name.
    """
    numbers = {"median": statistics.median(values), "min": min(values), "max": max(values)}
    return {f"{name}_{what}": round(value, 3) for name, value in numbers.items()}


def _ask(pipe: Connection, t: int | None) -> Any:
    pipe.send(t)
    return pipe.recv()


def _serve(make: Callable[[], Side], frame: Callable[[int], Any], on: int, pipe: Connection) -> None:
    """Answers each number with what became of the frame, seconds, and those of parts; None with its memory."""
    os.sched_setaffinity(0, {on})
    side = make()
    loaded = peak_megabytes()
    while (t := pipe.recv()) is not None:
        given = frame(t)
        begin, cpu_begin = time.perf_counter(), time.process_time()
        result = side.push(given)
        seconds = {"ms": time.perf_counter() - begin, "cpu_ms": time.process_time() - cpu_begin}
        pipe.send((result, seconds, side.parts))
    pipe.send({"loaded_mb": loaded, "peak_mb": peak_megabytes()})
