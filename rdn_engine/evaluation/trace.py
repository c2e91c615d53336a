"""How long each push took and which results it gave: a trace file, from which any camera's delays can be computed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rdn_engine.errors import ConfigError, DatasetError, ResultError
from rdn_engine.evaluation.lines import json_lines
from rdn_engine.plain import from_plain


@dataclass(frozen=True)
class Push:
    """One call of a stream: what went in, how long it took, what came out."""

    source_id: str
    """Of the frame"""
    frame_index: int | None
    """Of the frame; None for the flush at the end"""
    pts: float | None
    """Seconds on the source's clock; None where it has none"""
    ms: float
    """Milliseconds that the call took, 0 or more"""
    results: tuple[int, ...]
    """`frame_index` of the results that it gave"""

    def to_dict(self) -> dict[str, Any]:
        """A line of a trace file (docs/jsonl.md)."""
        return asdict(self) | {"ms": round(self.ms, 3), "results": list(self.results)}


@dataclass(frozen=True)
class Times:
    """When a frame was there and when its result was, seconds on one clock."""

    captured: float
    ready: float


Moments = dict[tuple[str, int], Times]
"""By `source_id` and `frame_index`"""


def read_trace(path: Path) -> list[Push]:
    """The calls of one run.

    Args:
        path: of a file that `rdn-engine predict --trace` wrote.

    Raises:
        ResultError: for a file or a line that is not of the format.
    """
    pushes = []
    for where, data in json_lines(path):
        try:
            push = from_plain(Push, data, "line")
        except ConfigError as error:
            raise ResultError(f"{where}: {error} (docs/jsonl.md)") from error
        if push.ms < 0:
            raise ResultError(f"{where}: line.ms is {push.ms}; wanted 0 or more")
        pushes.append(push)
    return pushes


def replay(pushes: Sequence[Push], fps: float | None) -> Moments:
    """When each result would be there if the frames came from a camera, each pushed as soon as it and the machine can.

    The end of a video releases its last results sooner than a camera that goes on; those get the mean delay of the
    others, where there are any.

    Args:
        pushes: of one run, in order.
        fps: frames a second of the camera, frame i comes at i / fps; None takes the frames' own times.

    Returns:
        Of every frame that has a result.

    Raises:
        DatasetError: where the frames' own times are needed and missing, or go back.
    """
    captured: dict[int, tuple[str, float]] = {}
    moments: Moments = {}
    free = newest = float("-inf")
    ended: list[tuple[str, int]] = []
    for push in pushes:
        if push.frame_index is not None:
            time = push.pts if fps is None else push.frame_index / fps
            if time is None or time < newest:
                got = "no time" if time is None else f"the time {time:g} after {newest:g}"
                raise DatasetError(
                    f"frame {push.frame_index} of {push.source_id} has {got}; wanted times that grow, or --fps"
                )
            newest = time
            captured[push.frame_index] = push.source_id, time
        free = max(free, newest) + push.ms / 1e3
        for index in push.results:
            if index not in captured:
                raise DatasetError(f"the trace gives a result of frame {index}, which was not pushed before")
            source, time = captured[index]
            moments[source, index] = Times(time, free)
            if push.frame_index is None:
                ended.append((source, index))
    last = set(ended)
    lasting = [times.ready - times.captured for key, times in moments.items() if key not in last]
    for key in ended if lasting else ():
        captured_at = moments[key].captured
        moments[key] = Times(captured_at, captured_at + sum(lasting) / len(lasting))
    return moments
