"""How a frame of a live source was come by."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Capture:
    """Goes with a frame of a live source through a stream into its result."""

    time: float
    """When the picture arrived: seconds since 1970, by this machine's clock"""
    dropped: int
    """Frames of the source that were given up since the frame before, because nobody took them in time"""
    doubtful: bool
    """Whether data was lost since the last picture that depends on no other: what is seen may be patched"""
    session: int
    """How often the source had been connected to before; frames of two sessions share no window"""
    clock: float | None = None
    """The same moment by `time.monotonic`, for ages; None in a result that was read back from JSON"""
