"""Streams on the host that take a frame each in one call, encoded as one batch where that is faster."""

from __future__ import annotations

import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Sequence

import numpy as np

from rdn_engine.frame import Frame, Image
from rdn_engine.host.features import EncodedFrame
from rdn_engine.host.model import HostModel
from rdn_engine.host.stream import HostStream
from rdn_engine.kernels.cpu import Float
from rdn_engine.results import Detections
from rdn_engine.stream.batch import StreamBatch
from rdn_engine.stream.timings import Timings

TRIALS = 3
"""Rounds that each way of encoding is timed before the faster one is kept."""


class EncoderCalls:
    """Whether the frames of several streams are encoded in one call or one by one: what this model found faster here.

    That depends on the model and the processor. Both give the same encodings up to the backend's rounding, so the first
    rounds of more than one frame time them in turns.
    """

    def __init__(self) -> None:
        self._seconds: dict[bool, list[float]] = {True: [], False: []}

    @property
    def together(self) -> bool | None:
        """Whether frames of one network input are encoded in one call; None while both ways are timed."""
        if min(map(len, self._seconds.values())) < TRIALS:
            return None
        return statistics.median(self._seconds[True]) < statistics.median(self._seconds[False])

    @property
    def next_trial(self) -> bool:
        """The way that is timed next."""
        return len(self._seconds[True]) <= len(self._seconds[False])

    def took(self, together: bool, seconds: float) -> None:
        """A round of several frames was timed.

        Args:
            together: which way.
            seconds: of one of its frames.
        """
        self._seconds[together].append(seconds)


class HostStreamBatch(StreamBatch[HostStream]):
    """As every StreamBatch. Frames may have several sizes; those of one network input can be encoded in one call."""

    def __init__(self, model: HostModel, calls: EncoderCalls, streams: Sequence[HostStream]) -> None:
        """Join streams.

        Args:
            model: theirs.
            calls: of the model, shared by all its batches.
            streams: one or more.
        """
        super().__init__(streams)
        self._model, self._calls = model, calls

    def push(
        self, frames: Sequence[Image | Frame | None], pts: Sequence[float | None] | None = None
    ) -> list[list[Detections]]:
        times = self._times(frames, pts)
        accepted = {
            place: self._streams[place].accept(frame, when)
            for place, (frame, when) in enumerate(zip(frames, times, strict=True))
            if frame is not None
        }
        roles = {place: self._streams[place].role(image, info) for place, (image, info) in accepted.items()}
        inputs = {
            place: self._streams[place].preprocess(image, info)
            for place, (image, info) in accepted.items()
            if roles[place] == "encoded"
        }
        encoded = self._encode(inputs)
        # Whatever may fail for one stream and leave its frame out comes before any stream takes its own.
        for place, (_, info) in accepted.items():
            self._streams[place].finish_before(info)
        for place, (image, info) in accepted.items():
            self._streams[place].append(encoded.get(place), info, roles[place], image)
        self._each(HostStream.detect_due)
        return [stream.take_ready() for stream in self._streams]

    def flush(self) -> list[list[Detections]]:
        self._each(HostStream.finish)
        return [stream.take_ready() for stream in self._streams]

    def _each(self, step: Callable[[HostStream], None]) -> None:
        """Do a step of every stream, those behind one that fails too; then raises the first error, and what was
        computed waits in its stream.
        """
        failed: list[tuple[int, Exception]] = []
        for place, stream in enumerate(self._streams):
            try:
                step(stream)
            except Exception as error:
                failed.append((place, error))
        if failed:
            first = failed[0][1]
            first.add_note(f"in stream {', '.join(str(place) for place, _ in failed)} of the batch")
            raise first

    def _encode(self, inputs: dict[int, Float]) -> dict[int, EncodedFrame]:
        """The frame of each place from its network input."""
        groups: dict[tuple[tuple[int, ...], tuple[int, int]], list[int]] = defaultdict(list)
        for place, network in inputs.items():
            groups[network.shape, self._streams[place].num_proposals].append(place)
        together = self._calls.together
        timed = together is None and len(groups) < len(inputs)
        if together is None:
            together = self._calls.next_trial
        start = time.perf_counter()
        encoded: dict[int, EncodedFrame] = {}
        for places in groups.values():
            for part in [places] if together else [[place] for place in places]:
                encoded.update(zip(part, self._encode_part(part, inputs), strict=True))
        if timed:
            self._calls.took(together, (time.perf_counter() - start) / len(inputs))
        return encoded

    def _encode_part(self, places: list[int], inputs: dict[int, Float]) -> list[EncodedFrame]:
        """One call of the encoder; each stream is charged its share of the time."""
        first, spent = self._streams[places[0]], Timings()
        spent.start()
        images = np.stack([inputs[place] for place in places])
        frames = self._model.encoder(images, *first.num_proposals, spent.lap)
        for place in places:
            self._streams[place].timings.add(spent, 1 / len(places))
        return frames
