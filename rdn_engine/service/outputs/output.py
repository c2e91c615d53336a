"""The queue in front of a writer: a lane for each stream, one thread, an account that always adds up."""

from __future__ import annotations

import logging
import threading
import time
import traceback
from collections import Counter, deque
from collections.abc import Callable, Iterable
from typing import Any, Literal

from rdn_engine.lines import encode_line
from rdn_engine.process import Home
from rdn_engine.service.outputs.lane import Backoff, Lane, OutputCounts
from rdn_engine.service.outputs.settings import OutputOptions
from rdn_engine.service.outputs.writer import Attempt, Writer

OutputTrouble = Literal["failing", "refused", "recovered"]
"""Lines cannot be written and are tried again; a line will never be taken; neither is so any more"""

_log = logging.getLogger("rdn_engine.service")


class Output:
    """One place where lines go. Streams `put` from threads of their own; one thread writes, a batch of each stream in
    turn. What fails is tried again, unless the receiver says that it never takes it; meanwhile the streams' policy
    decides, for each of them alone.

    Of every line that was put exactly one thing is true: it was written, it waits, or it was dropped for a reason.
    """

    def __init__(
        self,
        name: str,
        writer: Writer,
        options: OutputOptions,
        on_trouble: Callable[[OutputTrouble, str], None] = lambda kind, message: None,
    ) -> None:
        """Start the thread.

        Args:
            name: of the output, for messages.
            writer: is used by the thread, and closed by it.
            options: of the queues.
            on_trouble: called in the thread when trouble begins, and with "recovered" when all is well, with a message
                for people. It must neither raise nor wait for this output.
        """
        self.name = name
        self._home = Home(f"output {name!r}")
        self._writer, self._options, self._on_trouble = writer, options, on_trouble
        self._changed = threading.Condition()
        self._lanes: dict[str, Lane] = {}
        self._leaving: list[Lane] = []
        """Of streams that have ended, with lines that have not"""
        self._turns: deque[Lane] = deque()
        """Both, in the order in which they are served"""
        self._everywhere = self._backoff()
        self._troubles: dict[Lane | None, str] = {}
        """Of a lane; None is the whole output"""
        self._news: list[tuple[OutputTrouble, str]] = []
        self._forgotten: list[str] = []
        self._past: Counter[str] = Counter()
        self._past_dropped: Counter[str] = Counter()
        """Of lanes that are gone"""
        self._closing = self._abandoned = False
        self._current: Lane | None = None
        self._thread = threading.Thread(target=self._run, name=f"output {name}", daemon=True)
        self._thread.start()

    def put(self, stream: str, line: dict[str, Any]) -> None:
        """Add a line. Without room: by the policy; `wait` waits for room, for `forget` or for `close`.

        Args:
            stream: name of the stream that it is of.
            line: a result (`Detections.to_dict`), with whatever else JSON can hold.

        Raises:
            RDNError: in a process that was forked from the output's.
        """
        self._home.check()
        wanted = self._options.select(line)
        data = None if wanted is None else encode_line(wanted)
        with self._changed:
            lane = self._lanes.get(stream)
            if lane is None:
                lane = Lane(stream, self._options.room, self._options.policy, self._backoff())
                self._lanes[stream] = lane
                self._turns.append(lane)
            if data is None:
                lane.filter_out()
                return
            if self._options.policy == "wait":
                lane.blocked += 1
                self._changed.wait_for(lambda: self._closing or lane.gone or not lane.full)
                lane.blocked -= 1
            if self._closing or lane.gone:
                lane.put_nowhere("closed" if self._closing else "removed")
                self._sweep()
                self._changed.notify_all()
                return
            lane.put(data)
            self._changed.notify_all()

    def counts(self) -> dict[str, OutputCounts]:
        """The account of each stream, by its name, at one moment. A stream that was forgotten is in it until its last
        line is over, or the name is used again.
        """
        with self._changed:
            return {lane.stream: lane.counts() for lane in (*self._leaving, *self._lanes.values())}

    def totals(self) -> OutputCounts:
        """The sum over all streams that there are and were: it never decreases but for `waiting`."""
        with self._changed:
            numbers, dropped = Counter(self._past), Counter(self._past_dropped)
            for lane in (*self._leaving, *self._lanes.values()):
                _add(numbers, dropped, lane.counts())
        return OutputCounts(numbers["put"], numbers["written"], dict(dropped), numbers["waiting"], numbers["filtered"])

    @property
    def trouble(self) -> str | None:
        """Why lines are not written; None while they are."""
        with self._changed:
            return next(reversed(self._troubles.values()), None)

    def forget(self, stream: str, *, drop: bool = False) -> OutputCounts:
        """A stream has ended. Its lane goes when it is empty; a stream of the same name has another one.

        Args:
            stream: name; one that has put nothing is nothing to forget.
            drop: give up what waits, as "removed", except a batch that is being written now.

        Returns:
            Its account now.
        """
        with self._changed:
            lane = self._lanes.pop(stream, None)
            if lane is None:
                return OutputCounts()
            lane.gone = True
            if drop:
                lane.drop("removed", writing=lane is self._current)
            self._leaving.append(lane)
            self._sweep()
            self._changed.notify_all()
            return lane.counts()

    def close(self, *, drain: bool, deadline_s: float) -> bool:
        """End it, within a time, whatever the writer does. What is put from now on is dropped as "closed".

        Args:
            drain: write what waits first; otherwise it is dropped, but for a batch that is being written now.
            deadline_s: seconds, 0 or more. What is not written then is dropped.

        Returns:
            Whether nothing that waited was dropped, and the thread has ended. In a process that was forked from the
            output's it does nothing.
        """
        if not self._home.here:
            return True
        end = time.monotonic() + deadline_s
        with self._changed:
            self._closing = True
            before = self._closed_lines()
            self._everywhere.until = 0.0  # who is to end soon does not wait for the next try
            for lane in self._turns:
                lane.backoff.until = 0.0
                if not drain:
                    lane.drop("closed", writing=lane is self._current)
            self._changed.notify_all()
        # The last part of the time is for a writer that is told to stop.
        self._join(end - time.monotonic() - min(0.5, deadline_s / 4))
        with self._changed:
            self._abandoned = True
            for lane in self._turns:
                lane.drop("closed", writing=False)
            whole = self._closed_lines() == before
            self._changed.notify_all()
        self._writer.stop()
        self._join(end - time.monotonic())
        return whole and not self._thread.is_alive()

    def _closed_lines(self) -> int:
        lanes = (*self._leaving, *self._lanes.values())
        return self._past_dropped["closed"] + sum(lane.counts().dropped.get("closed", 0) for lane in lanes)

    def _join(self, seconds: float) -> None:
        if threading.current_thread() is not self._thread:
            self._thread.join(max(0.0, seconds))

    def _backoff(self) -> Backoff:
        return Backoff(self._options.first_delay, self._options.longest_delay)

    def _run(self) -> None:
        while (turn := self._next()) is not None:
            lane, batch = turn
            try:
                attempt = self._writer.write(lane.stream, batch)
            except Exception as error:
                # The message is not shown: whose it is, and what it quotes, is not known.
                place = traceback.extract_tb(error.__traceback__)[-1]
                attempt = Attempt(0, message=f"{type(error).__name__} at {place.filename}:{place.lineno}")
            with self._changed:
                self._current = None
                self._turns.remove(lane)
                self._turns.append(lane)
                self._account(lane, batch, attempt)
                self._sweep()
                self._changed.notify_all()
        self._tell()
        try:
            self._writer.close()
        except Exception as error:
            _log.warning("output %r was not closed well: %s", self.name, type(error).__name__)

    def _next(self) -> tuple[Lane, tuple[bytes, ...]] | None:
        """The next batch to write; None where there is none any more. Waits for one, and tells what is to be told."""
        while True:
            self._tell()
            with self._changed:
                due, wait = self._due(time.monotonic())
                if self._abandoned or (self._closing and all(lane.empty for lane in self._turns)):
                    return None
                if due is not None:
                    self._current = due
                    batch = due.take(self._options.batch)
                    self._changed.notify_all()  # there is room
                    return due, batch
                if not self._news and not self._forgotten:
                    self._changed.wait(wait)

    def _due(self, now: float) -> tuple[Lane | None, float | None]:
        """The lane whose turn it is; without one the seconds until there may be, None for until something changes."""
        soonest: float | None = None
        first: dict[str, Lane] = {}
        for lane in (*self._leaving, *self._lanes.values()):
            first.setdefault(lane.stream, lane)
        for lane in self._turns:
            # A stream that came again waits for the last lines of those before it, as they go to one place.
            if lane.empty or lane is not first[lane.stream]:
                continue
            until = max(lane.backoff.until, self._everywhere.until)
            if until <= now:
                return lane, None
            soonest = until if soonest is None else min(soonest, until)
        return None, None if soonest is None else soonest - now

    def _account(self, lane: Lane, batch: tuple[bytes, ...], attempt: Attempt) -> None:
        if not self._abandoned:
            lane.finish(attempt.done, attempt.refused)
        message = f"output {self.name!r}, stream {lane.stream!r}: {attempt.message}"
        if attempt.done < len(batch):
            held = self._everywhere if attempt.everywhere else lane.backoff
            held.failed(time.monotonic(), attempt.after)
            self._bad(None if attempt.everywhere else lane, "failing", message)
            return
        self._everywhere.worked()
        lane.backoff.worked()
        over = [None] if attempt.refused else [None, lane]
        self._over(over)
        if attempt.refused:
            self._bad(lane, "refused", message)

    def _bad(self, key: Lane | None, kind: OutputTrouble, message: str) -> None:
        if not self._troubles:
            self._news.append((kind, message))
        self._troubles.pop(key, None)
        self._troubles[key] = message  # the last one is the newest

    def _over(self, keys: Iterable[Lane | None]) -> None:
        was = bool(self._troubles)
        for key in keys:
            self._troubles.pop(key, None)
        if was and not self._troubles:
            self._news.append(("recovered", f"output {self.name!r} works again"))

    def _sweep(self) -> None:
        """Let go of the lanes whose streams have ended, and whose lines have too."""
        for lane in [lane for lane in self._leaving if lane.empty and lane is not self._current]:
            self._leaving.remove(lane)
            self._turns.remove(lane)
            _add(self._past, self._past_dropped, lane.counts())
            self._forgotten.append(lane.stream)
            self._over([lane])

    def _tell(self) -> None:
        """Say what happened, without the lock."""
        with self._changed:
            news, self._news = self._news, []
            forgotten, self._forgotten = self._forgotten, []
        for stream in forgotten:
            self._writer.forget(stream)
        for kind, message in news:
            try:
                self._on_trouble(kind, message)
            except Exception:
                _log.exception("the listener to output %r failed", self.name)


def _add(numbers: Counter[str], dropped: Counter[str], counts: OutputCounts) -> None:
    for name in ("put", "written", "waiting", "filtered"):
        numbers[name] += getattr(counts, name)
    dropped.update(counts.dropped)
