"""Frames that are encoded once and related at every setting of the dials."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from rdn_engine.config import Dials
from rdn_engine.frame import Frame, Image
from rdn_engine.host import preprocess
from rdn_engine.host.blocks import small_picture
from rdn_engine.host.features import EncodedFrame, head
from rdn_engine.host.model import EncoderLike, HostModel
from rdn_engine.host.stream import HostStream
from rdn_engine.kernels.cpu import Float
from rdn_engine.results import Detections
from rdn_engine.stream.following import Picture
from rdn_engine.stream.order import FrameInfo


class Kept(NamedTuple):
    """What streams need of a frame that is encoded once."""

    encoded: EncodedFrame
    """With an N and a K that are no smaller than any that is asked for"""
    picture: Picture
    """On which boxes are followed"""
    size: tuple[int, int]
    """Height and width of the frame, pixels"""


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
        self._picture: Picture | None = None  # of the frame that is pushed, where it is known

    def push(self, frame: Image | Frame, pts: float | None = None) -> list[Detections]:
        results = super().push(frame, pts)
        self._stored = self.replay.stored
        return results

    def push_kept(self, frame: Kept) -> list[Detections]:
        """As `push`, of a frame whose pixels nobody needs any more.

        Args:
            frame: encoded with an N and a K no smaller than the dials'. It stays stored until `replay.stored` changes.
        """
        self.replay.stored, self._picture = frame.encoded, frame.picture
        try:
            return self.push(np.broadcast_to(np.zeros((), np.uint8), (*frame.size, 3)))
        finally:
            self._picture = None

    def small_picture(self, image: Image, info: FrameInfo) -> Picture:
        return super().small_picture(image, info) if self._picture is None else self._picture

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


def encode(model: HostModel, images: Iterable[Image], dials: Dials) -> list[Kept]:
    """The encodings of some frames.

    Args:
        model: encodes them.
        images: uint8 [H, W, 3] RGB each.
        dials: with the largest N and K that they are to serve.
    """
    given, made = model.config.input, []
    for image in images:
        network = preprocess.network_input(image, given, model.threads)
        (encoded,) = model.encoder(network[None], dials.num_reference, dials.num_support, lambda stage: None)
        height, width = image.shape[:2]
        made.append(Kept(encoded, small_picture(image, (height, width, 1.0), given), (height, width)))
    return made


def detect(model: HostModel, frames: Sequence[Kept], dials: Dials) -> list[Detections]:
    """What a stream with some dials finds in a video that is encoded already.

    Args:
        model: relates them.
        frames: of `encode`, with an N and a K no smaller than the dials'.
        dials: of the stream, without `still`, which looks at pixels.

    Returns:
        One a frame, in order.
    """
    with ReplayStream(model, dials) as stream:
        return [result for frame in frames for result in stream.push_kept(frame)] + stream.flush()
