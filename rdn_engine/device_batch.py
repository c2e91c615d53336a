"""Streams on the device whose frames are encoded together, which is cheaper than one after the other."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

from rdn_engine.config import Dials
from rdn_engine.device_results import DeviceDetections
from rdn_engine.device_stream import DeviceStages, DeviceStream, Lane
from rdn_engine.errors import ConfigError
from rdn_engine.gpu import DEFAULT_STREAM
from rdn_engine.results import Detections


class StreamBatch:
    """`push` takes one frame of each stream, or None where it has none now. All have the same dials and frame size."""

    def __init__(self, stages: DeviceStages, dials: Dials, capacity: Dials, source_ids: Sequence[str]) -> None:
        if not source_ids:
            raise ConfigError("a batch of 0 streams; wanted one or more")
        self._stages = stages
        with stages.gpu.current():
            self._lane = Lane(stages, len(source_ids))
        self._streams = [
            DeviceStream(stages, dials, capacity, source_id, self._lane, place)
            for place, source_id in enumerate(source_ids)
        ]

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
        return self._lane.nbytes + sum(stream.nbytes for stream in self._streams)

    def push(self, frames: Sequence[Any | None], pts: Sequence[float | None] | None = None) -> list[list[Detections]]:
        """What became ready of each stream. One wait, at the end. Raises as `Stream.push`, and FrameError for frames of
        several sizes; then no stream has taken its frame.
        """
        found = self._push(frames, pts, DEFAULT_STREAM)
        return [one.on_host(ready) for one, ready in zip(self._streams, found, strict=True)]

    def push_device(
        self,
        frames: Sequence[Any | None],
        pts: Sequence[float | None] | None = None,
        stream: int = DEFAULT_STREAM,
    ) -> list[list[DeviceDetections]]:
        """As `DeviceStream.push_device`, of each stream."""
        self._streams[0].check_unlinked()
        return [[one for one in ready if one is not None] for ready in self._push(frames, pts, stream)]

    def _push(
        self, frames: Sequence[Any | None], pts: Sequence[float | None] | None, stream: int
    ) -> list[list[DeviceDetections | None]]:
        pts = [None] * len(frames) if pts is None else pts
        if not len(frames) == len(pts) == len(self._streams):
            raise ConfigError(
                f"got {len(frames)} frames and {len(pts)} times; this batch has {len(self._streams)} streams"
            )
        lane, gpu = self._lane, self._stages.gpu
        with gpu.current(), gpu.range("push"):
            lane.begin()
            taken = [
                None if frame is None else one.take(frame, when, stream)
                for one, frame, when in zip(self._streams, frames, pts, strict=True)
            ]
            if any(frame is not None for frame in taken):
                lane.run()
            return [[] if frame is None else one.add(frame) for one, frame in zip(self._streams, taken, strict=True)]

    def flush(self) -> list[list[Detections]]:
        return [stream.flush() for stream in self._streams]

    def flush_device(self) -> list[list[DeviceDetections]]:
        return [stream.flush_device() for stream in self._streams]

    def close(self) -> None:
        for stream in self._streams:
            stream.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
