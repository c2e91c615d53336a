"""The weights and graphs of one model on the host, shared by its streams."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from rdn_engine.bundle.confidence import ConfidenceMap
from rdn_engine.config import RDNConfig
from rdn_engine.host.cosine_stage import CosineStage
from rdn_engine.host.features import EncodedFrame
from rdn_engine.host.relation import Relation
from rdn_engine.kernels.cpu import Float, RingPrecision


class EncoderLike(Protocol):
    """What a stream asks of an encoder; `rdn_engine.host.encoder.Encoder` is the real one."""

    def __call__(
        self, images: Float, num_reference: int, num_support: int, lap: Callable[[str], None]
    ) -> list[EncodedFrame]:
        """Encode network inputs.

        Args:
            images: [B, 3, h, w].
            num_reference: N, largest number of proposals of a frame.
            num_support: K, the first proposals, which get keys and values.
            lap: is called with the name of each stage as it ends.

        Returns:
            B frames.
        """
        ...


@dataclass(frozen=True)
class HostModel:
    """What streams share: nothing here changes from frame to frame."""

    config: RDNConfig
    encoder: EncoderLike
    """From network inputs to proposals with their features."""
    relation: Relation | CosineStage
    """The executor of the relation stage."""
    threads: int
    """Bounds the CPU threads of every stage of one call."""
    ring_precision: RingPrecision = "float32"
    """Of what streams keep."""
    confidence: ConfidenceMap | None = None
    """What the model's confidences are worth; None gives them out as they are."""
