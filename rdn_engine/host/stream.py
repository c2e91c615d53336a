"""A stream whose frames live in the memory of the host, and the order of its stages."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from rdn_engine.config import Dials
from rdn_engine.frame import Frame, Image, check_image
from rdn_engine.host import postprocess, preprocess
from rdn_engine.host.blocks import picture_nbytes, small_picture
from rdn_engine.host.features import EncodedFrame
from rdn_engine.host.memory import open_memory
from rdn_engine.host.model import HostModel
from rdn_engine.host.still import StillGate, still_nbytes
from rdn_engine.kernels.cpu import Float
from rdn_engine.results import Detections
from rdn_engine.stream.base import Stream
from rdn_engine.stream.between import Between
from rdn_engine.stream.following import Picture
from rdn_engine.stream.identity import LOOKS
from rdn_engine.stream.linking import detection_threshold
from rdn_engine.stream.links import Linkable
from rdn_engine.stream.order import FrameInfo, Role
from rdn_engine.stream.trail import Trail, most_pictures


class HostStream(Stream):
    """As every Stream. A push runs to its end; a step that fails is tried again by the next push."""

    fills_between = True

    def __init__(self, model: HostModel, dials: Dials, capacity: Dials, source_id: str) -> None:
        super().__init__(model.config, dials, capacity, source_id)
        self._model = model
        # The dials' own r is at hand from the start, whatever the capacity says.
        room = replace(capacity, advanced_ratio=max(capacity.advanced_ratio, dials.advanced_ratio))
        self._memory = open_memory(model.relation, model.config, room, model.ring_precision)
        self._still = StillGate(model.config.input)
        self._between = Between(self._config.detection.max_detections)
        self._trail = Trail()
        self._newest = LastPicture()
        self._ready: list[Detections] = []

    @property
    def nbytes(self) -> int:
        return self._memory.nbytes

    def skipping_nbytes(self, dials: Dials) -> int:
        config = self._config.input
        # Where nothing waits, of the last two steps, and of the frame that comes.
        pictures = 0 if not followed(dials) else most_pictures(dials) if dials.waits else 3
        return pictures * picture_nbytes(config) + (still_nbytes(config) if dials.still else 0)

    def is_of(self, model: HostModel) -> bool:
        """Whether what a model encodes is what this stream relates.

        Args:
            model: of a detector.
        """
        return self._model is model

    def push(self, frame: Image | Frame, pts: float | None = None) -> list[Detections]:
        image, info = self.accept(frame, pts)
        role = self.role(image, info)
        encoded = None
        if role == "encoded":
            network = self.preprocess(image, info)
            (encoded,) = self._model.encoder(network[None], *self.num_proposals, self.timings.lap)
        self.finish_before(info)
        self.append(encoded, info, role, image)
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

    def role(self, image: Image, info: FrameInfo) -> Role:
        """What becomes of a frame, by the dials `interval` and `still`.

        Args:
            image, info: of `accept`.

        Returns:
            Whether it is to be encoded; what `append` wants.
        """
        order, dials = self._order, self._dials
        if not order.is_step(info, dials.interval):
            return "between"
        if not dials.still:
            return "encoded"
        self.timings.start()
        new = order.newest < 0 or order.begins_epoch(info)
        still = self._still.look(image, info.geometry, dials, new=new)
        self.timings.lap("still")
        return "still" if still else "encoded"

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

    def append(self, encoded: EncodedFrame | None, info: FrameInfo, role: Role, image: Image) -> None:
        """Make a frame the newest, after `finish_before`.

        Args:
            encoded: with `num_proposals`; None of a frame that is not to be encoded.
            info, image: of `accept`.
            role: of `role`.
        """
        picture = self.small_picture(image, info) if followed(self._dials) else None
        if self._order.begins_epoch(info):
            self._memory.reset()
            self._order.begin_epoch()
        if encoded is not None:
            self.timings.frames += 1
            self.timings.start()
            self._memory.append(encoded)
            self.timings.lap("window")
        if role != "between":
            self._still.done(self._dials, still=role == "still")
        if role == "between" and self._dials.waits:
            self._newest.keep(image, info)
        else:
            self._newest.forget()
        self._order.append(info, role)
        waits = self._dials.waits
        self._between.append(info, role, None if waits else picture)
        if waits and picture is not None:
            self._trail.append(info, role, picture)
        else:
            self._trail.clear()
        self.accepted += 1

    def small_picture(self, image: Image, info: FrameInfo) -> Picture:
        """What boxes are followed by from a frame and to it.

        Args:
            image, info: of `accept`.
        """
        self.timings.start()
        picture = small_picture(image, info.geometry, self._config.input)
        self.timings.lap("between")
        return picture

    def detect_due(self) -> None:
        """Compute the results that need not wait any longer; `take_ready` has them."""
        self._detect(self._dials.frames_ahead)
        self._give([])

    def flush(self) -> list[Detections]:
        self.finish()
        return self.take_ready()

    def finish(self) -> None:
        """Compute the results still to come, and end the epoch."""
        self.check_open()
        self._finish_epoch()

    def close(self) -> None:
        super().close()
        self._between = Between(self._config.detection.max_detections)
        self._trail.clear()
        self._newest.forget()
        self._ready.clear()

    def _detect(self, look_ahead: int) -> None:
        """Compute every result that need not wait for more than `look_ahead` later frames."""
        model, dials, timings = self._model, self._dials, self.timings
        timings.start()
        self._trail.follow()
        timings.lap("between")
        while (due := self._order.due(look_ahead)) is not None:
            timings.start()
            if due.still:
                linked = self.linker.pass_over(dials)
                self._order.done()
                self._give(linked)
                continue
            boxes, output, features = self._memory.relate(due.number, dials, timings.lap)
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
            looks = features[found.proposal[:LOOKS]] if dials.over_gaps and features is not None else None
            linkable = Linkable(detections, found.proposal, output.omega, looks)
            moved = self._trail.reach(due.info, detections) if dials.waits else self._between.moved()
            timings.lap("between")
            linked = self.linker.push(linkable, dials, moved)
            timings.lap("linking")
            self._order.done()
            self._trail.done()
            self._give(linked)

    def _give(self, found: list[Detections], *, ended: bool = False) -> None:
        """Results of encoded frames are there, and with them those of the frames between.

        Args:
            found: of the next encoded frames.
            ended: whether they are the last of the epoch.
        """
        if not self._dials.waits:
            self._newest.forget()
        self.timings.start()
        self._ready += self._between.take(found, self._dials, ended=ended)
        self.timings.lap("between")

    def _encode_last(self) -> None:
        """The last frame of the epoch is a step too, so that those before it lie between two."""
        if (kept := self._newest.kept) is None:
            return
        network = self.preprocess(*kept)
        (encoded,) = self._model.encoder(network[None], *self.num_proposals, self.timings.lap)
        self.timings.frames += 1
        self._memory.append(encoded)
        self.timings.lap("window")
        self._order.promote()
        self._between.promote()
        # Where the epoch does not end after all, nobody knows whether a frame looks like this one.
        self._still.forget()
        self._newest.forget()

    def _finish_epoch(self) -> None:
        """All results of the epoch are ready, linked ones too; whatever frame comes next begins another."""
        self._encode_last()
        self._detect(0)
        self._give(self.linker.flush(self._dials), ended=True)
        self._trail.clear()
        self._order.end_epoch()

    def take_ready(self) -> list[Detections]:
        """The results that were computed and not taken yet."""
        ready, self._ready = self._ready, []
        return ready


def followed(dials: Dials) -> bool:
    """Whether boxes are followed from a step to the frames behind it: to tell where they are, where results do not
    wait; else to link them to those of the next step.
    """
    return dials.interval > 1 and (dials.link != "off" or not dials.waits)


class LastPicture:
    """The pixels of the newest frame, for the end of the epoch: whoever pushed it may use its array again."""

    def __init__(self) -> None:
        self._room: Image | None = None
        self._info: FrameInfo | None = None

    @property
    def kept(self) -> tuple[Image, FrameInfo] | None:
        """The frame that was kept last; None where it was forgotten."""
        return None if self._room is None or self._info is None else (self._room, self._info)

    def keep(self, image: Image, info: FrameInfo) -> None:
        """Copy a frame."""
        if self._room is None or self._room.shape != image.shape:
            self._room = np.empty(image.shape, np.uint8)
        np.copyto(self._room, image)
        self._info = info

    def forget(self) -> None:
        """Nothing is wanted of the frames until now."""
        self._info = None


def _sized(image: object) -> tuple[Image, tuple[int, int]]:
    checked = check_image(image)
    return checked, (checked.shape[0], checked.shape[1])
