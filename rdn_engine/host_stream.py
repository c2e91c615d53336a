"""A stream whose frames live in the memory of the host, and the order of its stages."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from rdn_engine import postprocess, preprocess
from rdn_engine.config import Dials, RDNConfig
from rdn_engine.features import EncodedFrame, Float
from rdn_engine.linking import FLOOR, BoxLinker, Linkable
from rdn_engine.relation import Relation
from rdn_engine.results import Detections
from rdn_engine.stream import About, Image, Stream
from rdn_engine.window import Window

if TYPE_CHECKING:
    from rdn_engine.video import Frame


class EncoderLike(Protocol):
    def __call__(
        self, images: Float, num_reference: int, num_support: int, lap: Callable[[str], None]
    ) -> list[EncodedFrame]: ...


@dataclass(frozen=True)
class Stages:
    """What streams share: nothing here changes from frame to frame."""

    config: RDNConfig
    encoder: EncoderLike
    relation: Relation
    threads: int


class HostStream(Stream):
    def __init__(self, stages: Stages, dials: Dials, capacity: Dials, source_id: str) -> None:
        super().__init__(stages.config, dials, capacity, source_id)
        self._stages = stages
        self._window = Window(stages.config.relation, capacity, stages.relation.precision)
        self._linker = BoxLinker()
        self._ready: list[Detections] = []

    @property
    def nbytes(self) -> int:
        return self._window.nbytes

    def push(self, frame: Image | Frame, pts: float | None = None) -> list[Detections]:
        self._add(self._take(frame, pts))
        return self._take_ready()

    def flush(self) -> list[Detections]:
        self._finish()
        return self._take_ready()

    def close(self) -> None:
        super().close()
        self._ready.clear()
        self._linker = BoxLinker()

    @property
    def _newest(self) -> int:
        return self._window.newest

    def _check(self, image: Any) -> tuple[Image, tuple[int, int]]:
        checked = preprocess.check_image(image)
        return checked, (checked.shape[0], checked.shape[1])

    def _encode(self, image: Image, size: tuple[int, int]) -> EncodedFrame:
        stages, dials = self._stages, self._dials
        self.timings.start()
        network = preprocess.network_input(image, stages.config.input, stages.threads)
        self.timings.lap("preprocess")
        # The support role keeps its capacity, so that K can be turned up without a gap in the window.
        num_support = self._capacity.num_support
        num_reference = max(dials.num_reference, num_support)
        (encoded,) = stages.encoder(network[None], num_reference, num_support, self.timings.lap)
        self.timings.frames += 1
        return encoded

    def _append(self, encoded: EncodedFrame) -> None:
        self.timings.start()
        self._window.append(encoded)
        self.timings.lap("window")

    def _forget(self) -> None:
        self._window.reset()

    def _end_epoch(self) -> None:
        self._unlink()

    def _result(self, t: int, about: About) -> None:
        self._link(self._detect(t, about))

    def _link(self, result: Linkable) -> None:
        """What becomes ready with the next frame's result, which itself may have to wait."""
        dials = self._dials
        if dials.link == "off":
            self._unlink()
            self._ready.append(result.found)
        else:
            self._ready += self._linker.push(result, dials.link, dials.link_delay, dials.score_threshold)
        self.timings.lap("linking")

    def _unlink(self) -> None:
        """What waits for links is ready, and all tubes end."""
        self._ready += self._linker.flush(self._dials.score_threshold)

    def _detect(self, t: int, about: About) -> Linkable:
        stages, dials, window, timings = self._stages, self._dials, self._window, self.timings
        assert self._size is not None
        timings.start()
        reference = window.reference(t, dials.num_reference)
        pool = window.pool(t, dials)
        timings.lap("window")
        asked = window.support_rows(t + 1, t, dials) if dials.link == "relations" else None
        output = stages.relation(reference.boxes, reference.features, reference.query, pool, asked)
        timings.lap("relation")
        config = stages.config
        found = postprocess.detections(
            output,
            reference.boxes,
            config.input.network_size(*self._size),
            self._size,
            config.detection,
            dials.score_threshold if dials.link == "off" else min(dials.score_threshold, FLOOR),
            stages.threads,
        )
        timings.lap("postprocess")
        detections = Detections(
            xyxy=found.xyxy,
            confidence=found.confidence,
            class_id=found.class_id,
            tracker_id=None,
            class_names=config.class_names,
            frame_index=about.frame_index,
            pts=about.pts,
            source_id=about.source_id,
            height=self._size[0],
            width=self._size[1],
            pool_fill=len(window.span(t, dials)),
            lookahead=dials.frames_ahead,
            epoch=self.epoch,
        )
        return Linkable(detections, found.proposal, output.omega)

    def _take_ready(self) -> list[Detections]:
        ready, self._ready = self._ready, []
        return ready
