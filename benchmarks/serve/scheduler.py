"""Eight streams on one detector against eight processes with one stream each, on the same cores.

    python benchmarks/serve/scheduler.py --output benchmarks/results/scheduler_8.json

Nothing is timed before every stream of the scheduler gives what its process gives, to the bit. The sides run in turns,
round by round; a third one is a bare loop with one stream on each core, all cores at once, which is the most that the
cores can give. Then one stream: what the scheduler adds to a frame of a bare loop, on one core, in turns.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Literal

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np

from benchmarks.frames import make_frame
from benchmarks.measure import environment_of, summary
from rdn_engine.detector import Detector
from rdn_engine.frame import Frame
from rdn_engine.results import Detections
from rdn_engine.serve.scheduler import Scheduler
from training.arguments import given_path

ROOT = Path(__file__).resolve().parents[2]
PICTURES = 16
"""Different frames; they come again and again, for each stream from another one on."""
WAIT = 600.0

Kind = Literal["scheduler", "process", "overhead"]


class Pictures:
    """Frames of one stream."""

    def __init__(self, pictures: Sequence[Any], stream: int) -> None:
        self._pictures, self._stream, self._next = pictures, stream, 0

    def take(self, count: int) -> Iterator[Frame]:
        for _ in range(count):
            t = self._next
            yield Frame(self._pictures[(t + 3 * self._stream) % len(self._pictures)], t, None, str(self._stream))
            self._next += 1


def pictures_of(detector: Detector) -> list[Any]:
    size = detector.config.input.shorter_side, detector.config.input.longer_side
    return [make_frame(t, size) for t in range(PICTURES)]


class Queued:
    """A source whose frames are there already, so that nothing else is measured."""

    def __init__(self, on_frame: Callable[[], None]) -> None:
        self._on_frame, self._frames = on_frame, deque[Frame]()
        self.ended, self.error = False, None
        self.captured = self.dropped = self.damaged = self.lost_packets = self.failures = 0
        self.sessions = 1

    @property
    def waiting(self) -> int:
        return len(self._frames)

    def start(self) -> None:
        pass

    def put(self, frames: Iterator[Frame]) -> None:
        before = len(self._frames)
        self._frames.extend(frames)
        self.captured += len(self._frames) - before

    def begin(self) -> None:
        self._on_frame()

    def get(self, timeout: float | None) -> Frame | None:
        try:
            return self._frames.popleft()
        except IndexError:
            return None

    def close(self, timeout: float = 2.0) -> bool:
        self._frames.clear()
        return True


class Counted:
    """A sink that says when as many results have come as are wanted, and what they were."""

    def __init__(self) -> None:
        self._digest = hashlib.sha256()
        self._left = 0
        self._done = threading.Event()

    def want(self, count: int) -> None:
        self._left = count
        self._done.clear()

    def __call__(self, result: Detections) -> None:
        digest(self._digest, result)
        self._left -= 1
        if not self._left:
            self._done.set()

    def wait(self) -> None:
        if not self._done.wait(WAIT):
            raise SystemExit("the scheduler gave no result in time")

    @property
    def seen(self) -> str:
        return self._digest.hexdigest()


def digest(into: Any, result: Detections) -> None:
    into.update(np.int64(result.frame_index).tobytes())
    for array in (result.xyxy, result.confidence, result.class_id):
        into.update(np.ascontiguousarray(array).tobytes())


class SchedulerSide:
    """All streams in this process."""

    def __init__(self, engines: str, streams: Sequence[int], workers: int) -> None:
        self._detector = Detector.from_pretrained(engines, threads=1)
        self._look_ahead = self._detector.config.dials.frames_ahead
        pictures = pictures_of(self._detector)
        self._given = [Pictures(pictures, i) for i in streams]
        self._scheduler = Scheduler(self._detector, workers=workers)
        self._sources: list[Queued] = []
        self._sinks = [Counted() for _ in streams]
        for i, sink in zip(streams, self._sinks, strict=True):
            self._scheduler.add(str(i), self._source, sink)

    def _source(self, on_frame: Callable[[], None]) -> Queued:
        self._sources.append(Queued(on_frame))
        return self._sources[-1]

    def begin(self, count: int) -> list[str]:
        """Fills the windows; what the results were, by stream."""
        self._push(count, count - self._look_ahead)
        return [sink.seen for sink in self._sinks]

    def run(self, count: int) -> float:
        """Seconds that `count` frames of every stream take, until the last result."""
        return self._push(count, count)

    def _push(self, count: int, results: int) -> float:
        for source, sink, given in zip(self._sources, self._sinks, self._given, strict=True):
            source.put(given.take(count))
            sink.want(results)
        start = time.perf_counter()
        for source in self._sources:
            source.begin()
        for sink in self._sinks:
            sink.wait()
        return time.perf_counter() - start

    def resident(self) -> dict[str, float]:
        return memory()


class ProcessSide:
    """One stream, pushed by a loop."""

    def __init__(self, engines: str, streams: Sequence[int], workers: int) -> None:
        self._detector = Detector.from_pretrained(engines, threads=1)
        self._given = Pictures(pictures_of(self._detector), streams[0])
        self._stream = self._detector.open_stream()
        self._digest = hashlib.sha256()

    def begin(self, count: int) -> list[str]:
        self.run(count)
        return [self._digest.hexdigest()]

    def run(self, count: int) -> float:
        frames = list(self._given.take(count))
        start = time.perf_counter()
        for frame in frames:
            for result in self._stream.push(frame):
                digest(self._digest, result)
        return time.perf_counter() - start

    def resident(self) -> dict[str, float]:
        return memory()


class OverheadSide:
    """A loop and a scheduler with one stream, on the same detector, in turns."""

    def __init__(self, engines: str, streams: Sequence[int], workers: int) -> None:
        self._served, self._loop = SchedulerSide(engines, streams, 1), ProcessSide(engines, streams, 1)

    def begin(self, count: int) -> list[str]:
        if self._served.begin(count) != self._loop.begin(count):
            raise SystemExit("the scheduler and the loop do not detect the same; nothing is compared")
        return []

    def run(self, count: int) -> dict[str, float]:
        return {"loop": self._loop.run(count), "scheduler": self._served.run(count)}


def memory() -> dict[str, float]:
    """MiB of this process: resident, and its share where pages belong to several (PSS)."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    sizes = {line.split(":")[0]: int(line.split()[1]) / 1024 for line in lines[1:]}
    return {"rss": sizes["Rss"], "pss": sizes["Pss"]}


SIDES: dict[Kind, Callable[[str, Sequence[int], int], Any]] = {
    "scheduler": SchedulerSide, "process": ProcessSide, "overhead": OverheadSide,
}  # fmt: skip


def serve(kind: Kind, engines: str, streams: Sequence[int], cores: Sequence[int], pipe: Connection) -> None:
    os.sched_setaffinity(0, cores)
    side = SIDES[kind](engines, streams, len(cores))
    while True:
        try:
            command, arguments = pipe.recv()
        except EOFError:
            return
        pipe.send(getattr(side, command)(*arguments))


class Side:
    """A process with some of the streams."""

    def __init__(self, kind: Kind, engines: str, streams: Sequence[int], cores: Sequence[int]) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=serve, args=(kind, engines, streams, cores, theirs), daemon=True)
        self._process.start()
        theirs.close()

    def send(self, command: str, *arguments: object) -> None:
        self._pipe.send((command, arguments))

    def receive(self) -> Any:
        try:
            return self._pipe.recv()
        except EOFError:
            raise SystemExit(f"a measured process ended, exit code {self._process.exitcode}") from None

    def close(self) -> None:
        self._pipe.close()
        self._process.join(20)


def ask(sides: Sequence[Side], command: str, *arguments: object) -> list[Any]:
    """All sides at once."""
    for side in sides:
        side.send(command, *arguments)
    return [side.receive() for side in sides]


def wall(sides: Sequence[Side], frames: int) -> float:
    start = time.perf_counter()
    ask(sides, "run", frames)
    return time.perf_counter() - start


def throughput(
    engines: str, streams: int, cores: Sequence[int], rounds: int, frames: int, begin: int
) -> dict[str, Any]:
    """Frames a second of all streams, and memory, of every side."""
    everyone = list(range(streams))
    sides = {
        "scheduler": [Side("scheduler", engines, everyone, cores)],
        "processes": [Side("process", engines, [i], cores) for i in everyone],
        "loops": [Side("process", engines, [i], [core]) for i, core in enumerate(cores)],
    }
    seen = {name: [digest for answer in ask(side, "begin", begin) for digest in answer] for name, side in sides.items()}
    if seen["scheduler"] != seen["processes"] or seen["scheduler"][: len(cores)] != seen["loops"][:streams]:
        raise SystemExit("the scheduler and the processes do not detect the same; nothing is compared")
    share = {"scheduler": frames, "processes": frames, "loops": -(-streams * frames // len(cores))}
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(rounds + 1):
        order = list(sides.items())[:: 1 if turn % 2 else -1]
        for name, side in order:
            took = wall(side, share[name])
            if turn:  # the first round warms up
                seconds[name].append(took)
    held = {name: ask(side, "resident") for name, side in sides.items()}
    for side in sides.values():
        for one in side:
            one.close()
    done = {"scheduler": streams * frames, "processes": streams * frames, "loops": share["loops"] * len(cores)}
    rates = {name: [done[name] / s for s in took] for name, took in seconds.items()}
    ratios = {
        other: summary([a / b for a, b in zip(rates["scheduler"], rates[other], strict=True)])
        for other in ("processes", "loops")
    }
    totals = {name: {kind: sum(one[kind] for one in each) for kind in ("rss", "pss")} for name, each in held.items()}
    return {
        "streams": streams,
        "cores": len(cores),
        "frames_a_round": frames,
        **{name: {"fps": summary(rates[name]), "rounds": rates[name], "mib": totals[name]} for name in sides},
        "scheduler_over_processes": ratios["processes"],
        "scheduler_over_loops": ratios["loops"],
        "memory_over_processes": {
            kind: totals["scheduler"][kind] / totals["processes"][kind] for kind in ("rss", "pss")
        },
    }


def overhead(engines: str, core: int, rounds: int, frames: int, begin: int) -> dict[str, Any]:
    """Milliseconds that the scheduler adds to a frame of one stream on one core."""
    side = [Side("overhead", engines, [0], [core])]
    ask(side, "begin", begin)
    ask(side, "run", frames)
    took = [ask(side, "run", frames)[0] for _ in range(rounds)]
    side[0].close()
    ms = {name: [1e3 * one[name] / frames for one in took] for name in ("loop", "scheduler")}
    ratios = [b / a for a, b in zip(ms["loop"], ms["scheduler"], strict=True)]
    return {**{name: {"ms": summary(values), "rounds": values} for name, values in ms.items()},
            "scheduler_over_loop": summary(ratios)}  # fmt: skip


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--engines", type=given_path, default=ROOT / "models" / "rdn_tiny" / "engines")
    parser.add_argument("--streams", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--frames", type=int, default=40, help="of a stream in a round")
    parser.add_argument("--begin", type=int, default=40, help="frames of a stream that are compared, before all rounds")
    parser.add_argument("--cores", type=int, nargs="*", default=sorted(os.sched_getaffinity(0)))
    parser.add_argument("--output", type=given_path)
    arguments = parser.parse_args(argv)
    os.environ.update(environment_of(1))  # the processes read it as they start
    engines, rounds, frames, begin = str(arguments.engines), arguments.rounds, arguments.frames, arguments.begin
    both = throughput(engines, arguments.streams, arguments.cores, rounds, frames, begin)
    one = overhead(engines, arguments.cores[0], rounds, frames, begin)
    for name in ("scheduler", "processes", "loops"):
        print(f"{name}: {both[name]['fps']['p50']:.1f} frames/s, {both[name]['mib']['pss']:.0f} MiB (PSS), "
              f"{both[name]['mib']['rss']:.0f} MiB resident")  # fmt: skip
    print(f"scheduler / processes: {both['scheduler_over_processes']['p50']:.3f} of the frames, "
          f"{both['memory_over_processes']['pss']:.3f} of the memory; "
          f"scheduler / a loop on each core: {both['scheduler_over_loops']['p50']:.3f}")  # fmt: skip
    print(f"one stream: loop {one['loop']['ms']['p50']:.3f} ms, scheduler {one['scheduler']['ms']['p50']:.3f} ms, "
          f"ratio {one['scheduler_over_loop']['p50']:.4f}; least times "
          f"{one['loop']['ms']['min']:.3f} and {one['scheduler']['ms']['min']:.3f} ms")  # fmt: skip
    if arguments.output:
        from training.provenance import environment

        result = {"engines": arguments.engines.name, "many": both, "one": one, **environment()}
        arguments.output.write_text(json.dumps(result, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
