"""Streams behind a real Triton Inference Server: what must hold of them, and what the server costs.

    python benchmarks/serve/scale_triton.py --output benchmarks/results/scale_triton.json

Everything is checked (triton_checks.py) before anything is timed. The server is that of the nvidia-pytriton wheel
(triton_server.py). Where speed is measured it has one core, the clients another. `--parts checks` times nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.measure import environment_of, percentile, summary
from benchmarks.serve.triton_checks import (
    IDLE_SECONDS,
    Videos,
    abandoned,
    equal,
    every,
    refused,
    restarted,
    rows,
    serving,
)
from benchmarks.serve.triton_server import MODEL, TritonServer, missing
from rdn_engine.detector import Detector
from rdn_engine.serve.triton.client import open_triton_stream
from rdn_engine.serve.triton.options import TritonOptions
from training.arguments import given_path

ROOT = Path(__file__).resolve().parents[2]
ENGINES = ROOT / "models" / "rdn_tiny" / "engines"
CALLED = (1, 2, 4, 8, 16)
"""Streams at once, for calls of so many frames"""
PARTS = ("checks", "overhead", "cameras")
CAMERAS = 8
LOADS = (0.6, 1.5)
"""What paced cameras ask for, of what the server can"""


class Local:
    """Streams of this process, one frame of each after the other."""

    def __init__(self, detector: Detector, videos: Videos, streams: int) -> None:
        self._videos, self._t, self.streams = videos, 0, streams
        self._streams = [detector.open_stream() for _ in range(streams)]

    def run(self, frames: int) -> float:
        """Seconds for so many frames of each."""
        began = time.perf_counter()
        for t in range(self._t, self._t + frames):
            for number, stream in enumerate(self._streams):
                stream.push(self._videos.frame(number, t))
        self._t += frames
        return time.perf_counter() - began


class Remote:
    """The same behind a server, each stream pushed by a thread of its own."""

    def __init__(self, url: str, videos: Videos, streams: int) -> None:
        self._videos, self._t = videos, 0
        self._streams = [open_triton_stream(url, MODEL, timeout=60) for _ in range(streams)]

    def run(self, frames: int) -> float:
        def play(number: int) -> None:
            for t in range(self._t, self._t + frames):
                self._streams[number].push(self._videos.frame(number, t))

        began = time.perf_counter()
        every(play, len(self._streams))
        self._t += frames
        return time.perf_counter() - began

    def close(self) -> None:
        for stream in self._streams:
            stream.close()


def overhead(local: Local, remote: Remote, cores: Sequence[int], rounds: int, frames: int) -> dict[str, Any]:
    """What a frame takes through the server, on one core, beyond what it takes in a loop on that core, in turns.

    Args:
        local, remote: with as many streams.
        cores: one of the server and the loop, one of the clients.
        rounds: that are timed.
        frames: of each stream in a round.
    """
    sides: dict[str, tuple[Local | Remote, int]] = {"local": (local, cores[0]), "triton": (remote, cores[1])}
    took: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(rounds + 1):
        for name, (side, core) in list(sides.items())[:: 1 if turn % 2 else -1]:
            os.sched_setaffinity(0, {core})
            milliseconds = 1e3 * side.run(frames) / frames / local.streams
            if turn:  # the first round warms up
                took[name].append(milliseconds)
    ratios = [b / a for a, b in zip(took["local"], took["triton"], strict=True)]
    return {
        "streams": local.streams, "frames_a_round": frames, "rounds": ratios, "triton_over_local": summary(ratios),
        "ms_a_frame": {name: summary(milliseconds) for name, milliseconds in took.items()},
    }  # fmt: skip


Spent = dict[int, tuple[int, float]]
"""Frames in a call -> calls, and their seconds"""


@dataclass
class _Paced:
    ages: list[float]
    pushes: list[float]
    dropped: int = 0


def cameras(
    server: TritonServer, videos: Videos, count: int, rate: float, seconds: float, warm: float, seed: int
) -> tuple[dict[str, Any], Calls]:
    """Cameras that give frames at a fixed rate, each with one frame that may wait: what simulation.py simulates.

    Args:
        count: of cameras.
        rate: frames a second of each.
        seconds, warm: that it lasts, and of which no frame counts.
        seed: of the moments of their first frames.
    """
    draw = random.Random(seed)
    phases = [draw.random() / rate for _ in range(count)]
    before, answered = server.calls(), server.answers()
    begin = time.monotonic() + 0.2

    def play(number: int) -> _Paced:
        found, index = _Paced([], []), 0
        with open_triton_stream(server.url, MODEL, timeout=30) as stream:
            while True:
                now = time.monotonic()
                newest = max(index, int((now - begin - phases[number]) * rate))
                taken = begin + phases[number] + newest / rate
                if taken >= begin + seconds:
                    return found
                time.sleep(max(taken - now, 0.0))
                # A camera that slept until its frame came also waits until it is woken; that is part of the transport.
                sent = max(taken, now)
                stream.push(videos.frame(number, newest))
                found.pushes.append(time.monotonic() - sent)
                if taken >= begin + warm:
                    found.ages.append(time.monotonic() - taken)
                    found.dropped += newest - index
                index = newest + 1

    played = every(play, count)
    requests, inside = (now - then for now, then in zip(server.answers(), answered, strict=True))
    pushes = [one for found in played for one in found.pushes]
    calls = since(before, server.calls())
    calls.transports.append(statistics.mean(pushes) - inside / requests)
    ages = [age for one in played for age in one.ages]
    return {
        "cameras": count, "rate": rate, "seconds": seconds, "warm": warm, "phases": phases,
        "answered": len(ages), "dropped": sum(one.dropped for one in played),
        "frames_a_call": sum(n * count for n, (count, _) in calls.spent.items())
        / max(sum(count for count, _ in calls.spent.values()), 1),
        "age_p50": percentile(ages, 50), "age_p99": percentile(ages, 99),
    }, calls  # fmt: skip


@dataclass
class Calls:
    """What calls of the model took, as the server counts them, and what a request takes beside its time there."""

    spent: Spent
    transports: list[float]

    def __add__(self, other: Calls) -> Calls:
        return Calls(_summed(self.spent, other.spent, 1), self.transports + other.transports)

    def means(self) -> dict[str, float]:
        """Frames in a call -> its seconds, of sizes that came often."""
        return {str(n): seconds / count for n, (count, seconds) in sorted(self.spent.items()) if count >= 10}


def since(before: Spent, now: Spent) -> Calls:
    """What calls took between two moments; nothing is known of transport."""
    return Calls(_summed(now, before, -1), [])


def _summed(spent: Spent, other: Spent, sign: int) -> Spent:
    pairs = {n: (spent.get(n, (0, 0.0)), other.get(n, (0, 0.0))) for n in spent.keys() | other.keys()}
    return {n: (a[0] + sign * b[0], a[1] + sign * b[1]) for n, (a, b) in pairs.items()}


def calls_of(server: TritonServer, videos: Videos, streams: Sequence[int], frames: int) -> Calls:
    """Streams that never wait, so many at once: calls of several sizes.

    Args:
        streams: numbers of them, one after the other.
        frames: of each.
    """
    before = server.calls()
    for count in streams:
        remote = Remote(server.url, videos, count)
        remote.run(frames)
        remote.close()
    return since(before, server.calls())


def calibrated(server: TritonServer, videos: Videos, small: bool) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """What calls take, and what paced cameras got that had no part in that."""
    crowded = calls_of(server, videos, CALLED, 20 if small else 150)
    each = crowded.means()["1"]
    length = (4, 1) if small else (40, 5)
    # Other cameras at the same loads tell what calls take that come now and then, in front of a cold cache.
    sparse, paced = Calls({}, []), []
    for load in LOADS:
        rate = load / each / CAMERAS
        sparse += cameras(server, videos, CAMERAS, rate, *length, seed=0)[1]
        paced.append({"load": load, **cameras(server, videos, CAMERAS, rate, *length, seed=1)[0]})
    transport = statistics.median(sparse.transports)
    return {"call_seconds": crowded.means() | sparse.means(), "transport_seconds": transport}, paced


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--engines", type=given_path, default=ENGINES)
    parser.add_argument("--quick", action="store_true", help="small numbers: that everything runs")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS,
                        help="what to do now; of the rest the file keeps what it has")  # fmt: skip
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--output", type=given_path)
    arguments = parser.parse_args(argv)
    if reason := missing():
        raise SystemExit(reason)
    os.environ.update(environment_of(1))
    detector = Detector.from_pretrained(arguments.engines, threads=1)
    videos, small = Videos(detector), arguments.quick
    options = TritonOptions(threads=1, idle_seconds=600)
    found: dict[str, Any] = {}
    if arguments.output and arguments.output.exists():
        found = json.loads(arguments.output.read_text(encoding="utf-8"))
    found |= {"engines": arguments.engines.name, "window": detector.config.dials.window}

    def said(name: str, result: dict[str, Any]) -> None:
        found[name] = result
        print(json.dumps({name: result}), flush=True)

    if "checks" in arguments.parts:
        with serving(arguments.engines, options) as server:
            said("equal", equal(server, detector, videos, *((4, 40) if small else (32, 200))))
            said("refused", refused(server, videos, 80, options.max_streams))
            said("restarted", restarted(server, detector, videos, *((4, 60) if small else (16, 120))))
        with serving(arguments.engines, replace(options, idle_seconds=IDLE_SECONDS)) as server:
            said("abandoned", abandoned(server, videos, 600 if small else 2000))
        found["rows"] = rows(found)
    available = sorted(os.sched_getaffinity(0))
    cores = [available[0], available[-1]]
    os.sched_setaffinity(0, {cores[1]})  # inherited by the threads of the clients
    if "overhead" in arguments.parts:
        with serving(arguments.engines, options, {cores[0]}) as server:
            for name, streams in (("overhead", 8), ("overhead_one", 1)):
                rounds, frames = (2, 10) if small else (arguments.rounds, 320 // streams)
                local, remote = Local(detector, videos, streams), Remote(server.url, videos, streams)
                said(name, overhead(local, remote, cores, rounds, frames))
                remote.close()
            os.sched_setaffinity(0, {cores[1]})
    if "cameras" in arguments.parts:
        with serving(arguments.engines, options, {cores[0]}) as server:
            measured, paced = calibrated(server, videos, small)
        said("calls", measured)
        said("cameras", {"rows": paced})
    if arguments.output:
        from training.provenance import environment

        arguments.output.write_text(json.dumps({**found, **environment()}, indent=1) + "\n", encoding="utf-8")
    return int(not all(row["held"] for row in found.get("rows", [])))


if __name__ == "__main__":
    sys.exit(main())
