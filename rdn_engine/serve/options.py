"""How one stream of a scheduler is served."""

from __future__ import annotations

from dataclasses import dataclass

from rdn_engine.plain import check_fields


@dataclass(frozen=True)
class StreamOptions:
    """Bounds of one stream."""

    results: int = 64
    """Results that may wait for the sink, 1 or more, beside those of one push: with as many the stream takes no frame,
    and its source drops by its own policy"""
    idle_seconds: float | None = None
    """A stream without a frame for this long ends, and gives its memory back; None waits for ever"""
    max_failures: int = 3
    """Pushes in a row that may fail, 1 or more, before the stream ends"""
    latency_seconds: float | None = None
    """How old a result may be when the sink gets it, from the arrival of its frame. Where half of the latest are older,
    dials are lowered (`rdn_engine.serve.latency.ladder`), and come back when there is room; None lowers nothing"""
    picture_bytes: int = 0
    """Bytes of the frames that its source may queue, for the budget: frames x height x width x 3. An
    `interval` above 1 with look-ahead keeps one frame more"""

    def __post_init__(self) -> None:
        check_fields(
            self, "options", results=(1, 2**20), idle_seconds=(1e-3, 1e9), max_failures=(1, 2**20),
            latency_seconds=(1e-3, 1e9), picture_bytes=(0, 2**50),
        )  # fmt: skip
