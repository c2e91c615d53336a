"""Ages of results at 80% of what a core can do, and at twice as much as it can do.

    python benchmarks/serve/load.py --output benchmarks/results/load_demo.json

One core, one worker, cameras that deliver at a fixed rate into queues of one frame that drop the oldest. A frame time
is what all streams together take for a frame each: the closed loop of the same streams, measured before and after.
Beside the scheduler, in turns, the same cameras before a loop without threads: how late that is says how late this
machine makes any program. Every stream's account must add up, or nothing is written.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.frames import make_frame
from benchmarks.measure import environment_of, percentile
from rdn_engine.capture import Capture
from rdn_engine.detector import Detector
from rdn_engine.frame import Frame
from rdn_engine.media.frame_queue import FrameQueue, Policy
from rdn_engine.results import Detections
from rdn_engine.serve.scheduler import Scheduler
from training.arguments import given_path

ROOT = Path(__file__).resolve().parents[2]
PICTURES = 16
"""Different frames; they come again and again"""
ROOM = 1
"""Frames that may wait: the age of a result grows with each"""
LOADS = (0.8, 2.0)


class PacedSource:
    """A camera with a fixed rate, or, with none, one that is never waited for."""

    def __init__(
        self, pictures: Sequence[Any], first: float, interval: float | None, count: int, wake: Callable[[], None]
    ) -> None:
        """first: moment of the first frame, `time.monotonic`; interval: seconds; count: frames."""
        self._pictures, self._first, self._interval, self._count, self._wake = pictures, first, interval, count, wake
        policy: Policy = "wait" if interval is None else "drop_oldest"
        self._queue = FrameQueue(ROOM, policy)
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.ended, self.error = False, None
        self.captured = self.damaged = self.failures = self.lost_packets = 0
        self.sessions = 1

    @property
    def waiting(self) -> int:
        return len(self._queue)

    @property
    def dropped(self) -> int:
        return self._queue.dropped

    def start(self) -> None:
        self._thread.start()

    def get(self, timeout: float | None) -> Frame | None:
        return self._queue.get(timeout)

    def close(self, timeout: float = 2.0) -> bool:
        self._closing.set()
        self._queue.close(drop=True)
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def _run(self) -> None:
        for index in range(self._count):
            if self._interval is not None:
                self._closing.wait(max(0.0, self._first + index * self._interval - time.monotonic()))
            if self._closing.is_set():
                break
            capture = Capture(time.time(), 0, False, 0, time.monotonic())
            self.captured += 1
            self._queue.put(Frame(self._pictures[index % PICTURES], index, index / 10, "camera", capture=capture))
            self._wake()
        self.ended = True
        self._queue.close(drop=False)
        self._wake()


class Ages:
    """A sink that keeps the ages of the results after the first ones."""

    def __init__(self, skip: int) -> None:
        self._skip = skip
        self.seconds: list[float] = []

    def __call__(self, result: Detections) -> None:
        assert result.capture is not None
        assert result.capture.clock is not None
        if self._skip:
            self._skip -= 1
        else:
            self.seconds.append(time.monotonic() - result.capture.clock)


def play(
    detector: Detector, look_ahead: int, streams: int, interval: float | None, count: int
) -> tuple[list[float], dict[str, int], float]:
    """Ages of the results once the windows are full; frames in, out and dropped; seconds from start to end."""
    dials = replace(detector.config.dials, look_ahead=look_ahead)
    size = detector.config.input.shorter_side, detector.config.input.longer_side
    pictures = [make_frame(t, size) for t in range(PICTURES)]
    ages = [Ages(2 * dials.window) for _ in range(streams)]
    scheduler = Scheduler(detector, workers=1)
    begin = time.monotonic() + 0.05

    def source(number: int) -> Callable[[Callable[[], None]], PacedSource]:
        # Cameras are not in step: their phases are spread over the interval.
        first = begin + (interval or 0.0) * number / streams
        return lambda wake: PacedSource(pictures, first, interval, count, wake)

    served = [scheduler.add(str(i), source(i), ages[i], dials=dials) for i in range(streams)]
    finals = []
    for one in served:
        one.wait()
        finals.append(one.snapshot())
    seconds = time.monotonic() - begin
    scheduler.close(drain=True, deadline_s=10)
    for final in finals:
        if final.frames_in != final.frames_out + sum(final.dropped.values()) or final.frames_in != count:
            raise SystemExit(f"frames are missing: {final}")
    totals = {
        "in": sum(f.frames_in for f in finals),
        "out": sum(f.frames_out for f in finals),
        "dropped": sum(f.dropped["source"] for f in finals),
    }
    return [age for one in ages for age in one.seconds], totals, seconds


def loop(detector: Detector, look_ahead: int, streams: int, interval: float, count: int) -> list[float]:
    """The same cameras before the simplest program: one thread, which sleeps until a frame comes and pushes it.

    Args:
        interval: seconds from a camera's frame to its next.
        count: frames of each stream.

    Returns:
        Ages of the results once the windows are full, seconds.
    """
    dials = replace(detector.config.dials, look_ahead=look_ahead)
    size = detector.config.input.shorter_side, detector.config.input.longer_side
    pictures = [make_frame(t, size) for t in range(PICTURES)]
    opened = [detector.open_stream(dials=dials) for _ in range(streams)]
    ages = [Ages(2 * dials.window) for _ in range(streams)]
    begin = time.monotonic() + 0.05
    first = [begin + interval * number / streams for number in range(streams)]
    due = [0] * streams
    while min(due) < count:
        now = time.monotonic()
        for i in range(streams):  # a newer frame takes the place of one that waits
            due[i] = max(due[i], min(int((now - first[i]) / interval), count - 1))
        arrival, i = min((first[i] + due[i] * interval, i) for i in range(streams) if due[i] < count)
        if arrival > now:
            time.sleep(arrival - now)
            arrival = time.monotonic()  # as a reader's thread stamps a frame once it runs
        index, due[i] = due[i], due[i] + 1
        capture = Capture(time.time(), 0, False, 0, arrival)
        for result in opened[i].push(Frame(pictures[index % PICTURES], index, index / 10, "camera", capture=capture)):
            ages[i](result)
    return [age for one in ages for age in one.seconds]


def described(ages: Sequence[float], frame_time: float) -> dict[str, Any]:
    """What is said of ages; both in seconds."""
    p50, p99, most = percentile(ages, 50), percentile(ages, 99), max(ages)
    return {
        "age_ms": {"p50": round(1e3 * p50, 3), "p99": round(1e3 * p99, 3), "max": round(1e3 * most, 3)},
        "p99_over_p50": round(p99 / p50, 3), "p99_frame_times": round(p99 / frame_time, 3),
    }  # fmt: skip


def measure(engines: Path, core: int, look_aheads: Sequence[int], streams: Sequence[int], count: int) -> list[Any]:
    """A row for each number of streams, L and load."""
    os.sched_setaffinity(0, {core})
    detector = Detector.from_pretrained(engines, threads=1)
    rows = []
    play(detector, 0, 1, None, count)  # not measured: caches and clocks settle
    for number in streams:
        for look_ahead in look_aheads:
            frames = max(count // number, 4 * detector.config.dials.window)
            before = play(detector, look_ahead, number, None, frames)[2] / frames
            loaded = []
            for load in LOADS:
                ages, totals, _ = play(detector, look_ahead, number, before / load, frames)
                loaded.append((load, ages, totals, loop(detector, look_ahead, number, before / load, frames)))
            after = play(detector, look_ahead, number, None, frames)[2] / frames
            frame_time = (before + after) / 2
            for load, ages, totals, bare in loaded:
                rows.append({
                    "streams": number, "look_ahead": look_ahead, "load": round(load * frame_time / before, 3),
                    "frame_ms": round(1e3 * frame_time, 3), "results": len(ages), **totals,
                    **described(ages, frame_time), "loop": {"results": len(bare), **described(bare, frame_time)},
                })  # fmt: skip
                print(json.dumps(rows[-1]), flush=True)
    return rows


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--engines", type=given_path, default=ROOT / "models" / "rdn_tiny" / "engines")
    parser.add_argument("--streams", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--look-ahead", type=int, nargs="+", default=[0, 2])
    parser.add_argument("--frames", type=int, default=2000, help="of all streams, for each row")
    parser.add_argument("--core", type=int, default=min(os.sched_getaffinity(0)))
    parser.add_argument("--output", type=given_path)
    arguments = parser.parse_args(argv)
    os.environ.update(environment_of(1))
    rows = measure(arguments.engines, arguments.core, arguments.look_ahead, arguments.streams, arguments.frames)
    if arguments.output:
        from training.provenance import environment

        result = {"engines": arguments.engines.name, "room": ROOM, "rows": rows, **environment()}
        arguments.output.write_text(json.dumps(result, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
