"""Streams on the device whose frames are encoded together, which is cheaper than one after the other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rdn_engine.config import Dials
from rdn_engine.device.encoder_queue import EncoderQueue
from rdn_engine.device.gpu import DEFAULT_STREAM
from rdn_engine.device.model import DeviceModel
from rdn_engine.device.results import DeviceDetections
from rdn_engine.device.stream import DeviceStream
from rdn_engine.results import Detections
from rdn_engine.stream.batch import StreamBatch


class DeviceStreamBatch(StreamBatch[DeviceStream]):
    """As every StreamBatch, and all frames of a round have one size: FrameError otherwise."""

    def __init__(self, model: DeviceModel, dials: Dials, capacity: Dials, source_ids: Sequence[str]) -> None:
        self._model = model
        with model.gpu.current():
            self._encoders = EncoderQueue(model, len(source_ids))
        super().__init__(
            [
                DeviceStream(model, dials, capacity, source_id, self._encoders, place)
                for place, source_id in enumerate(source_ids)
            ]
        )

    @property
    def nbytes(self) -> int:
        return self._encoders.nbytes + super().nbytes

    def push(self, frames: Sequence[Any | None], pts: Sequence[float | None] | None = None) -> list[list[Detections]]:
        found = self._push(frames, pts, DEFAULT_STREAM)
        # One wait, at the end.
        return [one.on_host(ready) for one, ready in zip(self._streams, found, strict=True)]

    def push_device(
        self,
        frames: Sequence[Any | None],
        pts: Sequence[float | None] | None = None,
        stream: int = DEFAULT_STREAM,
    ) -> list[list[DeviceDetections]]:
        """As `push`, without a wait and without links; results stay on the device.

        Args:
            frames: one for each stream, all of one size, as `DeviceStream.push_device` takes them; None where a stream
                has no frame now.
            pts: seconds of each frame; None where unknown.
            stream: address of the cudaStream_t that fills the frames of the device.

        Returns:
            What became ready of each stream.

        Raises:
            ConfigError: where the dials link boxes, or for another number of frames than there are streams.
            FrameError, StreamClosed: as `push`.
        """
        self._streams[0].check_unlinked()
        return [[one for one in ready if one is not None] for ready in self._push(frames, pts, stream)]

    def _push(
        self, frames: Sequence[Any | None], pts: Sequence[float | None] | None, stream: int
    ) -> list[list[DeviceDetections | None]]:
        times = self._times(frames, pts)
        encoders, gpu = self._encoders, self._model.gpu
        with gpu.current(), gpu.range("push"):
            encoders.begin()
            taken = [
                None if frame is None else one.take(frame, when, stream)
                for one, frame, when in zip(self._streams, frames, times, strict=True)
            ]
            if any(frame is not None for frame in taken):
                encoders.run()
            return [[] if frame is None else one.add(frame) for one, frame in zip(self._streams, taken, strict=True)]

    def flush_device(self) -> list[list[DeviceDetections]]:
        """As `flush`, without a wait and without links; ConfigError where the dials have them."""
        return [stream.flush_device() for stream in self._streams]
