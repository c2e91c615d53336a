"""A detector, its streams, where their results go, and what can be asked of them while they run."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from functools import partial
from typing import Any

from rdn_engine.detector import Detector
from rdn_engine.errors import RDNError
from rdn_engine.media.given import given_value
from rdn_engine.media.live import LiveSource, is_live
from rdn_engine.plain import check
from rdn_engine.serve.events import Event
from rdn_engine.serve.scheduler import Scheduler
from rdn_engine.serve.snapshot import SchedulerSnapshot, StreamSnapshot
from rdn_engine.service.config import HttpSettings, ServiceSettings, StreamSettings, check_outputs
from rdn_engine.service.logs import log_event, log_failure, log_output, log_restart
from rdn_engine.service.outputs import Output, open_output
from rdn_engine.service.preflight import preflight
from rdn_engine.service.preview import Preview
from rdn_engine.service.restarts import Restarts
from rdn_engine.service.running import RunningStream
from rdn_engine.service.status import stream_status, whole_status
from rdn_engine.service.tracing import Tracer
from rdn_engine.service.watched import WatchedSource

KEPT = 20
"""Streams that have ended and are still shown"""
KEEPER_SECONDS = 0.5
"""After which it is looked for streams that have ended, if no event says so before"""
DIALS_SECONDS = 10.0
"""That a change of dials is waited for; it takes effect later where the stream is busy longer"""


class Service:
    """What `rdn-engine run` runs. Any thread may call it."""

    def __init__(self, settings: ServiceSettings, detector: Detector | None = None) -> None:
        """Open the outputs and the detector, and start the streams.

        Args:
            settings: all of it.
            detector: instead of the settings' own; for tests.

        Raises:
            AdmissionRefused: where the byte budget has no room for all streams.
            ConfigError: for dials or an output that cannot be, and as `preflight`.
            RDNError: as `Detector.from_pretrained`.
            OSError: for an output or a file of a secret that cannot be opened.
        """
        self.settings = settings
        """As it was started with"""
        self._changed = threading.Condition()
        self._running: dict[str, RunningStream] = {}
        self._starting: set[str] = set()
        """Names that are taken for streams that do not run yet"""
        self._ended: deque[tuple[RunningStream, StreamSnapshot]] = deque(maxlen=KEPT)
        self._restarts = Restarts()
        self._closing = False
        self._badly = 0
        with contextlib.ExitStack() as undo:
            self._outputs: dict[str, Output] = {}
            undo.callback(self._close_outputs, drain=False, deadline_s=1.0)
            for name, output in settings.outputs.items():
                self._outputs[name] = open_output(name, output, partial(log_output, name))
            self._detector = detector or Detector.from_pretrained(
                settings.engines, backend=settings.backend, device=settings.device, threads=settings.threads,
                executor=settings.executor, relation_precision=settings.relation_precision,
                ring_precision=settings.ring_precision,
            )  # fmt: skip
            preflight(settings, self._detector.config)
            self._tracer = None if settings.trace is None else Tracer(settings.trace)
            if self._tracer is not None:
                undo.callback(self._tracer.close, 0.1)
            self._dials = self._detector.config.dials.turned(settings.dials)
            self._scheduler = Scheduler(
                self._detector, workers=settings.workers, byte_budget=settings.byte_budget, on_event=self._see_event,
                on_push=None if self._tracer is None else self._tracer.take,
            )  # fmt: skip
            undo.callback(self._scheduler.close, drain=False, deadline_s=1.0)
            undo.callback(self._stop_keeper)
            for name, stream in settings.streams.items():
                self.add(name, stream)
            self._keeper = threading.Thread(target=self._keep, name="rdn-keeper", daemon=True)
            self._keeper.start()
            undo.pop_all()

    def add(self, name: str, settings: StreamSettings) -> None:
        """Start a stream.

        Args:
            name: as `check_name` wants it.
            settings: its own.

        Raises:
            AdmissionRefused: where the byte budget has no room for it.
            ConfigError: for a name that is taken, an output that is not there, dials that cannot be, or a source that
                is named elsewhere and cannot be read there.
            OSError: for a file that should hold the source.
            StreamClosed: after `close`.
        """
        check_outputs(name, settings, self._outputs)
        with self._changed:
            taken = name in self._running or name in self._starting or name in self._restarts.names()
            check(not taken, "name", name, "another than those of the streams that run")
            self._starting.add(name)
        try:
            self._start(name, settings, 0)
        finally:
            self._started(name)

    def remove(self, name: str, *, drain: bool) -> None:
        """End a stream; `status` says when it has.

        Args:
            name: of the stream, which may be waiting for its restart.
            drain: as `ServedStream.remove`.

        Raises:
            KeyError: for one that is not there.
        """
        with self._changed:
            self._changed.wait_for(lambda: name not in self._starting)
            if self._restarts.cancel(name):
                return
            running = self._running[name]
            running.removed = True
        running.served.remove(drain=drain)
        if not drain:
            for output in running.outputs.values():
                output.forget(name, drop=True)  # its sink may wait there for room

    def set_dials(self, name: str, given: dict[str, Any]) -> bool:
        """Change dials of a stream.

        Args:
            name: of the stream.
            given: those that change.

        Returns:
            Whether they are in effect already; they will be.

        Raises:
            AdmissionRefused, ConfigError: as `ServedStream.set_dials`.
            KeyError: for a stream that is not there.
            StreamClosed: for one that ends.
        """
        return self._of(name).turn(given, DIALS_SECONDS)

    def preview(self, name: str) -> Preview:
        """What a stream shows.

        Args:
            name: of the stream.

        Raises:
            KeyError: for one that is not there.
        """
        return self._of(name).preview

    def snapshot(self) -> SchedulerSnapshot:
        """All counters of the scheduler now."""
        return self._scheduler.snapshot()

    @property
    def outputs(self) -> dict[str, Output]:
        """By name; not to be changed."""
        return self._outputs

    def flags(self) -> dict[str, tuple[str, ...]]:
        """What is wrong with the pictures of the streams that run, by name."""
        with self._changed:
            running = dict(self._running)
        return {name: one.flags for name, one in running.items()}

    def restarts(self) -> dict[str, int]:
        """How often the streams that run were started anew after a failure, by name."""
        with self._changed:
            return {name: one.failures for name, one in self._running.items()}

    @property
    def ready(self) -> bool:
        """Whether it serves streams: not any more once it closes."""
        return not self._closing

    def stuck(self) -> float | None:
        """Seconds that a worker has been in one turn, where those are too many; None where all is well."""
        return self._stuck(self._scheduler.snapshot())

    def status(self) -> dict[str, Any]:
        """Everything, as GET /streams answers it."""
        snapshot = self._scheduler.snapshot()
        with self._changed:
            running, ended = dict(self._running), list(self._ended)

        waiting = self._restarts.seconds(time.monotonic())
        return whole_status(
            snapshot,
            # Not the scheduler's: one that has ended is gone there before it is among the ended here.
            [stream_status(one, one.served.snapshot()) for one in running.values()],
            [
                {**stream_status(one, last), "restart_in_seconds": waiting.get(one.name)}
                for one, last in reversed(ended)
            ],
            healthy=self._stuck(snapshot) is None,
        )

    def wait(self, timeout: float) -> bool:
        """Wait until no stream runs and none will start again.

        Args:
            timeout: seconds.

        Returns:
            Whether it is so.
        """
        with self._changed:
            return self._changed.wait_for(
                lambda: not (self._running or self._starting or self._restarts.names()), timeout
            )

    @property
    def badly_ended(self) -> int:
        """Streams that have ended because they, or their source, failed, and were not started again."""
        return self._badly

    def close(self, *, drain: bool, deadline_s: float) -> bool:
        """End everything, in time.

        Args:
            drain: whether what waits is computed and delivered first.
            deadline_s: seconds for all of it.

        Returns:
            Whether everything was over in time.
        """
        end = time.monotonic() + deadline_s
        self._stop_keeper()
        # The outputs get what the streams leave of the time, and a part of it in any case.
        done = self._scheduler.close(drain=drain, deadline_s=deadline_s * (0.8 if self._outputs else 1.0))
        done &= self._close_outputs(drain=drain, deadline_s=max(end - time.monotonic(), 0.0))
        if self._tracer is not None:
            self._tracer.close(max(end - time.monotonic(), 0.1))
        return done

    def _stuck(self, snapshot: SchedulerSnapshot) -> float | None:
        limit = (self.settings.http or HttpSettings()).stuck_seconds
        return snapshot.longest_turn if snapshot.longest_turn > limit else None

    def _start(self, name: str, settings: StreamSettings, failures: int) -> None:
        source = given_value(settings.source)
        dials = self._dials.turned(settings.dials, f"streams.{name}.dials")
        capacity = dials.turned(settings.capacity, f"streams.{name}.capacity")
        outputs = {one: self._outputs[one] for one in settings.outputs}
        running = RunningStream(name, settings, dials, capacity, failures, outputs, live=is_live(source))
        running.stream = self._scheduler.add(
            name,
            lambda wake: WatchedSource(running.reading(LiveSource(source, settings.live, on_change=wake)), running.see),
            running.deliver,
            dials=dials,
            capacity=capacity,
            options=settings.bounds,
        )
        with self._changed:
            self._running[name] = running

    def _started(self, name: str) -> None:
        """A stream runs, or will not."""
        with self._changed:
            self._starting.discard(name)
            self._changed.notify_all()

    def _of(self, name: str) -> RunningStream:
        with self._changed:
            return self._running[name]

    def _see_event(self, event: Event) -> None:
        log_event(event)
        if event.kind == "ended":
            with self._changed:
                self._changed.notify_all()

    def _keep(self) -> None:
        """Take note of streams that have ended, and start those again whose time has come.

        Events wake it. It does not depend on them, as they are lost where nobody reads the log.
        """
        while True:
            self._note_ended()
            self._start_due()
            with self._changed:
                self._changed.notify_all()  # whoever waits for the end of all
                if not self._closing:
                    self._changed.wait(KEEPER_SECONDS)
                if self._closing:
                    return

    def _start_due(self) -> None:
        with self._changed:
            # In one step: a name that is neither here nor there could be taken, or nothing seem to be left to run.
            due = self._restarts.due(time.monotonic())
            self._starting.update(name for name, _, _ in due)
        for name, settings, failures in due:
            try:
                self._start(name, settings, failures)
            except Exception as error:  # a thread that the system does not give: other streams still need this one
                if self._closing:
                    continue
                words = str(error) if isinstance(error, (RDNError, OSError)) else type(error).__name__
                log_failure(name, f"could not be started again: {words}")
                self._restart(name, settings, failures + 1)
            self._started(name)

    def _note_ended(self) -> None:
        with self._changed:
            for one in list(self._running.values()):
                if not one.served.wait(0):
                    continue
                del self._running[one.name]
                last = one.served.snapshot()
                self._ended.append((one, last))
                one.retire()
                if last.end_reason in ("failed", "source") and not one.removed:
                    self._restart(one.name, one.again(), 1 if last.frames_out else one.failures + 1)

    def _restart(self, name: str, settings: StreamSettings, failures: int) -> None:
        """A stream that failed is started again, later each time; one that had given results begins anew."""
        with self._changed:
            now = time.monotonic()
            if self._closing or not self._restarts.later(name, settings, failures, now):
                self._badly += 1
            else:
                log_restart(name, self._restarts.seconds(now)[name])

    def _stop_keeper(self) -> None:
        with self._changed:
            self._closing = True
            self._changed.notify_all()

    def _close_outputs(self, *, drain: bool, deadline_s: float) -> bool:
        """All at once, so that one that does not answer takes no time of another."""
        done: list[bool] = []
        threads = [
            threading.Thread(
                target=lambda o=output: done.append(o.close(drain=drain, deadline_s=deadline_s)), daemon=True
            )
            for output in self._outputs.values()
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(deadline_s + 1.0)
        return len(done) == len(threads) and all(done)
