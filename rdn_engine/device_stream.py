"""A stream whose frames live on the device."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rdn_engine.config import Dials, RDNConfig
from rdn_engine.device_encoder import DeviceEncoder, DeviceGraphs
from rdn_engine.device_frames import DeviceImage, Intake
from rdn_engine.device_relation import DeviceRelation
from rdn_engine.device_results import DeviceDetections, Records
from rdn_engine.device_steps import DeviceSteps
from rdn_engine.device_window import DeviceWindow
from rdn_engine.errors import ConfigError, FrameError
from rdn_engine.gpu import DEFAULT_STREAM, Gpu, Program
from rdn_engine.results import Detections
from rdn_engine.stream import About, Image, Stream, Taken

if TYPE_CHECKING:
    from rdn_engine.video import Frame

KEPT = 8
"""Results that stay on the device after those of the latest call."""


@dataclass(frozen=True)
class DeviceStages:
    """What streams share: nothing here changes from frame to frame."""

    gpu: Gpu
    config: RDNConfig
    graphs: DeviceGraphs
    relation: DeviceRelation


class Lane:
    """A queue and the encoder on it, for the frame size of the moment: of one stream, or of a batch of them."""

    def __init__(self, stages: DeviceStages, batch: int) -> None:
        self._stages, self._batch = stages, batch
        self.queue = stages.gpu.queue()
        self._encoder: DeviceEncoder | None = None
        self._program: Program | None = None
        self._round: tuple[int, int] | None = None

    def begin(self) -> None:
        """Of a batch: whatever size its frames have, they have it together."""
        self._round = None

    def encoder(self, size: tuple[int, int], num_reference: int, num_support: int) -> DeviceEncoder:
        """Made anew for another size and for more or fewer proposals, which waits until the last one is idle."""
        if self._batch > 1 and self._round not in (None, size):
            raise FrameError(f"got a frame of {size} pixels after one of {self._round}; a batch wants one size")
        self._round = size
        made = self._encoder
        if made is None or (made.size, made.num_reference) != (size, num_reference):
            self.queue.wait()
            stages = self._stages
            self._program = None
            self._encoder = made = DeviceEncoder(
                stages.gpu, self.queue, stages.config, stages.graphs, size, self._batch, num_reference, num_support
            )
        return made

    @property
    def nbytes(self) -> int:
        return 0 if self._encoder is None else self._encoder.nbytes

    def run(self) -> None:
        """Encode a batch, where it is not part of a stream's own program."""
        assert self._encoder is not None
        if not self._encoder.capturable:
            self._encoder.run()
            return
        if self._program is None:
            self._program = Program(self.queue, self._encoder.run)
        self._program()


class DeviceStream(Stream):
    """As every Stream; results may stay on the device (`push_device`). `push` waits for its results at its end, and
    nothing else waits while frames keep their size and dials stay; the first frames of each setting run uncaptured.
    """

    def __init__(
        self,
        stages: DeviceStages,
        dials: Dials,
        capacity: Dials,
        source_id: str,
        lane: Lane | None = None,
        place: int = 0,
    ) -> None:
        super().__init__(stages.config, dials, capacity, source_id)
        self._stages, self._place = stages, place
        self._encodes = lane is None
        gpu = stages.gpu
        with gpu.current():
            self._lane = Lane(stages, 1) if lane is None else lane
            self._queue = self._lane.queue if lane is None else gpu.queue()
            self._intake = Intake(gpu, self._lane.queue)
            self._window = DeviceWindow(gpu, self._queue, stages.config.relation, capacity, stages.relation.kind)
            most = stages.config.detection.max_detections
            self._records = Records(gpu, self._queue, most, capacity.window + 2 + KEPT)
        self._encoder: DeviceEncoder | None = None
        self._steps: DeviceSteps | None = None
        self._number = -1
        self._deferred = False  # the newest frame is appended together with the next result, in one program
        self._caller = DEFAULT_STREAM
        self._ready: list[DeviceDetections] = []

    @property
    def nbytes(self) -> int:
        """Bytes on the device: for one frame size and one dial setting, from the first frame that has them."""
        steps = 0 if self._steps is None else self._steps.nbytes
        encoder = self._lane.nbytes if self._encodes else 0
        return self._window.nbytes + self._records.nbytes + self._intake.nbytes + encoder + steps

    def push(self, frame: Any, pts: float | None = None) -> list[Detections]:
        return [found.cpu() for found in self.push_device(frame, pts)]

    def push_device(
        self, frame: Image | Frame | Any, pts: float | None = None, stream: int = DEFAULT_STREAM
    ) -> list[DeviceDetections]:
        """As `push`, without a wait. frame: an array of the host, as ever, or uint8 [H, W, 3] RGB on the device with
        `__cuda_array_interface__` or `__dlpack__`, or NV12.

        stream: address of the cudaStream_t that fills a frame of the device: the frame is read after what that stream
        has now, and what it gets later may overwrite it.
        """
        with self._stages.gpu.current(), self._stages.gpu.range("push"):
            return self.add(self.take(frame, pts, stream))

    def take(self, frame: Any, pts: float | None, stream: int) -> Taken:
        """The first half of `push_device`, for a batch: until the frame stands before the encoder."""
        self._caller = stream
        return self._take(frame, pts)

    def add(self, taken: Taken) -> list[DeviceDetections]:
        """The second half. Where the stream does not encode, its batch has."""
        lane = self._lane.queue
        if not self._encodes:
            self._queue.follow(lane.ptr)
        self._add(taken)
        ready = self._take_ready()
        if not self._encodes:
            # The next batch overwrites what was read here.
            self._queue.lead(lane.ptr)
        return ready

    def flush(self) -> list[Detections]:
        return [found.cpu() for found in self.flush_device()]

    def flush_device(self) -> list[DeviceDetections]:
        """As `flush`, without a wait."""
        with self._stages.gpu.current():
            self._finish()
            return self._take_ready()

    def close(self) -> None:
        super().close()
        self._ready.clear()
        with self._stages.gpu.current():
            self._queue.wait()

    def _take_ready(self) -> list[DeviceDetections]:
        if self._deferred:
            self._run(self._next, append=True, result=False)
        ready, self._ready = self._ready, []
        return ready

    @property
    def _newest(self) -> int:
        return self._number

    def _check(self, image: Any) -> tuple[DeviceImage, tuple[int, int]]:
        return self._intake.check(image, self._caller)

    def _encode(self, image: DeviceImage, size: tuple[int, int]) -> DeviceEncoder:
        support = self._capacity.num_support
        encoder = self._lane.encoder(size, max(self._dials.num_reference, support), support)
        self._intake.load(image, encoder, self._place)
        self.timings.frames += 1
        return encoder

    def _append(self, encoder: DeviceEncoder) -> None:
        self._encoder = encoder
        self._number += 1
        self._deferred = True

    def _forget(self) -> None:
        self._number = -1

    def _result(self, t: int, about: About) -> None:
        self._run(t, append=self._deferred, result=True)
        assert self._size is not None
        dials = self._dials
        self._ready.append(
            DeviceDetections(
                self._records,
                self._records.keep(),
                class_names=self._config.class_names,
                frame_index=about.frame_index,
                pts=about.pts,
                source_id=about.source_id,
                height=self._size[0],
                width=self._size[1],
                pool_fill=min(t + dials.frames_ahead, self._number) - max(t - dials.window, 0) + 1,
                lookahead=dials.frames_ahead,
                epoch=self.epoch,
            )
        )

    def _run(self, t: int, *, append: bool, result: bool) -> None:
        steps = self._steps
        if steps is None or steps.dials != self._dials or steps.encoder is not self._encoder:
            steps = self._make_steps(t)
        steps.run(t, self._number, append=append, result=result)
        self._deferred = self._deferred and not append

    def _make_steps(self, t: int) -> DeviceSteps:
        """For other dials or another frame size; waits until what it replaces is idle."""
        assert self._encoder is not None
        self._queue.wait()
        self._steps = None  # so that its memory can be used for the next
        stages = self._stages
        self._steps = DeviceSteps(
            self._queue, stages.relation, self._window, self._records, self._encoder, self._dials,
            place=self._place, encodes=self._encodes,
        )  # fmt: skip
        appended = self._number - self._deferred
        if appended >= 0:
            self._steps.prime(t, appended)
        return self._steps

    def _check_dials(self, dials: Dials) -> None:
        super()._check_dials(dials)
        if dials.link != "off":
            raise ConfigError(f"link is {dials.link!r}; boxes are linked on device 'cpu' only: wanted 'off'")
