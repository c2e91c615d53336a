"""What a viewer of the live results gets: streaming AP (Li, Wang and Ramanan 2020) and delays in milliseconds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from rdn_engine.errors import DatasetError
from rdn_engine.evaluation import delay
from rdn_engine.evaluation.annotated import Annotated
from rdn_engine.evaluation.average_precision import match_class
from rdn_engine.evaluation.boxes import Detected, Float, Truth
from rdn_engine.evaluation.join import Joined, Placed
from rdn_engine.evaluation.score import score
from rdn_engine.evaluation.trace import Moments, Times
from rdn_engine.results import Detections

Timed = list[tuple[Placed, Times]]

STREAMING = (
    "At the moment a frame is there, the newest result that is ready is scored against it (Li et al. 2020); compute, "
    "look-ahead, linking delay and waiting for the machine included. AP as in vid, coco and speed; delay_ms from a "
    "frame to its result; average_delay_ms as delay, from an object's first frame to the result that shows it"
)


def streaming(joined: Joined, annotated: Annotated, moments: Moments, push_ms: Sequence[float]) -> dict[str, Any]:
    """The figures of live results.

    Args:
        joined: every result, of frames that are annotated and others.
        annotated: what they are scored against.
        moments: when each frame and its result were there.
        push_ms: milliseconds of each push of a frame.

    Returns:
        Figures as JSON holds them; milliseconds, AP in percent.

    Raises:
        DatasetError: for a result whose times are not known, or times that tell no distance between frames.
    """
    timed = [(placed, _times(placed, moments)) for placed in joined.placed]
    names = tuple(annotated.dataset.class_names)
    live = score(joined.found | _newest(timed), annotated, names, 0)
    lag = np.array([times.ready - times.captured for _, times in timed]) * 1e3
    frame_ms, work = _frame_ms(timed), float(np.mean(push_ms))
    return {
        "protocol": STREAMING,
        "AP50": live["vid"]["AP50"],
        "AP": live["coco"]["AP"],
        "speed": {name: part for name, part in live["speed"].items() if name != "protocol"},
        "frame_ms": frame_ms,
        "push_ms": work,
        "keeps_up": work <= frame_ms,
        "delay_ms": {
            "mean": float(lag.mean()),
            "median": float(np.median(lag)),
            "p95": float(np.percentile(lag, 95)),
            "max": float(lag.max()),
        },
        "average_delay_ms": _average_delay(joined, annotated, timed, frame_ms),
    }


def _times(placed: Placed, moments: Moments) -> Times:
    times = moments.get((placed.source, placed.result.frame_index))
    if times is None:
        raise DatasetError(
            f"no trace has the result of frame {placed.result.frame_index} of {placed.source}; wanted the traces of "
            "the same runs"
        )
    return times


def _newest(timed: Timed) -> dict[int, Detections]:
    """`Frame.id` -> the newest result that is ready when the frame is there; an empty one where there is none yet."""
    found: dict[int, Detections] = {}
    for own in _by_video(timed):
        # Of two that are ready at once the later frame's is the newer.
        ready = np.maximum.accumulate([times.ready for _, times in own])
        for placed, times in own:
            if placed.frame is not None:
                newest = int(np.searchsorted(ready, times.captured, side="right")) - 1
                found[placed.frame.id] = own[newest][0].result if newest >= 0 else _emptied(placed.result)
    return found


def _by_video(timed: Timed) -> list[Timed]:
    """In the order in which the frames came"""
    videos: dict[int, Timed] = {}
    for one in timed:
        videos.setdefault(one[0].video, []).append(one)
    return [sorted(own, key=lambda one: one[1].captured) for own in videos.values()]


def _emptied(result: Detections) -> Detections:
    return replace(
        result,
        xyxy=result.xyxy[:0],
        confidence=result.confidence[:0],
        class_id=result.class_id[:0],
        tracker_id=None if result.tracker_id is None else result.tracker_id[:0],
    )


def _frame_ms(timed: Timed) -> float:
    """Mean milliseconds from frame to frame, over all videos"""
    seconds = frames = 0.0
    for own in _by_video(timed):
        seconds += own[-1][1].captured - own[0][1].captured
        frames += own[-1][0].result.frame_index - own[0][0].result.frame_index
    if seconds <= 0 or frames <= 0:
        raise DatasetError("the traces tell no time from one frame to the next; wanted videos of two frames, or --fps")
    return 1e3 * seconds / frames


def _average_delay(joined: Joined, annotated: Annotated, timed: Timed, frame_ms: float) -> float | None:
    """The figure of `delay` with the time at which a result is ready in place of its frame; None without instances."""
    truth = Truth.of(annotated.dataset)
    if (truth.instance < 0).all():
        return None
    detected = Detected.of(joined.found, annotated.dataset, tuple(annotated.dataset.class_names))
    matches = [match_class(truth, detected, c) for c in range(len(annotated.dataset.categories))]
    waits = delay.delays(truth, detected, matches, annotated.starts())
    known = {(p.frame.video_id, p.frame.frame_id): times for p, times in timed if p.frame is not None}
    lag = float(np.mean([times.ready - times.captured for _, times in timed])) * 1e3
    # Of those never found: the frames they waited, and what a result takes on the average.
    ms: Float = waits.frames * frame_ms + lag
    for rate, instance in np.argwhere(waits.found):
        video, first = int(waits.video[instance]), int(waits.first[instance])
        start, end = known[video, first], known.get((video, first + int(waits.frames[rate, instance])))
        if end is not None:
            ms[rate, instance] = 1e3 * (end.ready - start.captured)
    frames = delay.average(ms / frame_ms)
    return None if frames is None else frames * frame_ms
