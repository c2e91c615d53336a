"""Frames that are encoded once and related at every setting of the dials."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

import numpy as np

from rdn_engine.config import Dials
from rdn_engine.frame import Frame, Image
from rdn_engine.host import preprocess
from rdn_engine.host.features import EncodedFrame, head
from rdn_engine.host.model import EncoderLike, HostModel
from rdn_engine.host.stream import HostStream
from rdn_engine.kernels.cpu import Float
from rdn_engine.results import Detections
from rdn_engine.stream.order import FrameInfo


class Replay:
    """An encoder that gives `stored` where there is some, and else asks the real one."""

    def __init__(self, encoder: EncoderLike) -> None:
        self._encode = encoder
        self.stored: EncodedFrame | None = None
        """Encoded with an N and a K that are no smaller than what is asked for"""

    def __call__(
        self, images: Float, num_reference: int, num_support: int, lap: Callable[[str], None]
    ) -> list[EncodedFrame]:
        if self.stored is None:
            return self._encode(images, num_reference, num_support, lap)
        return [head(self.stored, num_reference, num_support)]


class ReplayStream(HostStream):
    """A stream whose frames may be encoded already."""

    def __init__(self, model: HostModel, dials: Dials) -> None:
        """model: whose real encoder is asked where nothing is stored."""
        self.replay = Replay(model.encoder)
        super().__init__(replace(model, encoder=self.replay), dials, dials, "")
        self._stored: EncodedFrame | None = None  # of the newest frame

    def push(self, frame: Image | Frame, pts: float | None = None) -> list[Detections]:
        results = super().push(frame, pts)
        self._stored = self.replay.stored
        return results

    def push_encoded(self, frame: EncodedFrame, size: tuple[int, int]) -> list[Detections]:
        """As `push`, of a frame whose pixels nobody needs any more.

        Args:
            frame: encoded with an N and a K no smaller than the dials'. It stays stored until `replay.stored` changes.
            size: height and width of its picture.
        """
        self.replay.stored = frame
        return self.push(np.broadcast_to(np.zeros((), np.uint8), (*size, 3)))

    def _encode_last(self) -> None:
        # Where a frame of another size ends the epoch, that one is stored by now.
        stored, self.replay.stored = self.replay.stored, self._stored
        try:
            super()._encode_last()
        finally:
            self.replay.stored = stored

    def preprocess(self, image: Image, info: FrameInfo) -> Float:
        if self.replay.stored is not None:
            return np.zeros((3, 1, 1), np.float32)
        return super().preprocess(image, info)


def encode(model: HostModel, images: Iterable[Image], dials: Dials) -> list[EncodedFrame]:
    """The encodings of some frames.

    Args:
        model: encodes them.
        images: uint8 [H, W, 3] RGB each.
        dials: with the largest N and K that they are to serve.
    """
    made = []
    for image in images:
        network = preprocess.network_input(image, model.config.input, model.threads)
        made += model.encoder(network[None], dials.num_reference, dials.num_support, lambda stage: None)
    return made


def detect(
    model: HostModel, frames: Sequence[EncodedFrame], sizes: Sequence[tuple[int, int]], dials: Dials
) -> list[Detections]:
    """What a stream with some dials finds in a video that is encoded already.

    Args:
        model: relates them.
        frames: of `encode`, with an N and a K no smaller than the dials'.
        sizes: height and width of each picture.
        dials: of the stream, without `still`, which looks at pixels.

    Returns:
        One a frame, in order.
    """
    with ReplayStream(model, dials) as stream:
        found: list[Detections] = []
        for frame, size in zip(frames, sizes, strict=True):
            found += stream.push_encoded(frame, size)
        return found + stream.flush()
