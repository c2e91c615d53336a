"""The lines of one stream on their way out, and the account of them."""

from __future__ import annotations

import random
from collections import Counter, deque
from dataclasses import dataclass, field

from rdn_engine.media.frame_queue import Policy


@dataclass(frozen=True)
class OutputCounts:
    """Of one stream and one output. `put` is `written`, `waiting` and the sum of `dropped`, at every moment."""

    put: int = 0
    """Lines that the output was given, without those that are filtered"""
    written: int = 0
    """Lines that the file, the receiver or the broker has taken"""
    dropped: dict[str, int] = field(default_factory=dict)
    """Lines given up, by reason: "full" (no room), "refused" (the receiver will never take them), "removed" (the
    stream was forgotten with them), "closed" (the output was closed with them, or before them)"""
    waiting: int = 0
    """Lines that wait, or are being written"""
    filtered: int = 0
    """Lines that the output's filter left out"""


class Backoff:
    """When to try again: after a delay that doubles with every failure, varied at random so that many do not come back
    in one moment.
    """

    def __init__(self, first: float, longest: float) -> None:
        """first, longest: seconds."""
        self._first, self._longest = first, longest
        self._failures = 0
        self.until = 0.0
        """On the clock of `failed`"""

    def failed(self, now: float, after: float) -> None:
        """It was tried.

        Args:
            now: seconds on a clock that does not jump.
            after: seconds that were asked for; the longest delay bounds them.
        """
        delay = min(self._longest, self._first * 2.0 ** min(self._failures, 60))
        self._failures += 1
        self.until = now + max(delay * random.uniform(0.5, 1.0), min(after, self._longest))

    def worked(self) -> None:
        """It was tried, and is no longer held back."""
        self._failures, self.until = 0, 0.0


class Lane:
    """A bounded queue of lines. Whoever uses it holds the output's lock."""

    def __init__(self, stream: str, room: int, policy: Policy, backoff: Backoff) -> None:
        """Nothing waits yet.

        Args:
            stream: name.
            room: lines that may wait beside the batch, 1 or more.
            policy: what happens without room; whoever waits looks at `full`.
            backoff: of this stream's batch.
        """
        self.stream = stream
        self.backoff = backoff
        self.batch: tuple[bytes, ...] = ()
        """Lines that are being written, or to be tried again"""
        self.gone = False
        """Whether its stream has ended"""
        self.blocked = 0
        """Threads that wait for room"""
        self._room, self._policy = room, policy
        self._waiting: deque[bytes] = deque()
        self._put = self._written = self._filtered = 0
        self._dropped: Counter[str] = Counter()
        self._given_up: str | None = None
        """Why a batch that is being written is not to be tried again"""

    @property
    def full(self) -> bool:
        """Whether there is no room."""
        return len(self._waiting) >= self._room

    @property
    def empty(self) -> bool:
        """Whether no line is on its way."""
        return not (self._waiting or self.batch or self.blocked)

    def put(self, line: bytes) -> None:
        """Add a line, or drop one by the policy."""
        self._put += 1
        if self.full:
            self._dropped["full"] += 1
            if self._policy == "drop_latest":
                return
            self._waiting.popleft()
        self._waiting.append(line)

    def put_nowhere(self, reason: str) -> None:
        """Count a line that comes too late, as dropped for a reason."""
        self._put += 1
        self._dropped[reason] += 1

    def filter_out(self) -> None:
        """Count a line that the filter left out."""
        self._filtered += 1

    def take(self, most: int) -> tuple[bytes, ...]:
        """The batch that is to be written: the one that failed, or the oldest lines.

        Args:
            most: lines.
        """
        if not self.batch:
            self.batch = tuple(self._waiting.popleft() for _ in range(min(most, len(self._waiting))))
        return self.batch

    def finish(self, done: int, refused: int) -> None:
        """Count the first lines of the batch; the rest stays, unless it was given up meanwhile.

        Args:
            done: lines that are over.
            refused: those of them that were not written.
        """
        self.batch = self.batch[done:]
        self._written += done - refused
        if refused:
            self._dropped["refused"] += refused
        if self._given_up is not None:
            self.drop(self._given_up, writing=False)

    def drop(self, reason: str, *, writing: bool) -> None:
        """Give up what waits.

        Args:
            reason: to count it under.
            writing: whether the batch is being written now. It is not given up before that has failed.
        """
        count = len(self._waiting) + (0 if writing else len(self.batch))
        self._waiting.clear()
        if writing:
            self._given_up = reason
        else:
            self.batch = ()
        if count:
            self._dropped[reason] += count

    def counts(self) -> OutputCounts:
        """The account as it is now."""
        waiting = len(self._waiting) + len(self.batch)
        return OutputCounts(self._put, self._written, dict(self._dropped), waiting, self._filtered)
