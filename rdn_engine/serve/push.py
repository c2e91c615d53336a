"""What one push was, for whoever traces them."""

from __future__ import annotations

from dataclasses import dataclass

from rdn_engine.capture import Capture


@dataclass(frozen=True)
class Push:
    """A frame went into its stream, or was refused."""

    stream: str
    """Name of the stream"""
    frame_index: int
    """Of the frame, in its source"""
    epoch: int
    """Of the stream, after the push"""
    capture: Capture | None
    """How the frame was come by"""
    began: float
    """Wall clock, seconds since 1970"""
    seconds: float
    """That it took"""
    stages: dict[str, float]
    """Seconds that it added to each stage of `Stream.timings`; stages that took no time are not in it"""
    results: int
    """That it made ready"""
    error: Exception | None
    """What it raised; None where the frame was taken"""
