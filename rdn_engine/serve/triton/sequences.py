"""The sequences of one model instance: a stream for each correlation id, from its START to its END or its last moment.

Triton tells a model when a sequence begins and when it ends, but not when it was given up: one that Triton reaps gets
no END, and a second START of a live id comes as any other. So each stream has a time to live here, and START always
begins anew. Whatever made a state, it has a number of its own, the session: a client that sees another one knows that
the window is not the one it was.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from rdn_engine.config import Dials
from rdn_engine.detector import Detector
from rdn_engine.errors import AdmissionRefused, FrameError, RDNError
from rdn_engine.frame import Frame, Image
from rdn_engine.results import Detections
from rdn_engine.serve.admission import MemoryBudget, StreamCost, stream_cost
from rdn_engine.serve.options import StreamOptions
from rdn_engine.serve.triton.options import TritonOptions
from rdn_engine.stream.base import Stream

_NO_QUEUE = StreamOptions(results=1)  # a request waits for its results itself


class Request(NamedTuple):
    """One of Triton's, of one sequence."""

    sequence: str | int
    """The correlation id; the number 5 is another one than the text '5'"""
    start: bool = False
    end: bool = False
    image: Image | None = None
    """[H, W, 3] RGB; None where the request only asks, keeps the sequence alive or ends it"""
    frame_index: int | None = None
    """Position in the source; None counts the frames of the session"""
    pts: float | None = None
    """Seconds on the source's clock; None where unknown"""
    pixel_aspect: float = 1.0
    """Width over height of a pixel"""


class Answer(NamedTuple):
    """What becomes of a request."""

    session: int = 0
    """Of the state that answered: another number is another state, later ones are larger; 0 with an error"""
    results: Sequence[Detections] = ()
    """Those that became ready"""
    error: Exception | None = None
    """Why there are none"""


@dataclass
class _Open:
    """A sequence that has a state."""

    stream: Stream
    session: int
    used: float


class Sequences:
    """The state of every sequence. One thread at a time."""

    def __init__(
        self,
        detector: Detector,
        options: TritonOptions,
        *,
        clock: Callable[[], float] = time.monotonic,
        wall_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        """Begin without sequences.

        Args:
            detector: shared by them.
            options: with their bounds and dials.
            clock: seconds, for the time to live; another one for tests.
            wall_ns: nanoseconds since 1970, from which sessions have their numbers, so that those of a server that was
                started again are others.

        Raises:
            ConfigError: for dials that the model does not have, or that no live stream can have.
            AdmissionRefused: where the byte budget has no room for one sequence.
        """
        self._detector, self._options, self._clock, self._wall_ns = detector, options, clock, wall_ns
        self._dials: Dials = detector.config.dials.turned(options.dials)
        self._budget = MemoryBudget(options.byte_budget)
        self._open: dict[str | int, _Open] = {}  # the one that was used longest ago comes first
        self._session = 0
        self._cost = self._cost_of_one()
        self._budget.reserve("one", self._cost)
        self._budget.release("one")

    @classmethod
    def load(cls, engines: Path, options: TritonOptions) -> Sequences:
        """Open an engine directory and warm it up.

        Args:
            engines: the directory.
            options: with backend, device, threads and rounds of warm-up.

        Raises:
            BundleError, BackendUnavailable, ConfigError: as `Detector.from_pretrained` and `__init__`.
        """
        detector = Detector.from_pretrained(
            engines, backend=options.backend, device=options.device, threads=options.threads,
            relation_precision=options.relation_precision, ring_precision=options.ring_precision,
        )  # fmt: skip
        sequences = cls(detector, options)
        sequences.warm_up(options.warm_up)
        return sequences

    def __len__(self) -> int:
        return len(self._open)

    @property
    def nbytes(self) -> int:
        """Bytes that the open sequences may hold."""
        return self._budget.taken

    def step(self, requests: Sequence[Request]) -> list[Answer]:
        """Answer a batch of requests, their frames encoded together where that is faster.

        Args:
            requests: in order. Of a sequence that has several, one is answered after the other.

        Returns:
            An answer for each. What fails for one is no other's:
            FrameError: the frame is no image, and the sequence is as it was.
            AdmissionRefused, ConfigError: there is no room for the sequence, and it has no state.
            Any other: a stage failed, and the sequence has no state any more. Its next frame begins a new session.
        """
        answers: list[Answer] = []
        while left := requests[len(answers) :]:
            names = [request.sequence for request in left]
            twice = (place for place, name in enumerate(names) if name in names[:place])
            answers += self._round(left[: next(twice, len(left))])
        return answers

    def _round(self, requests: Sequence[Request]) -> list[Answer]:
        """Answer requests of different sequences."""
        now = self._clock()
        self._expire(now)
        answers: dict[int, Answer] = {}
        pushed: dict[int, _Open] = {}
        frames: list[Frame] = []
        for place, request in enumerate(requests):
            try:
                one = self._of(request)
            except RDNError as error:
                answers[place] = Answer(error=error)
                continue
            one.used = now
            self._open[request.sequence] = self._open.pop(request.sequence)
            answers[place] = Answer(one.session)
            if request.image is not None:
                index = one.stream.accepted if request.frame_index is None else request.frame_index
                name = str(request.sequence)
                frames.append(Frame(request.image, index, request.pts, name, request.pixel_aspect))
                pushed[place] = one
        ready = self._detector.push_each([one.stream for one in pushed.values()], frames)
        for place, found in zip(pushed, ready, strict=True):
            answers[place] = self._answer(answers[place], requests[place].sequence, found)
        for place, request in enumerate(requests):
            if request.end and request.sequence in self._open:
                answers[place] = self._end(answers[place], request.sequence)
        return [answers[place] for place in range(len(requests))]

    def warm_up(self, rounds: int) -> None:
        """Push empty pictures through two sequences, and end them: memory is allocated, ways to encode are compared.

        Args:
            rounds: frames of each.

        Raises:
            RDNError: where a stage fails.
        """
        given = self._detector.config.input
        picture = np.zeros((given.shorter_side, given.longer_side, 3), np.uint8)
        names = ("warm-up 0", "warm-up 1")[: min(2, self._options.max_batch, self._options.max_sequences)]
        for number in range(rounds):
            last = number == rounds - 1
            for answer in self.step([Request(name, number == 0, last, picture) for name in names]):
                if answer.error is not None:
                    raise answer.error

    def close(self) -> None:
        """Give up every sequence."""
        for name in list(self._open):
            self._drop(name)

    def _of(self, request: Request) -> _Open:
        """The state of a sequence, a new one where it begins or has none."""
        if request.start:
            self._drop(request.sequence)
        return self._open.get(request.sequence) or self._admit(request.sequence)

    def _cost_of_one(self) -> StreamCost:
        config = self._detector.config
        features = 0 if config.alone or config.cosine_score else config.relation.dim
        with self._detector.open_stream(self._dials) as stream:
            most_boxes = config.detection.max_detections
            cost = stream_cost(stream, self._dials, most_boxes, _NO_QUEUE, features=features)
        return replace(cost, thread=0)

    def _admit(self, name: str | int) -> _Open:
        most = self._options.max_sequences
        if len(self._open) >= most:
            raise AdmissionRefused(
                f"sequence {name!r} is one more than the {most} that may be open: end one, or try again after "
                f"{self._options.idle_seconds:g} s, when idle ones are forgotten",
                wanted=self._cost.total,
                left=0,
            )
        session = max(self._session + 1, self._wall_ns())
        self._budget.reserve(_account(name, session), self._cost)
        try:
            stream = self._detector.open_stream(self._dials, source_id=str(name))
        except BaseException:
            self._budget.release(_account(name, session))
            raise
        self._session = session
        self._open[name] = _Open(stream, session, self._clock())
        return self._open[name]

    def _answer(self, answer: Answer, name: str | int, found: list[Detections] | Exception) -> Answer:
        if not isinstance(found, Exception):
            return answer._replace(results=found)
        if not isinstance(found, FrameError):
            self._drop(name)
        return Answer(error=found)

    def _end(self, answer: Answer, name: str | int) -> Answer:
        try:
            return answer._replace(results=[*answer.results, *self._open[name].stream.flush()])
        except Exception as error:
            return Answer(error=error)
        finally:
            self._drop(name)

    def _expire(self, now: float) -> None:
        for name, one in list(self._open.items()):
            if now - one.used < self._options.idle_seconds:
                return
            self._drop(name)

    def _drop(self, name: str | int) -> None:
        one = self._open.pop(name, None)
        if one is not None:
            one.stream.close()
            self._budget.release(_account(name, one.session))


def _account(name: str | int, session: int) -> str:
    """What the budget knows a sequence by: its id alone may be text or a number that look alike."""
    return f"{name} ({session})"
