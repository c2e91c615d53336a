"""Several streams that take a frame each in one call, so that a machine can encode the frames together."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Generic, NoReturn, Self, TypeVar

from rdn_engine.config import Dials
from rdn_engine.errors import ConfigError, RDNError
from rdn_engine.results import Detections
from rdn_engine.stream.base import Stream

StreamT_co = TypeVar("StreamT_co", bound=Stream, covariant=True)


class StreamBatch(ABC, Generic[StreamT_co]):
    """One stream a source, all with the same dials. One thread at a time."""

    def __init__(self, streams: Sequence[StreamT_co]) -> None:
        if not streams:
            raise ConfigError("a batch of 0 streams; wanted one or more")
        self._streams = streams

    def __len__(self) -> int:
        return len(self._streams)

    @property
    def streams(self) -> Sequence[StreamT_co]:
        """The streams, in the order of their names: for counters, epochs and timings. Push through the batch."""
        return tuple(self._streams)

    @property
    def dials(self) -> Dials:
        """Settings in effect in every stream; as `Stream.dials`."""
        return self._streams[0].dials

    @dials.setter
    def dials(self, dials: Dials) -> None:
        for stream in self._streams:
            stream.dials = dials

    @property
    def nbytes(self) -> int:
        """Bytes that the streams hold; as `Stream.nbytes`."""
        return sum(stream.nbytes for stream in self._streams)

    @abstractmethod
    def push(self, frames: Sequence[Any | None], pts: Sequence[float | None] | None = None) -> list[list[Detections]]:
        """Take the next frame of each stream.

        Args:
            frames: one for each stream, as `Stream.push` takes them; None where a stream has no frame now.
            pts: seconds of each frame; None where unknown.

        Returns:
            What became ready of each stream.

        Raises:
            ConfigError: for another number of frames than there are streams.
            FrameError, StreamClosed: as `Stream.push`; then no stream has taken its frame.

        Where a stage fails (MemoryError, a backend's error) while frames are encoded, or while results that earlier
        rounds left are computed, no stream has taken its frame either. Where it fails for the results of this round, on
        the host every stream has; what was computed, and what is tried again, comes with the next push or flush. The
        `accepted` of `streams` tells the two apart. A stream whose step fails for good does not hold up the others if
        it gets None.
        """

    def flush(self) -> list[list[Detections]]:
        """End the epoch of every stream; as `Stream.flush`."""
        return [stream.flush() for stream in self._streams]

    def close(self) -> None:
        """Give up what is pending in every stream."""
        for stream in self._streams:
            stream.close()

    def __reduce__(self) -> NoReturn:
        raise RDNError("streams cannot be pickled: their windows are of this process; open them where they are to run")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _times(self, frames: Sequence[Any | None], pts: Sequence[float | None] | None) -> Sequence[float | None]:
        """`pts`, or None for each frame, where there are as many as streams and all are open."""
        for stream in self._streams:
            stream.check_open()
        for name, given in (("frames", frames), ("pts", pts)):
            if not hasattr(given, "__len__") and not (given is None and name == "pts"):
                raise ConfigError(f"{name} is {given!r:.80}; wanted a list with one for each of {len(self)} streams")
        times = [None] * len(frames) if pts is None else pts
        if not len(frames) == len(times) == len(self):
            given = "" if pts is None else f" and {len(times)} times"
            raise ConfigError(f"got {len(frames)} frames{given}; this batch has {len(self)} streams")
        return times
