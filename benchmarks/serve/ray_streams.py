"""Streams on Ray Serve: a replica that dies, overload, and what a call costs."""

from __future__ import annotations

import itertools
import os
import signal
import statistics
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from benchmarks.frames import Image, make_frame
from benchmarks.measure import summary
from benchmarks.serve.checks import Found
from rdn_engine.detector import Detector
from rdn_engine.errors import Overloaded
from rdn_engine.frame import Frame
from rdn_engine.results import Detections
from rdn_engine.serve.client import RemoteStream
from rdn_engine.serve.ray.client import RayTransport
from rdn_engine.serve.ray.deployment import application
from rdn_engine.serve.sessions import Reply, Request, process_of

PICTURES = 32
IN_A_CALL = (1, 4, 8)
"""Frames that a client sends at once"""
PATIENCE = 600.0


def serve_faults(found: Found, engines: Path, streams: int, frames: int, rounds: int) -> None:
    """Everything that is tried on Ray Serve, on the cluster that this process is connected to."""
    from ray import serve

    detector = Detector.from_pretrained(engines, threads=1)
    quiet = {"log_level": "ERROR", "enable_access_log": False}
    serve.start(proxy_location="Disabled", logging_config=quiet)
    try:
        serve.run(application(engines, replicas=2, room=streams), name="faults", route_prefix=None)
        replica_dies(found, detector, "faults", streams, frames)
        serve.delete("faults")
        serve.run(application(engines, replicas=2, room=4), name="overload", route_prefix=None)
        overload(found, detector, "overload", 4 * streams, 4)
        overhead(found, detector, "overload", rounds, 100)
    finally:
        serve.shutdown()


class Pictures:
    """Frames of any number of streams, the same for whoever asks."""

    def __init__(self, detector: Detector) -> None:
        size = detector.config.input.shorter_side, detector.config.input.longer_side
        self._pictures = [make_frame(t, size) for t in range(PICTURES)]

    def frame(self, stream: int, t: int) -> Image:
        return self._pictures[(t + 5 * stream) % PICTURES]


class Watching(RayTransport):
    """Notes the sessions of replies on their way to the client, which does not say what it should notice."""

    def __init__(self, app: str, name: str) -> None:
        super().__init__(app, name)
        self.sessions: list[int] = []
        """Of each frame"""

    def send(self, request: Request, seconds: float) -> Reply:
        reply = super().send(request, seconds)
        if reply.session is not None:
            self.sessions += [reply.session] * reply.taken
        return reply


class Watched:
    """A stream, the window of each of its frames, and its results."""

    def __init__(self, app: str, number: int) -> None:
        name = f"cam-{number}"
        self.number = number
        self.transport = Watching(app, name)
        self.client = RemoteStream(self.transport, name, timeout=60.0)
        self.epochs: list[int] = []
        """Of each frame, as the client says"""
        self.results: list[Detections] = []

    def push(self, pictures: Pictures, count: int = 1) -> None:
        """The next frames in one call."""
        span = range(len(self.epochs), len(self.epochs) + count)
        given = [Frame(pictures.frame(self.number, t), t, None, self.client.name) for t in span]
        self.results += self.client.push_many(given)
        self.epochs += [self.client.epoch] * count

    @property
    def replica(self) -> int:
        return process_of(self.transport.sessions[-1])


def replica_dies(found: Found, detector: Detector, app: str, streams: int, frames: int) -> None:
    """All streams at once; one of two replicas is killed, and replaced by Ray."""
    pictures = Pictures(detector)
    all_ = [Watched(app, number) for number in range(streams)]

    def play(one: Watched) -> None:
        for _ in range(frames // 3):
            one.push(pictures)

    with ThreadPoolExecutor(streams) as pool:
        list(pool.map(play, all_))
        homes = {one.number: one.replica for one in all_}
        victim = Counter(homes.values()).most_common(1)[0][0]
        os.kill(victim, signal.SIGKILL)
        list(pool.map(play, all_))
        _until_replaced(all_, pictures, set(homes.values()))
        list(pool.map(play, all_))
        for one in all_:
            one.results += one.client.flush()
    moved = [one for one in all_ if len(set(one.transport.sessions)) > 1]
    healthy = [one for one in moved if homes[one.number] != victim]
    told = [one for one in all_ if _steps(one.transport.sessions) == _steps(one.epochs)]
    dead = sum(home == victim for home in homes.values())
    found.row(
        f"{streams} streams on 2 replicas, one killed and replaced",
        "every window that is another is another epoch of its client, and no other",
        f"{len(moved)} of {streams} moved ({dead} of the dead replica, {len(healthy)} of the healthy one), "
        f"{len(told)} of {streams} say exactly when",
        len(told) == streams and len(moved) >= dead,
    )
    right = sum(_is_unmixed(one, detector, pictures) for one in all_)
    lost = sum(one.client.lost for one in all_)
    pushed, results = sum(len(one.epochs) for one in all_), sum(len(one.results) for one in all_)
    found.row(
        "their results, against a local stream of each epoch's frames", "equal to the bit: no mixed window",
        f"{right} of {streams} streams", right == streams,
    )  # fmt: skip
    found.row(
        "frames of those streams", "results and lost ones that clients counted",
        f"{pushed} pushed = {results} results + {lost} lost", pushed == results + lost,
    )  # fmt: skip


def _until_replaced(all_: Sequence[Watched], pictures: Pictures, known: set[int]) -> None:
    """Push until some stream is on a replica that was not there before; the router moves others of the healthy one.

    known: processes of the replicas before one was killed; its replacement may have come by now.
    """
    end = time.monotonic() + PATIENCE
    while all(one.replica in known for one in all_):
        if time.monotonic() > end:
            raise SystemExit("Ray Serve did not replace its replica")
        for one in all_:
            one.push(pictures)


def _steps(values: Sequence[object]) -> list[bool]:
    """At which frames a value is another than at the frame before."""
    return [a != b for a, b in itertools.pairwise(values)]


def _is_unmixed(one: Watched, detector: Detector, pictures: Pictures) -> bool:
    for epoch in sorted(set(one.epochs)):
        frames = [t for t, its in enumerate(one.epochs) if its == epoch]
        with detector.open_stream() as stream:
            wanted = [
                r for t in frames for r in stream.push(Frame(pictures.frame(one.number, t), t, None, one.client.name))
            ]
            wanted += stream.flush()
        came = [result.to_dict() | {"epoch": 0} for result in one.results if result.epoch == epoch]
        if came != [result.to_dict() for result in wanted[: len(came)]]:
            return False
    return True


def overload(found: Found, detector: Detector, app: str, streams: int, room: int) -> None:
    """More streams at once than replicas have room for: one frame each, again and again."""
    pictures = Pictures(detector)
    all_ = [Watched(app, 100 + number) for number in range(streams)]
    taken: list[float] = []
    refused: list[float] = []

    def play(one: Watched) -> None:
        for _ in range(20):
            began = time.perf_counter()
            try:
                one.push(pictures)
                taken.append(time.perf_counter() - began)
            except Overloaded:
                refused.append(time.perf_counter() - began)

    with ThreadPoolExecutor(streams) as pool:
        list(pool.map(play, all_))
        list(pool.map(lambda one: one.client.flush(), all_))
    lost = sum(one.client.windows_lost for one in all_)
    if not refused or not taken:
        raise SystemExit(f"{len(taken)} frames were taken and {len(refused)} refused; wanted some of both")
    found.figures["overload"] = {
        "streams": streams, "room": room, "taken": len(taken), "refused": len(refused),
        "taken_seconds": summary(taken), "refused_seconds": summary(refused),
    }  # fmt: skip
    waits = [1e3 * statistics.median(values) for values in (taken, refused)]
    found.row(
        f"{streams} streams at once, replicas with room for {room}",
        "what is refused is refused sooner than what is taken is answered, and no window is lost",
        f"{len(taken)} taken in {waits[0]:.0f} ms, {len(refused)} refused in {waits[1]:.0f} ms (medians), "
        f"{lost} windows lost",
        waits[1] < waits[0] and not lost,
    )


def overhead(found: Found, detector: Detector, app: str, rounds: int, calls: int) -> None:
    """A frame here and on a replica, one and several in a call, in turns; and a call of Ray Serve that does nothing."""
    pictures = Pictures(detector)
    remote = Watched(app, 0)
    remote.push(pictures, 20)
    times: dict[str, list[float]] = {name: [] for name in ("local", "empty call", *map(str, IN_A_CALL))}
    nothing = Request("nobody")
    for _ in range(rounds):
        times["local"].append(statistics.median(_local_times(detector, pictures, calls)))
        times["empty call"].append(statistics.median(_seconds(lambda: remote.transport.send(nothing, PATIENCE), calls)))
        for count in IN_A_CALL:
            remote.push(pictures, 20)  # a full window
            each = _seconds(partial(remote.push, pictures, count), max(calls // count, 20))
            times[str(count)].append(statistics.median(each) / count)
    remote.client.flush()
    ratios = {
        count: statistics.median(b / a for a, b in zip(times["local"], times[str(count)], strict=True))
        for count in IN_A_CALL
    }
    found.figures["overhead"] = {
        "rounds": rounds, "calls": calls, "seconds": {name: summary(values) for name, values in times.items()},
        "ratios": {str(count): ratio for count, ratio in ratios.items()},
    }  # fmt: skip
    most = IN_A_CALL[-1]
    found.row(
        f"a frame through Ray Serve over a frame of a local stream, {most} frames a call", "at most 1.10",
        ", ".join(f"{ratio:.3f} with {count}" for count, ratio in ratios.items()), ratios[most] <= 1.1,
    )  # fmt: skip


def _seconds(work: Callable[[], object], times: int) -> list[float]:
    each = []
    for _ in range(times):
        began = time.perf_counter()
        work()
        each.append(time.perf_counter() - began)
    return each


def _local_times(detector: Detector, pictures: Pictures, frames: int) -> list[float]:
    """Seconds of each push once the window is full."""
    times = []
    with detector.open_stream() as stream:
        for t in range(20 + frames):
            began = time.perf_counter()
            stream.push(pictures.frame(0, t))
            times.append(time.perf_counter() - began)
    return times[20:]
