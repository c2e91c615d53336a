"""A stream whose frames live on the device."""

from __future__ import annotations

from typing import Any, NamedTuple

from rdn_engine.config import Dials
from rdn_engine.device.encoder import DeviceEncoder, check_limits
from rdn_engine.device.encoder_queue import EncoderQueue
from rdn_engine.device.frames import FrameLoader
from rdn_engine.device.gpu import DEFAULT_STREAM
from rdn_engine.device.model import DeviceModel
from rdn_engine.device.results import DeviceDetections, ResultRing
from rdn_engine.device.steps import DeviceSteps
from rdn_engine.device.window import DeviceWindow
from rdn_engine.errors import ConfigError, FrameError
from rdn_engine.frame import Frame, Image
from rdn_engine.results import Detections
from rdn_engine.stream.base import Stream
from rdn_engine.stream.order import FrameInfo
from rdn_engine.stream.room import room_for
from rdn_engine.stream.timings import Timings

KEPT = 8
"""Results that stay on the device after those of the latest call."""
SPENT = ("launch", "wait", "linking")
"""What `timings` tell apart, of the host's time. A profiler tells the device's, by the names of the stages."""
_MEMORY = "the device's memory"


class LoadedFrame(NamedTuple):
    """A frame that stands before its encoder, and is not part of its stream yet."""

    encoder: DeviceEncoder
    """That it stands before"""
    info: FrameInfo
    """What is known of the frame"""


class DeviceStream(Stream):
    """As every Stream; results may stay on the device (`push_device`). `push` waits for its results at its end, and
    nothing else waits while frames keep their size and dials stay; the first frames of each setting run uncaptured.
    """

    def __init__(
        self,
        model: DeviceModel,
        dials: Dials,
        capacity: Dials,
        source_id: str,
        encoders: EncoderQueue | None = None,
        place: int = 0,
    ) -> None:
        """Allocate for the capacity; the encoder comes with the first frame.

        Args:
            model: shared by the streams.
            dials: settings to start with.
            capacity: the largest T, K and N that the dials may be turned to later.
            source_id: what results say where they come from.
            encoders: of a batch, which encodes for its streams; None gives the stream its own.
            place: of the stream in the batch.

        Raises:
            ConfigError: for dials above the capacity, more than the kernels take, or no room on the device.
        """
        super().__init__(model.config, dials, capacity, source_id)
        check_limits(model.config, capacity.num_reference)
        self._model, self._place = model, place
        self._encodes = encoders is None
        gpu = model.gpu
        with gpu.current(), room_for(capacity, _MEMORY):
            self._encoders = EncoderQueue(model, 1) if encoders is None else encoders
            self._queue = self._encoders.queue if encoders is None else gpu.queue()
            self._loader = FrameLoader(gpu, self._encoders.queue)
            self._window = DeviceWindow(gpu, self._queue, model.config.relation, capacity, model.relation.kind)
            most = model.config.detection.max_detections
            self._results = ResultRing(gpu, self._queue, most, capacity.window + 2 + KEPT)
        self._encoder: DeviceEncoder | None = None
        self._steps: DeviceSteps | None = None
        self._deferred = False  # the newest frame is appended together with the next result, in one program
        self._ready: list[DeviceDetections | None] = []  # None: an epoch ends here
        self.timings = Timings(seconds=dict.fromkeys(SPENT, 0.0))

    @property
    def nbytes(self) -> int:
        """Bytes on the device: for one frame size and one dial setting, from the first frame that has them."""
        steps = 0 if self._steps is None else self._steps.nbytes
        encoder = self._encoders.nbytes if self._encodes else 0
        return self._window.nbytes + self._results.nbytes + self._loader.nbytes + encoder + steps

    def push(self, frame: Any, pts: float | None = None) -> list[Detections]:
        return self.on_host(self._push(frame, pts, DEFAULT_STREAM))

    def push_device(
        self, frame: Image | Frame | Any, pts: float | None = None, stream: int = DEFAULT_STREAM
    ) -> list[DeviceDetections]:
        """As `push`, without a wait and without links; results stay on the device.

        Args:
            frame: an array of the host, as ever, or uint8 [H, W, 3] RGB on the device with `__cuda_array_interface__`
                or `__dlpack__`, or NV12, or a Frame of any of them.
            pts: seconds on the source's clock; None where unknown.
            stream: address of the cudaStream_t that fills a frame of the device. The frame is read after what that
                stream has now; what it gets later may overwrite the frame.

        Returns:
            The results that became ready.

        Raises:
            ConfigError: where the dials link boxes.
            FrameError, StreamClosed: as `push`.
        """
        self.check_unlinked()
        return [result for result in self._push(frame, pts, stream) if result is not None]

    def _push(self, frame: Any, pts: float | None, stream: int) -> list[DeviceDetections | None]:
        with self._model.gpu.current(), self._model.gpu.range("push"):
            return self.add(self.take(frame, pts, stream))

    def take(self, frame: Any, pts: float | None, stream: int) -> LoadedFrame:
        """The first half of a push, for a batch: until the frame stands before the encoder.

        Args:
            frame, pts, stream: as `push_device`.

        Raises:
            FrameError, StreamClosed: as `push`.
            ConfigError: where the device has no room for the frame's encoder.
        """
        self.timings.start()
        self._settle()  # where the last push failed, its frame still stands before the encoder
        image, info = self._check_frame(frame, pts, lambda pixels: self._loader.check(pixels, stream))
        if info.pixel_aspect != 1.0:
            self.rejected += 1
            raise FrameError(
                f"pixel_aspect is {info.pixel_aspect:g}; wanted 1: a device sees pixels as they are stored"
            )
        # What lower dials released, or what failed before, comes first: the queue has room for T + 1 frames, no more.
        self._start_due(self._dials.frames_ahead)
        with room_for(self._dials, _MEMORY):
            encoder = self._encoders.encoder(info.size, *self.num_proposals)
        self._loader.load(image, encoder, self._place)
        self.timings.frames += 1
        self.timings.lap("launch")
        return LoadedFrame(encoder, info)

    def add(self, loaded: LoadedFrame) -> list[DeviceDetections | None]:
        """The second half of a push: the frame becomes the newest, and what is due is started.

        Args:
            loaded: of `take`; where the stream does not encode, its batch has.

        Returns:
            The results that became ready; None where an epoch ends.
        """
        order, encoding = self._order, self._encoders.queue
        self.timings.start()
        if not self._encodes:
            self._queue.follow(encoding.ptr)
        if order.begins_epoch(loaded.info):
            self._finish_epoch()
            order.begin_epoch()
        self._encoder = loaded.encoder
        self._deferred = True
        order.append(loaded.info)
        self.accepted += 1
        self._start_due(self._dials.frames_ahead)
        ready = self._take_ready()
        if not self._encodes:
            # The next batch overwrites what was read here.
            self._queue.lead(encoding.ptr)
        self.timings.lap("launch")
        return ready

    def flush(self) -> list[Detections]:
        return self.on_host(self._flush())

    def flush_device(self) -> list[DeviceDetections]:
        """As `flush`, without a wait and without links; results stay on the device.

        Returns:
            The results still to come.

        Raises:
            ConfigError: where the dials link boxes.
            StreamClosed: after `close`.
        """
        self.check_unlinked()
        return [result for result in self._flush() if result is not None]

    def _flush(self) -> list[DeviceDetections | None]:
        self.check_open()
        self.timings.start()
        with self._model.gpu.current():
            self._finish_epoch()
            self._order.end_epoch()
            ready = self._take_ready()
        self.timings.lap("launch")
        return ready

    def on_host(self, results: list[DeviceDetections | None]) -> list[Detections]:
        """Results as `push` gives them: waited for and, if the dials say so, linked.

        Args:
            results: of `add`; None where an epoch ends.
        """
        ready: list[Detections] = []
        self.timings.start()
        for result in results:
            if result is None:
                ready += self.linker.flush(self._dials)
                continue
            found = result.linkable()
            self.timings.lap("wait")
            ready += self.linker.push(found, self._dials)
            self.timings.lap("linking")
        return ready

    def check_unlinked(self) -> None:
        """Check that results may stay on the device.

        Raises:
            ConfigError: where the dials link boxes, which is done on the host.
        """
        if self._dials.link != "off":
            raise ConfigError(
                f"link is {self._dials.link!r}; links are made on the host: wanted 'off', or push and flush"
            )

    def close(self) -> None:
        super().close()
        self._deferred = False
        self._ready.clear()
        with self._model.gpu.current():
            self._drop_steps()

    def _take_ready(self) -> list[DeviceDetections | None]:
        self._settle()
        ready, self._ready = self._ready, []
        return ready

    def _settle(self) -> None:
        if self._deferred:
            self._run(self._order.next_result, append=True, result=False)

    def _finish_epoch(self) -> None:
        """All results of the epoch were started."""
        self._start_due(0)
        self._ready.append(None)

    def _start_due(self, look_ahead: int) -> None:
        """Start every result that need not wait for more than `look_ahead` later frames."""
        while (due := self._order.due(look_ahead)) is not None:
            steps = self._run(due.number, append=self._deferred, result=True)
            omega = steps.omega if due.number < self._order.newest else None
            number = self._results.keep(omega, steps.looks)
            self._ready.append(
                DeviceDetections(
                    _results=self._results,
                    _number=number,
                    _related=omega is not None,
                    _looked=steps.looks is not None,
                    **vars(self._facts(due)),
                )
            )
            self._order.done()

    def _run(self, t: int, *, append: bool, result: bool) -> DeviceSteps:
        steps = self._steps
        if steps is None or steps.dials != self._dials or steps.encoder is not self._encoder:
            steps = self._make_steps(t)
        steps.run(t, self._order.newest, append=append, result=result)
        self._deferred = self._deferred and not append
        return steps

    def _make_steps(self, t: int) -> DeviceSteps:
        """Steps for other dials or another frame size; waits until what they replace is idle."""
        assert self._encoder is not None
        self._drop_steps()  # so that its memory can be used for the next
        with room_for(self._dials, _MEMORY):
            self._steps = DeviceSteps(
                self._queue, self._model.relation, self._window, self._results, self._encoder, self._dials,
                place=self._place, encodes=self._encodes,
            )  # fmt: skip
        self._results.make_room(self._steps.omega, self._steps.looks)
        appended = self._order.newest - self._deferred
        if appended >= 0:
            self._steps.prime(t, appended)
        return self._steps

    def _drop_steps(self) -> None:
        self._queue.wait()
        if self._steps is not None:
            self._steps.drop()
            self._steps = None
