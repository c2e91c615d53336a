"""How a model of Triton's is served: what `export-triton` writes, and its Python backend reads."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from rdn_engine.backends.graph import MOST_THREADS, BackendChoice, Device
from rdn_engine.detector import RelationPrecision
from rdn_engine.kernels.cpu import RingPrecision
from rdn_engine.plain import check, check_fields, from_plain, to_plain


@dataclass(frozen=True)
class TritonOptions:
    """Bounds of the sequences of one model instance, and how it computes."""

    max_sequences: int = 64
    """Sequences that may be open at once; another one is refused"""
    idle_seconds: float = 60.0
    """A sequence without a request for this long is forgotten, here and by Triton"""
    byte_budget: int | None = None
    """Bytes that all sequences may hold at most; None for no limit but their number"""
    max_batch: int = 16
    """Frames of different sequences in one call of the model"""
    instances: int = 1
    """Processes with the model, each with a table of sequences and a budget of its own"""
    backend: BackendChoice = "onnxruntime"
    """What runs the graphs"""
    device: Device = "cpu"
    """Where they run"""
    threads: int | None = None
    """CPU threads of an instance; None takes all that it may use"""
    relation_precision: RelationPrecision = "float32"
    ring_precision: RingPrecision = "float32"
    dials: dict[str, Any] = field(default_factory=dict)
    """Those of every sequence, by name; the model's own where they are not given"""
    warm_up: int = 8
    """Rounds of two sequences before the model is ready, 0 for none"""

    def __post_init__(self) -> None:
        check(isinstance(self.dials, dict), "triton.dials", self.dials, "a mapping of dials")
        check_fields(
            self, "triton", max_sequences=(1, 2**16), idle_seconds=(1e-3, 1e6), byte_budget=(1, 2**50),
            max_batch=(1, 2**10), instances=(1, 2**10), threads=(1, MOST_THREADS), warm_up=(0, 2**16),
        )  # fmt: skip

    def to_json(self) -> str:
        """As a parameter of config.pbtxt."""
        return json.dumps(to_plain(vars(self)))

    @classmethod
    def from_json(cls, text: str) -> TritonOptions:
        """The inverse of `to_json`.

        Args:
            text: of the parameter.

        Raises:
            ConfigError: for a field that is unknown or out of its range.
            ValueError: for what is no JSON.
        """
        return from_plain(cls, json.loads(text), "triton")
