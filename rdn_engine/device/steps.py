"""The work of a frame on the device, as programs for one frame size and one setting of the dials."""

from __future__ import annotations

from typing import Any

import numpy as np

from rdn_engine.config import Dials
from rdn_engine.device.encoder import DeviceEncoder
from rdn_engine.device.gpu import CapturedWork, Queue
from rdn_engine.device.relation import DeviceRelation, RelationSteps
from rdn_engine.device.results import ResultRing
from rdn_engine.device.window import DeviceWindow
from rdn_engine.kernels import cuda
from rdn_engine.stream.identity import LOOKS
from rdn_engine.stream.linking import detection_threshold


class DeviceSteps:
    """The programs of one stream. They append (encode a frame and put it into the window), make the result of a frame,
    or do both: each combination is one program.
    """

    def __init__(
        self,
        queue: Queue,
        weights: DeviceRelation,
        window: DeviceWindow,
        results: ResultRing,
        encoder: DeviceEncoder,
        dials: Dials,
        *,
        place: int,
        encodes: bool,
    ) -> None:
        """Allocate; the programs are made as they are asked for.

        Args:
            queue: of the stream.
            weights: of the relation stage.
            window: of the stream.
            results: of the stream; its `made` is filled.
            encoder: of frames of this size.
            dials: settings in effect.
            place: of the stream's frame in the encoder's batch.
            encodes: whether an append runs the encoder; otherwise somebody else ran it before.
        """
        self.encoder, self.dials = encoder, dials
        self._queue, self._weights, self._window, self._encodes = queue, weights, window, encodes
        self._relation = RelationSteps(weights, queue, window, dials)
        self._encoded = encoder.encoded(place)
        self._made = results.made
        described, looks = self._relation.described, min(LOOKS, len(self._made.proposal))
        self._looks = None if described is None else queue.empty((looks, described.shape[1]), described.dtype)
        detection, kernels = weights.config.detection, weights.gpu.kernels
        classes = len(weights.config.class_names)
        nbytes = kernels.detect_bytes(batch=1, rows=dials.num_reference, classes=classes, config=detection)
        self._workspace = queue.empty(nbytes, np.uint8)
        self._programs: dict[tuple[bool, bool], CapturedWork] = {}

    @property
    def nbytes(self) -> int:
        """Bytes on the device, without those of the encoder and the window."""
        looks = 0 if self._looks is None else int(self._looks.nbytes)
        return int(self._workspace.nbytes) + looks + self._relation.nbytes

    def drop(self) -> None:
        """Gives the graphs back, and with the last word of these steps their memory: not when garbage is collected."""
        self._programs.clear()

    @property
    def omega(self) -> Any:
        """As `RelationSteps.omega`."""
        return self._relation.omega

    @property
    def looks(self) -> Any:
        """[m, D] features of the proposals of the best boxes; None where the dials do not link over gaps."""
        return self._looks

    def prime(self, frame: int, newest: int) -> None:
        """Take up a window with frames that these steps did not append; once, before the first run.

        Args:
            frame: number of the frame whose result comes next.
            newest: number of the last frame in the window.
        """
        self._window.set_numbers(frame, newest)
        self._relation.prime()

    def run(self, frame: int, newest: int, *, append: bool, result: bool) -> None:
        """Start one program, without a wait.

        Args:
            frame: number of the frame whose result is made, or comes next.
            newest: number of the last frame in the window, after the append if there is one.
            append: whether the frame in the encoder becomes the newest.
            result: whether the result of `frame` is made.
        """
        if append and self._encodes and not self.encoder.capturable:
            self.encoder.run()
        self._window.set_numbers(frame, newest)
        program = self._programs.get((append, result))
        if program is None:
            program = CapturedWork(self._queue, lambda: self._work(append, result))
            self._programs[append, result] = program
        program()

    def _work(self, append: bool, result: bool) -> None:
        span = self._weights.gpu.range
        if append:
            if self._encodes and self.encoder.capturable:
                self.encoder.run()
            with span("window"):
                self._window.append(self._encoded)
                self._relation.slide()
        if result:
            with span("relation"):
                self._relation.result()
            with span("postprocess"):
                self._detect()

    def _detect(self) -> None:
        reference, detection, encoder, made = (
            self._relation.reference, self._weights.config.detection, self.encoder, self._made,
        )  # fmt: skip
        scale = self._weights.config.input.frame_scale(*encoder.size)
        threshold = detection_threshold(self.dials)

        def one(array: Any) -> Any:
            return array.reshape(1, *array.shape)

        self._weights.gpu.kernels.detect(
            one(self._relation.logits),
            one(self._relation.deltas),
            one(reference.boxes),
            row_counts=reference.count,
            network_size=encoder.network,
            config=detection,
            score_threshold=threshold,
            scale=scale,
            xyxy=one(made.xyxy),
            confidence=one(made.confidence),
            class_id=one(made.class_id),
            proposal=one(made.proposal),
            counts=made.count,
            workspace=self._workspace,
            stream=self._queue.ptr,
        )
        if self._looks is not None:
            # Rows of float16 are moved as float32, of which they have half as many.
            described: Any = self._relation.described
            source, out = described.view(np.float32), self._looks.view(np.float32)
            rows = made.proposal[: len(out)]
            cuda.take_rows(self._weights.gpu.kernels, source, rows, out=out, stream=self._queue.ptr)
