"""One stream of a scheduler: its source, its window, its way out, and its end."""

from __future__ import annotations

import threading
from concurrent.futures import Future
from typing import get_args

from rdn_engine.config import Dials
from rdn_engine.plain import check, seconds_to_wait
from rdn_engine.serve.account import Account
from rdn_engine.serve.ending import Ending
from rdn_engine.serve.guarded import GuardedSource
from rdn_engine.serve.options import StreamOptions
from rdn_engine.serve.outlet import Outlet
from rdn_engine.serve.runner import StreamRunner, as_exception
from rdn_engine.serve.settings import Settings
from rdn_engine.serve.snapshot import EndReason, State, StreamSnapshot
from rdn_engine.serve.source import OpenSource, Sink
from rdn_engine.serve.surroundings import Surroundings
from rdn_engine.serve.troubles import Troubles
from rdn_engine.stream.base import Stream

_NEVER = float("inf")


class ServedStream:
    """What `Scheduler.add` gives: turn its dials, end it, ask how it is. Any thread may.

    The scheduler's workers call `step`, one at a time, so its Stream is touched by one thread at a time. It ends in
    three parts: the workers are done with it (retired), its sink has the last result, its source is closed.
    """

    def __init__(
        self, name: str, stream: Stream, nbytes: int, sink: Sink, options: StreamOptions, around: Surroundings
    ) -> None:
        """Nothing runs yet: `open`, then `start`.

        Args:
            name: of the stream.
            stream: its own from now on.
            nbytes: that it was admitted with.
            sink: takes its results.
            options: its bounds.
            around: of its scheduler.
        """
        self.name = name
        """Its name, unlike that of any other stream that runs"""
        self.nbytes = nbytes
        """What it may hold at most, bytes, as it was admitted with"""
        self._sink, self._options, self._around = sink, options, around
        self._account, self._troubles = Account(), Troubles(name, around.events)
        self._runner = StreamRunner(
            name, stream, self._account, self._troubles, lambda results: self._outlet.post(results), around.pushes,
            options.max_failures,
        )  # fmt: skip
        self._lock = threading.Lock()
        self._settings = Settings(name, self._runner, around.events, self._admit, options.latency_seconds)
        self._ending: Ending | None = None
        self._frames_left = 0  # to take before a drain is complete
        self._started = self._retired = self._source_closing = self._taking = False
        self._dropped_by_source = 0
        self._open_parts = {"sink", "source"}
        self._final: StreamSnapshot | None = None
        self._done = threading.Event()
        self._last_frame = around.clock()
        self._turn_began: float | None = None

    def open(self, open_source: OpenSource) -> None:
        """Make its source, and the thread that calls the sink; before `start`.

        Args:
            open_source: as `Scheduler.add` got it; what it raises comes through.
        """
        self._source = GuardedSource(open_source(self.wake))
        self._outlet = Outlet(
            self.name, self._sink, self._options.results, self._account, self._troubles, self._around.clock,
            aged=self._settings.aged, room=self.wake, end=lambda: self._end_part("sink"),
        )  # fmt: skip

    def start(self) -> None:
        """Start its source. Where that fails the stream ends, as for any failure of its source."""
        self._started = True
        try:
            self._source.start()
        except BaseException as error:
            self._end("source", drain=False, error=as_exception(error))
        self.wake()

    def wake(self) -> None:
        """There is something to do: a frame, the source's end, or room for results."""
        if self._started:
            self._around.wake(self)

    def set_dials(self, dials: Dials, timeout: float | None = None) -> None:
        """Change the settings, between two frames. No other stream is touched.

        Args:
            dials: as `Stream.dials` takes them.
            timeout: seconds to wait until they are in effect; None waits as long as it takes.

        Raises:
            ConfigError: for dials above the capacity of the stream.
            AdmissionRefused: for results or links that the byte budget has no room for.
            StreamClosed: where the stream ends or has ended.
            TimeoutError: where they are not in effect in time; they will be, or an event says why not.
        """
        timeout = seconds_to_wait("timeout", timeout)
        self.ask_dials(dials).result(timeout)

    def ask_dials(self, dials: Dials) -> Future[None]:
        """As `set_dials`, without waiting.

        Args:
            dials: as `Stream.dials` takes them.

        Returns:
            Done when they are in effect; holds the error where they are refused. What is refused changes nothing, and
            is an event.

        Raises:
            ConfigError: for what are no dials.
            StreamClosed: where the stream ends or has ended.
        """
        self._around.home.check()
        check(isinstance(dials, Dials), "dials", dials, "Dials")
        asked = self._settings.ask(dials)
        self.wake()
        return asked

    def remove(self, *, drain: bool, reason: EndReason = "removed") -> None:
        """End the stream; `wait` says when it has ended.

        Args:
            drain: True takes the frames that wait in the source now, and delivers all results still to come. False
                gives up what the sink has not got, and counts it.
            reason: what the last event says.
        """
        self._around.home.check()
        check(isinstance(drain, bool), "drain", drain, "True or False")
        check(reason in get_args(EndReason), "reason", reason, f"one of {get_args(EndReason)}")
        self._end(reason, drain=drain)

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the stream has ended: the source closed, the last result delivered, the account complete.

        Args:
            timeout: seconds; None waits as long as it takes.

        Returns:
            Whether it has.
        """
        self._around.home.check()
        return self._done.wait(seconds_to_wait("timeout", timeout))

    def snapshot(self) -> StreamSnapshot:
        """The counters now; those of a stream that has ended do not change any more."""
        self._around.home.check()
        with self._lock:
            return self._final or self._snapshot(ended=False)

    def step(self) -> bool:
        """Do one thing, in a worker: take a frame and push it, or come to an end.

        Returns:
            Whether there may be more to do at once.
        """
        self._turn_began = self._around.clock()
        try:
            return self._step()
        except BaseException as error:  # whatever a stage raises, the worker is for other streams too
            self._end("failed", drain=False, error=as_exception(error))
            return True
        finally:
            self._turn_began = None

    def expire(self, now: float) -> float:
        """End the stream where no frame has come for idle_seconds.

        Args:
            now: of the clock.

        Returns:
            When to look again.
        """
        idle = self._options.idle_seconds
        if idle is None or self._ending is not None:
            return _NEVER
        if self._source.waiting:
            return now + idle
        if now < self._last_frame + idle:
            return self._last_frame + idle
        self._end("idle", drain=True)
        return _NEVER

    def abandon(self) -> None:
        """It has ended, whatever its sink, its source and its stage are doing: what they hold is counted as dropped."""
        self._end("deadline", drain=False)
        with self._lock:
            self._retired = True
        self._settings.close()
        self._outlet.drop("deadline")
        self._outlet.finish()
        self._finish()

    def _step(self) -> bool:
        with self._lock:
            if self._retired:
                return False
            ending, frames_left = self._ending, self._frames_left
        self._settings.apply()
        if ending is not None and not ending.drain:
            self._retire()
            return False
        if self._outlet.full:
            self._troubles.bad("sink_full", f"{self._options.results} results wait for the sink; no frame is taken")
            return False
        if ending is not None and not frames_left:
            self._retire()
            return False
        return self._next()

    def _next(self) -> bool:
        """Take a frame, if there is one, and push it."""
        with self._lock:
            self._taking = True
        # In this order: frames may come between two questions, but none after the end, and those before a failure are
        # taken before it is seen.
        ended, error, frame = self._source.ended, self._source.error, self._source.get()
        if self._source.broken:
            ended, error = True, self._source.error
        with self._lock:
            self._taking = False
            self._frames_left = max(self._frames_left - 1, 0)
        if frame is not None:
            self._troubles.good("source_down", calm=1)  # its attempts are far enough apart
            self._last_frame = self._around.clock()
            if not self._settings.takes():
                self._account.leave_out()
                return True
            failure_too_many = self._runner.push(frame)
            if failure_too_many is not None:
                self._end("failed", drain=True, frames_left=0, error=failure_too_many)
            return True
        if error is not None:
            self._troubles.bad("source_down", f"the source failed: {error}", error)
            if not ended:
                self._runner.end_epoch()
        if ended:
            self._end("ended" if error is None else "source", drain=True, frames_left=0, error=error)
        if self._ending is not None:
            self._retire()
        return False

    def _admit(self, stream: Stream, dials: Dials) -> None:
        self.nbytes = self._around.admit(self.name, stream, dials, self._options)

    def _end(
        self, reason: EndReason, *, drain: bool, frames_left: int | None = None, error: Exception | None = None
    ) -> None:
        """Ask for the end. A drop overtakes a drain, and nothing overtakes a drop.

        Args:
            reason, drain: as `remove`.
            frames_left: to take before a drain is complete; None takes those that wait now.
            error: why, if it is one.
        """
        with self._lock:
            overtakes = self._ending is not None and self._ending.drain and not drain
            if self._ending is None or overtakes:
                self._ending = Ending(reason, drain, error)
                # One more where a worker is taking a frame, which may be among those that wait or gone from them.
                waiting = self._source.waiting + self._taking
                self._frames_left = waiting if frames_left is None else frames_left
            ending = self._ending
        if not ending.drain:
            # Now, not with its next turn, for which it may wait: its sink is not called again.
            self._outlet.drop(ending.drop_reason)
            self._start_closing()
        self.wake()

    def _retire(self) -> None:
        """The last step: results still to come, then sink and source end by themselves."""
        with self._lock:
            if self._retired:
                return
            self._retired = True
            ending = self._ending
        assert ending is not None
        self._settings.close()
        if not ending.drain:
            self._outlet.drop(ending.drop_reason)
        self._runner.close(flush=ending.drain, reason=ending.drop_reason)
        self._outlet.finish()
        self._start_closing()

    def _start_closing(self) -> None:
        """Close the source, in a thread: it may take its time, and who ends a stream has none."""
        with self._lock:
            if self._source_closing:
                return
            self._source_closing = True
            # What it gives up as it closes is not its policy's.
            self._dropped_by_source = self._source.dropped
        closer = threading.Thread(target=self._close_source, name=f"rdn-close-{self.name}", daemon=True)
        try:
            closer.start()
        except RuntimeError:  # the system gives no thread: then whoever ends the stream waits
            self._close_source()

    def _close_source(self) -> None:
        try:
            if not self._source.close():
                self._troubles.bad("source_stuck", "the source's reader has not stopped yet; it ends by itself")
        except BaseException as error:
            self._troubles.bad("source_stuck", f"the source could not be closed: {error!r}", as_exception(error))
        self._end_part("source")

    def _end_part(self, part: str) -> None:
        with self._lock:
            self._open_parts.discard(part)
            finished = not self._open_parts
        if finished:
            self._finish()

    def _finish(self) -> None:
        """The account is complete: say so, once."""
        with self._lock:
            ending = self._ending
            if self._final is not None or ending is None:
                return
            self._account.close(self._source.captured, self._dropped_by_source, ending.drop_reason)
            final = self._final = self._snapshot(ended=True)
        self._around.ended(self)
        self._around.events.say("ended", self.name, f"ended: {final.end_reason}", ending.error, final)
        self._done.set()

    def _snapshot(self, *, ended: bool) -> StreamSnapshot:
        source, ending, frames, facts = self._source, self._ending, self._account.frames(), self._runner.facts
        last, began = self._account.last, self._turn_began
        dropped, waiting = frames.dropped, 0
        if not ended:
            # In this order: what came to the account or was dropped is among those that were captured.
            by_source = self._dropped_by_source if self._source_closing else source.dropped
            dropped = {**dropped, "source": by_source}
            waiting = max(source.captured - frames.taken - by_source, 0)
        return StreamSnapshot(
            name=self.name,
            state=self._state(ended),
            end_reason=None if ending is None else ending.reason,
            error=None if ending is None or ending.error is None else f"{ending.error!r}",
            dials=facts.dials,
            lowered=self._settings.lowered,
            nbytes=self.nbytes,
            frames_in=frames.out + sum(dropped.values()) + waiting + frames.inside,
            frames_out=frames.out,
            dropped=dropped,
            waiting=waiting,
            inside=frames.inside,
            doubtful=frames.doubtful,
            damaged=source.damaged,
            lost_packets=source.lost_packets,
            sessions=source.sessions,
            failures=source.failures,
            epochs=facts.epochs,
            ages=self._account.ages(),
            seconds=facts.seconds,
            last_age=None if last is None else last.age,
            last_result_time=None if last is None else last.time,
            turn_seconds=0.0 if began is None else max(self._around.clock() - began, 0.0),
            sink_seconds=self._outlet.sink_seconds,
            troubles=self._troubles.now,
        )

    def _state(self, ended: bool) -> State:
        if ended:
            return "ended"
        ending = self._ending
        if ending is None:
            return "running"
        return "draining" if ending.drain and not self._retired else "closing"
