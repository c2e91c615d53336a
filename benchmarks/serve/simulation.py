"""Cameras before batching instances of a model, as discrete events: arrivals, batches, failures.

    python benchmarks/serve/simulation.py --output benchmarks/results/simulation.json

A camera gives a frame every 1/rate seconds, from a moment of its own on. It has one request under way; a frame that
comes meanwhile waits, in place of one that waits already, which is dropped. An instance that is free takes what is
there, up to a batch, for as long as a call of so many frames was measured to take. An instance that fails loses its
windows: the frames under way are sent again once it is back, and every stream of its cameras begins a new epoch.

The small case is compared with what a real server gave (scale_triton.json), then 1,000 cameras are asked for.
"""

from __future__ import annotations

import argparse
import heapq
import itertools
import json
import math
import random
import sys
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.measure import percentile
from rdn_engine.text import read_text
from training.arguments import given_path

ROOT = Path(__file__).resolve().parents[2]
MEASURED = ROOT / "benchmarks" / "results" / "scale_triton.json"
BUSY = (0.6, 0.75, 0.9)
"""Shares of their time that instances compute, of which the number of them follows"""
WITHIN = 0.1
JUDGED = ("answered", "age_p50")
"""What a simulation without noise can be held to; the slowest of a hundred answers is the machine's noise"""


@dataclass(frozen=True)
class Fleet:
    """What is simulated."""

    cameras: int
    rate: float
    """Frames a second of each camera"""
    instances: int
    """Of the model; a camera stays with its own"""
    call_seconds: Mapping[int, float]
    """Frames in a call -> seconds that it takes; those between are on the line between, those beyond as the last"""
    transport: float = 0.0
    """Seconds from a camera to the instance and back"""
    window: int = 0
    """T: frames in front of one that its window wants"""
    days_between_failures: float | None = None
    """Of one instance, on average; None for never"""
    restart_seconds: float = 0.0
    """Until an instance that failed takes frames again"""

    @property
    def max_batch(self) -> int:
        """Frames that a call takes at most."""
        return max(self.call_seconds)

    def seconds_of(self, frames: int) -> float:
        """How long a call takes.

        Args:
            frames: in it, 1..max_batch.
        """
        known = sorted(self.call_seconds)
        if frames in self.call_seconds:
            return self.call_seconds[frames]
        below = max((n for n in known if n < frames), default=known[0])
        above = min(n for n in known if n > frames)
        if below >= above:
            return self.call_seconds[above] * frames / above
        share = (frames - below) / (above - below)
        return self.call_seconds[below] + share * (self.call_seconds[above] - self.call_seconds[below])


@dataclass(frozen=True)
class Outcome:
    """What became of the frames."""

    frames: int
    """That the cameras gave"""
    answered: int
    dropped: int
    """That gave way to a newer one before they were sent"""
    epochs: int
    """Streams that began anew after a failure"""
    partial: int
    """Answers of a window that was not whole yet, after a failure"""
    busy: float
    """Share of the time that instances compute"""
    batch: float
    """Frames of a call, on average"""
    age_p50: float
    """Seconds from a frame to its answer"""
    age_p99: float


@dataclass
class _Camera:
    instance: int
    waiting: float | None = None  # when the frame that waits was taken
    under_way: float | None = None
    filled: int = 0  # frames in the window of its epoch
    failed: bool = False  # whether an epoch of it was lost


@dataclass
class _Instance:
    queue: deque[int] = field(default_factory=deque)
    batch: list[int] = field(default_factory=list)
    life: int = 0  # grows with every failure: what was planned before it does not happen
    up: bool = True


def simulate(
    fleet: Fleet, seconds: float, *, seed: int = 0, warm: float = 0.0, phases: Sequence[float] | None = None
) -> Outcome:
    """Run a fleet.

    Args:
        fleet: what is simulated.
        seconds: that pass.
        seed: of phases and failures.
        warm: seconds at the beginning whose frames are not counted.
        phases: seconds until the first frame of each camera; None draws them.
    """
    draw = random.Random(seed)
    if phases is None:
        phases = [draw.uniform(0, 1 / fleet.rate) for _ in range(fleet.cameras)]
    return _Run(fleet, seconds, draw, warm, phases).outcome()


class _Run:
    def __init__(self, fleet: Fleet, seconds: float, draw: random.Random, warm: float, phases: Sequence[float]) -> None:
        self._fleet, self._end, self._draw, self._warm = fleet, seconds, draw, warm
        self._cameras = [_Camera(number % fleet.instances) for number in range(fleet.cameras)]
        self._instances = [_Instance() for _ in range(fleet.instances)]
        self._events: list[tuple[float, int, Any, tuple[Any, ...]]] = []
        self._order = itertools.count()
        self._ages: list[float] = []
        self._frames = self._dropped = self._epochs = self._partial = self._calls = self._called = 0
        self._busy = 0.0
        self._now = 0.0
        for number, phase in enumerate(phases):
            self._at(phase, self._frame, number)
        for number in range(fleet.instances):
            self._plan_failure(number)
        while self._events and self._events[0][0] <= seconds:
            self._now, _, happens, who = heapq.heappop(self._events)
            happens(*who)

    def outcome(self) -> Outcome:
        time = (self._end - self._warm) * self._fleet.instances
        ages = self._ages or [0.0]
        return Outcome(
            self._frames, len(self._ages), self._dropped, self._epochs, self._partial, self._busy / time,
            self._called / max(self._calls, 1), percentile(ages, 50), percentile(ages, 99),
        )  # fmt: skip

    def _at(self, moment: float, happens: Any, *who: Any) -> None:
        heapq.heappush(self._events, (moment, next(self._order), happens, who))

    def _frame(self, number: int) -> None:
        camera = self._cameras[number]
        self._at(self._now + 1 / self._fleet.rate, self._frame, number)
        self._frames += self._now >= self._warm
        if camera.under_way is None:
            self._send(number, self._now)
        else:
            self._dropped += camera.waiting is not None and camera.waiting >= self._warm
            camera.waiting = self._now

    def _send(self, number: int, taken: float) -> None:
        self._cameras[number].under_way = taken
        self._at(self._now + self._fleet.transport / 2, self._arrive, number)

    def _arrive(self, number: int) -> None:
        instance = self._cameras[number].instance
        self._instances[instance].queue.append(number)
        self._begin(instance)

    def _begin(self, number: int) -> None:
        instance = self._instances[number]
        if instance.batch or not instance.queue or not instance.up:
            return
        size = min(len(instance.queue), self._fleet.max_batch)
        instance.batch = [instance.queue.popleft() for _ in range(size)]
        took = self._fleet.seconds_of(size)
        if self._now >= self._warm:
            self._busy += took
            self._calls += 1
            self._called += size
        self._at(self._now + took, self._done, number, instance.life)

    def _done(self, number: int, life: int) -> None:
        instance = self._instances[number]
        if life != instance.life:
            return
        for camera in instance.batch:
            self._at(self._now + self._fleet.transport / 2, self._answer, camera)
        instance.batch = []
        self._begin(number)

    def _answer(self, number: int) -> None:
        camera = self._cameras[number]
        assert camera.under_way is not None
        camera.filled += 1
        if camera.under_way >= self._warm:
            self._ages.append(self._now - camera.under_way)
            self._partial += camera.failed and camera.filled <= self._fleet.window
        camera.under_way = None
        if camera.waiting is not None:
            taken, camera.waiting = camera.waiting, None
            self._send(number, taken)

    def _plan_failure(self, number: int) -> None:
        if self._fleet.days_between_failures is not None:
            mean = self._fleet.days_between_failures * 86400
            self._at(self._now + self._draw.expovariate(1 / mean), self._fail, number)

    def _fail(self, number: int) -> None:
        instance = self._instances[number]
        instance.up, instance.life = False, instance.life + 1
        # Clients send again what had no answer, once there is somebody to answer.
        instance.queue.extendleft(reversed(instance.batch))
        instance.batch = []
        for camera in self._cameras:
            if camera.instance == number:
                camera.filled, camera.failed = 0, True
                self._epochs += 1
        self._at(self._now + self._fleet.restart_seconds, self._back, number)

    def _back(self, number: int) -> None:
        self._instances[number].up = True
        self._plan_failure(number)
        self._begin(number)


def fleet_of(measured: Mapping[str, Any], cameras: int, rate: float, instances: int) -> Fleet:
    """A fleet whose calls take what they were measured to take.

    Args:
        measured: of scale_triton.json.
        cameras, rate, instances: as `Fleet`.
    """
    calls = {int(size): seconds for size, seconds in measured["calls"]["call_seconds"].items()}
    return Fleet(cameras, rate, instances, calls, measured["calls"]["transport_seconds"])


def compared(measured: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Each case that was measured, beside its simulation, and how far that is off.

    Args:
        measured: of scale_triton.json.
    """
    rows = []
    for real in measured["cameras"]["rows"]:
        fleet = fleet_of(measured, real["cameras"], real["rate"], 1)
        outcome = simulate(fleet, real["seconds"], warm=real["warm"], phases=real["phases"])
        row: dict[str, Any] = {"load": real["load"], "cameras": real["cameras"], "rate": real["rate"]}
        for name in ("answered", "age_p50", "age_p99"):
            ours = getattr(outcome, name)
            row[name] = {"measured": real[name], "simulated": ours, "ratio": ours / real[name]}
        rows.append(row)
    return rows


def asked(measured: Mapping[str, Any], cameras: int, rates: Sequence[float], seconds: float) -> list[dict[str, Any]]:
    """What so many cameras want, for some shares of the time that instances may be busy.

    Args:
        measured: of scale_triton.json.
        cameras: in all.
        rates: frames a second of each.
        seconds: simulated.
    """
    rows = []
    restart = measured["restarted"]["seconds_until_ready"]
    for rate in rates:
        one = fleet_of(measured, cameras, rate, 1)
        frame = min(one.seconds_of(size) / size for size in range(1, one.max_batch + 1))
        for share in BUSY:
            instances = math.ceil(cameras * rate * frame / share)
            fleet = replace(
                one, instances=instances, window=measured["window"], days_between_failures=1.0, restart_seconds=restart
            )
            outcome = simulate(fleet, seconds, warm=seconds / 10)
            rows.append({"cameras": cameras, "rate": rate, "instances": instances, "share": share, **asdict(outcome)})
            print(json.dumps(rows[-1]), flush=True)
    return rows


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--measured", type=given_path, default=MEASURED)
    parser.add_argument("--cameras", type=int, default=1000)
    parser.add_argument("--rates", type=float, nargs="+", default=[5.0, 10.0])
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--output", type=given_path)
    arguments = parser.parse_args(argv)
    measured = json.loads(read_text(arguments.measured))
    small = compared(measured)
    print(json.dumps(small), flush=True)
    for row in small:
        for name in JUDGED:
            if abs(row[name]["ratio"] - 1) > WITHIN:
                raise SystemExit(
                    f"load {row['load']}: {name} is {row[name]}; wanted within {WITHIN:.0%} of the measured"
                )
    fleet = asked(measured, arguments.cameras, arguments.rates, arguments.seconds)
    if arguments.output:
        from training.provenance import environment

        found = {"small": small, "fleet": fleet, **environment()}
        arguments.output.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
