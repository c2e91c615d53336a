"""The dials of one served stream: what was asked for, and what its latency budget makes of it."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future

from rdn_engine.config import Dials
from rdn_engine.errors import StreamClosed
from rdn_engine.serve.events import Events
from rdn_engine.serve.latency import LatencyBudget
from rdn_engine.serve.runner import StreamRunner
from rdn_engine.stream.base import Stream


class Settings:
    """Asked for by any thread, in effect once the worker applies them, between two frames."""

    def __init__(
        self,
        name: str,
        runner: StreamRunner,
        events: Events,
        admit: Callable[[Stream, Dials], None],
        latency_seconds: float | None,
    ) -> None:
        """Begin with what the stream was opened with.

        Args:
            name: of the stream, in the events.
            runner: of the stream.
            events: where changes are told.
            admit: says whether there is room for what other dials hold.
            latency_seconds: that a result may be old; None for no budget.
        """
        self._name, self._runner, self._events, self._admit = name, runner, events, admit
        self._seconds = latency_seconds
        self._budget = self._new_budget(runner.facts.dials)
        self._lock = threading.Lock()
        self._asked: deque[tuple[Dials, Future[None]]] = deque()
        self._closed = False
        self._stride, self._frame = 1, 0
        self.lowered = 0
        """Steps of the latency budget that are in effect"""

    def ask(self, dials: Dials) -> Future[None]:
        """Ask for other dials.

        Args:
            dials: as `Stream.dials` takes them.

        Returns:
            Done when they are in effect, or refused.

        Raises:
            StreamClosed: after `close`.
        """
        asked: Future[None] = Future()
        with self._lock:
            if self._closed:
                raise StreamClosed(f"stream {self._name!r} has ended; add it again with these dials")
            self._asked.append((dials, asked))
        return asked

    def aged(self, age: float) -> None:
        """A result came to the sink.

        Args:
            age: seconds since its frame arrived.
        """
        if self._budget is not None:
            self._budget.see(age, self._runner.inside)

    def apply(self) -> None:
        """Put in effect what was asked for and what the budget wants; the worker's."""
        while True:
            with self._lock:
                if not self._asked:
                    break
                dials, asked = self._asked.popleft()
            try:
                self._runner.turn(dials, self._admit)
            except Exception as error:
                asked.set_exception(error)
                # Whoever asked may no longer wait.
                self._events.say("dials_refused", self._name, f"dials stay as they are: {error}", error)
                continue
            budget = self._new_budget(dials)
            if budget is not None:
                budget.settle(self._runner.inside)  # before results come to it, from another thread
            self._budget, self.lowered, self._stride = budget, 0, 1
            self._events.say("dials", self._name, f"dials are {dials}")
            asked.set_result(None)
        if self._budget is not None:
            wanted = self._budget.level
            while self.lowered != wanted:
                self._step(self._budget, 1 if self.lowered < wanted else -1)

    def takes(self) -> bool:
        """Whether the next frame is one of those that are detected on; the worker's, once for each frame."""
        self._frame += 1
        return self._frame % self._stride == 0

    def close(self) -> None:
        """Refuse what was asked for and is not in effect."""
        with self._lock:
            self._closed = True
            asked, self._asked = self._asked, deque()
        for _, future in asked:
            future.set_exception(StreamClosed(f"stream {self._name!r} has ended"))

    def _step(self, budget: LatencyBudget, by: int) -> None:
        """One step down or up, and its event."""
        level = self.lowered + by
        rung, lower = budget.rungs[level], budget.rungs[max(level, self.lowered)]
        # What lower settings hold was admitted with the others, which stay theirs, so that they can come back.
        self._runner.turn(rung.dials, lambda stream, dials: None)
        self.lowered, self._stride = level, rung.stride
        if by > 0:
            self._events.say("lowered", self._name, f"results are later than {self._seconds:g} s: {lower.change}")
        else:
            self._events.say("restored", self._name, f"results are early enough again; taken back: {lower.change}")

    def _new_budget(self, dials: Dials) -> LatencyBudget | None:
        if self._seconds is None:
            return None
        return LatencyBudget(self._seconds, dials, self._runner.fills_between)
