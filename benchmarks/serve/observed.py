"""One live stream on a scheduler, watched from outside: what it was given, and whether its account agrees."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from rdn_engine.config import Dials
from rdn_engine.media.live import LiveOptions, LiveSource
from rdn_engine.results import Detections
from rdn_engine.serve.options import StreamOptions
from rdn_engine.serve.scheduler import Scheduler
from rdn_engine.serve.served import ServedStream
from rdn_engine.serve.snapshot import StreamSnapshot

PATIENCE = 120.0
"""Seconds after which what is waited for does not come"""


@dataclass(frozen=True)
class Fate:
    """What became of a stream under a fault."""

    fault: str
    """In words"""
    frames_in: int
    frames_out: int
    dropped: dict[str, int]
    """By reason, those that are not 0"""
    waiting: int
    inside: int
    doubtful: int
    damaged: int
    lost_packets: int
    sessions: int
    failures: int
    epochs: int
    back_seconds: float | None
    """From the moment the fault was over to the first result after it; None where it never is"""
    exact: bool
    """Whether the account agrees with what source and sink counted, in every snapshot"""
    said: str = ""
    """The last failure of the source"""


@dataclass
class Observed:
    """A stream with a sink that notes what it gets, and may be held up."""

    scheduler: Scheduler
    name: str
    address: str
    options: LiveOptions
    dials: Dials
    results: int = 0
    last: Detections | None = None
    free: threading.Event = field(default_factory=threading.Event)
    """The sink waits until it is set"""

    def __post_init__(self) -> None:
        self.free.set()
        self._changed = threading.Condition()
        self._exact = True
        self.source: LiveSource
        self.served: ServedStream = self.scheduler.add(
            self.name, self._open, self._take, dials=self.dials, options=StreamOptions(results=8)
        )

    def wait(self, wanted: Callable[[Detections], bool], seconds: float = PATIENCE) -> float:
        """Wait for a result.

        Args:
            wanted: says which.
            seconds: how long.

        Returns:
            When it came, `time.monotonic`.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: self.last is not None and wanted(self.last), seconds):
                raise TimeoutError(f"{self.name}: no such result in {seconds:g} s; {self.source.error}")
            return time.monotonic()

    def wait_results(self, count: int) -> None:
        """Wait for so many more results."""
        aim = self.results + count
        self.wait(lambda result: self.results >= aim)

    def until(self, true: Callable[[StreamSnapshot], bool], seconds: float = PATIENCE) -> None:
        """Look at the stream again and again until something is true of it."""
        end = time.monotonic() + seconds
        while not true(self.look()):
            if time.monotonic() > end:
                raise TimeoutError(f"{self.name}: not so within {seconds:g} s: {self.look()}")
            time.sleep(0.02)

    def look(self) -> StreamSnapshot:
        """A snapshot, which is checked."""
        now = self.served.snapshot()
        balance = now.frames_out + sum(now.dropped.values()) + now.waiting + now.inside
        self._exact &= now.frames_in == balance and min(now.waiting, now.inside) >= 0
        return now

    def end(self, fault: str, back_seconds: float | None) -> Fate:
        """Remove the stream, and say what became of it.

        Args:
            fault: in words.
            back_seconds: as `Fate`.
        """
        self.free.set()
        self.look()
        self.served.remove(drain=True)
        if not self.served.wait(PATIENCE):
            raise TimeoutError(f"{self.name} does not end")
        final = self.look()
        self._exact &= (final.waiting, final.inside) == (0, 0)
        self._exact &= final.frames_in == self.source.captured and final.frames_out == self.results
        return Fate(
            fault=fault,
            frames_in=final.frames_in,
            frames_out=final.frames_out,
            dropped={reason: count for reason, count in final.dropped.items() if count},
            waiting=final.waiting,
            inside=final.inside,
            doubtful=final.doubtful,
            damaged=final.damaged,
            lost_packets=final.lost_packets,
            sessions=final.sessions,
            failures=final.failures,
            epochs=final.epochs,
            back_seconds=None if back_seconds is None else round(back_seconds, 3),
            exact=self._exact,
            said="" if self.source.error is None else f"{self.source.error}",
        )

    def _open(self, wake: Callable[[], None]) -> LiveSource:
        self.source = LiveSource(self.address, self.options, on_change=wake)
        return self.source

    def _take(self, result: Detections) -> None:
        self.free.wait(PATIENCE)
        with self._changed:
            self.results += 1
            self.last = result
            self._changed.notify_all()


def total(fault: str, fates: list[Fate], back_seconds: float | None) -> Fate:
    """Several streams as one row.

    Args:
        fault: in words.
        fates: of the streams, one or more.
        back_seconds: of the row.
    """
    names = ("frames_in", "frames_out", "waiting", "inside", "doubtful", "damaged", "lost_packets", "sessions",
             "failures", "epochs")  # fmt: skip
    sums = {name: sum(getattr(fate, name) for fate in fates) for name in names}
    reasons = {reason for fate in fates for reason in fate.dropped}
    dropped = {reason: sum(fate.dropped.get(reason, 0) for fate in fates) for reason in sorted(reasons)}
    return Fate(
        fault=fault, dropped=dropped, back_seconds=back_seconds, exact=all(fate.exact for fate in fates), **sums
    )
