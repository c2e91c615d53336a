"""A stream whose frames live on the device."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rdn_engine.config import Dials, RDNConfig
from rdn_engine.device_encoder import DeviceEncoder, DeviceGraphs, check_limits
from rdn_engine.device_frames import DeviceImage, Intake
from rdn_engine.device_relation import DeviceRelation
from rdn_engine.device_results import DeviceDetections, Records
from rdn_engine.device_steps import DeviceSteps
from rdn_engine.device_window import DeviceWindow
from rdn_engine.errors import ConfigError, FrameError
from rdn_engine.gpu import DEFAULT_STREAM, Gpu, Program
from rdn_engine.linking import BoxLinker
from rdn_engine.results import Detections
from rdn_engine.stream import About, Image, Stream, Taken, Timings

if TYPE_CHECKING:
    from rdn_engine.video import Frame

KEPT = 8
"""Results that stay on the device after those of the latest call."""
SPENT = ("launch", "wait", "linking")
"""What `timings` tell apart, of the host's time. A profiler tells the device's, by the names of the stages."""


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
        check_limits(stages.config, capacity.num_reference)
        self._stages, self._place = stages, place
        self._encodes = lane is None
        gpu = stages.gpu
        with gpu.current(), _room(capacity):
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
        self._ready: list[DeviceDetections | None] = []  # None: an epoch ends here
        self._linker = BoxLinker()
        self.timings = Timings(seconds=dict.fromkeys(SPENT, 0.0))

    @property
    def nbytes(self) -> int:
        """Bytes on the device: for one frame size and one dial setting, from the first frame that has them."""
        steps = 0 if self._steps is None else self._steps.nbytes
        encoder = self._lane.nbytes if self._encodes else 0
        return self._window.nbytes + self._records.nbytes + self._intake.nbytes + encoder + steps

    def push(self, frame: Any, pts: float | None = None) -> list[Detections]:
        return self.on_host(self._push(frame, pts, DEFAULT_STREAM))

    def push_device(
        self, frame: Image | Frame | Any, pts: float | None = None, stream: int = DEFAULT_STREAM
    ) -> list[DeviceDetections]:
        """As `push`, without a wait and without links (ConfigError where the dials have them). frame: an array of the
        host, as ever, or uint8 [H, W, 3] RGB on the device with `__cuda_array_interface__` or `__dlpack__`, or NV12.

        stream: address of the cudaStream_t that fills a frame of the device: the frame is read after what that stream
        has now, and what it gets later may overwrite it.
        """
        self.check_unlinked()
        return [result for result in self._push(frame, pts, stream) if result is not None]

    def _push(self, frame: Any, pts: float | None, stream: int) -> list[DeviceDetections | None]:
        with self._stages.gpu.current(), self._stages.gpu.range("push"):
            return self.add(self.take(frame, pts, stream))

    def take(self, frame: Any, pts: float | None, stream: int) -> Taken:
        """The first half of a push, for a batch: until the frame stands before the encoder."""
        self.timings.start()
        self._settle()  # where the last push failed, its frame still stands before the encoder
        self._caller = stream
        taken = self._take(frame, pts)
        self.timings.lap("launch")
        return taken

    def add(self, taken: Taken) -> list[DeviceDetections | None]:
        """The second half; None where an epoch ends. Where the stream does not encode, its batch has."""
        lane = self._lane.queue
        self.timings.start()
        if not self._encodes:
            self._queue.follow(lane.ptr)
        self._add(taken)
        ready = self._take_ready()
        if not self._encodes:
            # The next batch overwrites what was read here.
            self._queue.lead(lane.ptr)
        self.timings.lap("launch")
        return ready

    def flush(self) -> list[Detections]:
        return self.on_host(self._flush())

    def flush_device(self) -> list[DeviceDetections]:
        """As `flush`, without a wait and without links."""
        self.check_unlinked()
        return [result for result in self._flush() if result is not None]

    def _flush(self) -> list[DeviceDetections | None]:
        self.timings.start()
        with self._stages.gpu.current():
            self._finish()
            ready = self._take_ready()
        self.timings.lap("launch")
        return ready

    def on_host(self, results: list[DeviceDetections | None]) -> list[Detections]:
        """Results as `push` gives them: waited for and, if the dials say so, linked."""
        dials, linker, ready = self._dials, self._linker, []
        self.timings.start()
        for result in results:
            if result is None or dials.link == "off":
                ready += linker.flush(dials.score_threshold)
            if result is None:
                continue
            found = result.linkable()
            self.timings.lap("wait")
            if dials.link == "off":
                ready.append(found.found)
            else:
                ready += linker.push(found, dials.link, dials.link_delay, dials.score_threshold)
            self.timings.lap("linking")
        return ready

    def check_unlinked(self) -> None:
        if self._dials.link != "off":
            raise ConfigError(
                f"link is {self._dials.link!r}; links are made on the host: wanted 'off', or push and flush"
            )

    def close(self) -> None:
        super().close()
        self._deferred = False
        self._ready.clear()
        self._linker = BoxLinker()
        with self._stages.gpu.current():
            self._drop_steps()

    def _take_ready(self) -> list[DeviceDetections | None]:
        self._settle()
        ready, self._ready = self._ready, []
        return ready

    def _settle(self) -> None:
        if self._deferred:
            self._run(self._next, append=True, result=False)

    @property
    def _newest(self) -> int:
        return self._number

    def _check(self, image: Any) -> tuple[DeviceImage, tuple[int, int]]:
        return self._intake.check(image, self._caller)

    def _encode(self, image: DeviceImage, size: tuple[int, int]) -> DeviceEncoder:
        support = self._capacity.num_support
        with _room(self._dials):
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

    def _end_epoch(self) -> None:
        self._ready.append(None)

    def _result(self, t: int, about: About) -> None:
        steps = self._run(t, append=self._deferred, result=True)
        omega = steps.omega if t < self._number else None
        assert self._size is not None
        dials = self._dials
        self._ready.append(
            DeviceDetections(
                self._records,
                self._records.keep(omega),
                class_names=self._config.class_names,
                frame_index=about.frame_index,
                pts=about.pts,
                source_id=about.source_id,
                height=self._size[0],
                width=self._size[1],
                pool_fill=min(t + dials.frames_ahead, self._number) - max(t - dials.window, 0) + 1,
                lookahead=dials.frames_ahead,
                epoch=self.epoch,
                _related=omega is not None,
            )
        )

    def _run(self, t: int, *, append: bool, result: bool) -> DeviceSteps:
        steps = self._steps
        if steps is None or steps.dials != self._dials or steps.encoder is not self._encoder:
            steps = self._make_steps(t)
        steps.run(t, self._number, append=append, result=result)
        self._deferred = self._deferred and not append
        return steps

    def _make_steps(self, t: int) -> DeviceSteps:
        """For other dials or another frame size; waits until what it replaces is idle."""
        assert self._encoder is not None
        self._drop_steps()  # so that its memory can be used for the next
        with _room(self._dials):
            self._steps = DeviceSteps(
                self._queue, self._stages.relation, self._window, self._records, self._encoder, self._dials,
                place=self._place, encodes=self._encodes,
            )  # fmt: skip
        self._records.make_room(self._steps.omega)
        appended = self._number - self._deferred
        if appended >= 0:
            self._steps.prime(t, appended)
        return self._steps

    def _drop_steps(self) -> None:
        self._queue.wait()
        if self._steps is not None:
            self._steps.drop()
            self._steps = None


@contextlib.contextmanager
def _room(dials: Dials) -> Iterator[None]:
    try:
        yield
    except MemoryError as error:
        size = f"T = {dials.window}, K = {dials.num_support}, N = {dials.num_reference}, r = {dials.advanced_ratio}"
        raise ConfigError(
            f"a stream for {size} does not fit into the device's memory ({error}); wanted smaller dials or frames"
        ) from None
