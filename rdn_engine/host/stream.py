"""A stream whose frames live in the memory of the host, and the order of its stages."""

from __future__ import annotations

from rdn_engine.config import Dials
from rdn_engine.frame import Frame, Image, check_image
from rdn_engine.host import postprocess, preprocess
from rdn_engine.host.features import EncodedFrame
from rdn_engine.host.memory import open_memory
from rdn_engine.host.model import HostModel
from rdn_engine.kernels.cpu import Float
from rdn_engine.results import Detections
from rdn_engine.stream.base import Stream
from rdn_engine.stream.linking import Linkable, detection_threshold
from rdn_engine.stream.order import FrameInfo


class HostStream(Stream):
    """As every Stream. A push runs to its end; a step that fails is tried again by the next push."""

    def __init__(self, model: HostModel, dials: Dials, capacity: Dials, source_id: str) -> None:
        super().__init__(model.config, dials, capacity, source_id)
        self._model = model
        self._memory = open_memory(model.relation, model.config, capacity)
        self._ready: list[Detections] = []

    @property
    def nbytes(self) -> int:
        return self._memory.nbytes

    def push(self, frame: Image | Frame, pts: float | None = None) -> list[Detections]:
        image, info = self.accept(frame, pts)
        network = self.preprocess(image, info)
        (encoded,) = self._model.encoder(network[None], *self.num_proposals, self.timings.lap)
        self.finish_before(info)
        self.append(encoded, info)
        self.detect_due()
        return self.take_ready()

    def accept(self, frame: Image | Frame, pts: float | None) -> tuple[Image, FrameInfo]:
        """Check a frame, before anything of it is computed.

        Args:
            frame, pts: as `push`.

        Returns:
            The image, and what is known of it.

        Raises:
            FrameError, StreamClosed: as `push`.
        """
        image, info = self._check_frame(frame, pts, _sized)
        # What lower dials released, or what failed before, comes first: the window has room for T + 1 references.
        self.detect_due()
        return image, info

    def preprocess(self, image: Image, info: FrameInfo) -> Float:
        """Make the network input.

        Args:
            image: uint8 [H, W, 3] RGB, of `accept`.
            info: of `accept`.

        Returns:
            [3, h, w].
        """
        self.timings.start()
        network = preprocess.network_input(
            image, self._config.input, self._model.threads, pixel_aspect=info.pixel_aspect
        )
        self.timings.lap("preprocess")
        return network

    def finish_before(self, info: FrameInfo) -> None:
        """Finish the old epoch, where a frame is about to begin another.

        Args:
            info: of the frame.
        """
        if self._order.begins_epoch(info):
            self._finish_epoch()

    def append(self, encoded: EncodedFrame, info: FrameInfo) -> None:
        """Make a frame the newest, after `finish_before`.

        Args:
            encoded: with `num_proposals`.
            info: of `accept`.
        """
        if self._order.begins_epoch(info):
            self._memory.reset()
            self._order.begin_epoch()
        self.timings.frames += 1
        self.timings.start()
        self._memory.append(encoded)
        self.timings.lap("window")
        self._order.append(info)
        self.accepted += 1

    def detect_due(self) -> None:
        """Compute the results that need not wait any longer; `take_ready` has them."""
        self._detect(self._dials.frames_ahead)

    def flush(self) -> list[Detections]:
        self.finish()
        return self.take_ready()

    def finish(self) -> None:
        """Compute the results still to come, and end the epoch."""
        self.check_open()
        self._finish_epoch()
        self._order.end_epoch()

    def close(self) -> None:
        super().close()
        self._ready.clear()

    def _detect(self, look_ahead: int) -> None:
        """Compute every result that need not wait for more than `look_ahead` later frames."""
        model, dials, timings = self._model, self._dials, self.timings
        while (due := self._order.due(look_ahead)) is not None:
            timings.start()
            boxes, output = self._memory.relate(due.number, dials, timings.lap)
            found = postprocess.detections(
                output,
                boxes,
                due.info.geometry,
                input_config=model.config.input,
                config=model.config.detection,
                score_threshold=detection_threshold(dials),
                own_threshold=model.config.dials.score_threshold,
                confidence=model.confidence,
                threads=model.threads,
            )
            timings.lap("postprocess")
            detections = Detections(
                xyxy=found.xyxy,
                confidence=found.confidence,
                class_id=found.class_id,
                tracker_id=None,
                **vars(self._facts(due)),
            )
            self._ready += self.linker.push(Linkable(detections, found.proposal, output.omega), dials)
            timings.lap("linking")
            self._order.done()

    def _finish_epoch(self) -> None:
        """All results of the epoch are ready, linked ones too."""
        self._detect(0)
        self._ready += self.linker.flush(self._dials)

    def take_ready(self) -> list[Detections]:
        """The results that were computed and not taken yet."""
        ready, self._ready = self._ready, []
        return ready


def _sized(image: object) -> tuple[Image, tuple[int, int]]:
    checked = check_image(image)
    return checked, (checked.shape[0], checked.shape[1])
