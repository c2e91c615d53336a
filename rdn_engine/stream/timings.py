"""The time of a stream, stage by stage."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

STAGES = ("preprocess", "backbone", "proposals", "roi_pool", "roi_head", "window", "relation", "postprocess", "linking",
          "between", "still")  # fmt: skip
"""`between`: results of frames that are not encoded. `still`: whether a frame need not be, which is asked first."""


@dataclass
class Timings:
    """The time that a stream has taken since it was opened."""

    frames: int = 0
    """Frames encoded."""
    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(STAGES, 0.0))
    """Wall-clock seconds of each stage, in the order of STAGES."""
    _mark: float = field(default=0.0, init=False, repr=False)

    def start(self) -> None:
        """Begin the first stage of a piece of work."""
        self._mark = time.perf_counter()

    def lap(self, stage: str) -> None:
        """Charge everything since `start` or the last lap to a stage.

        Args:
            stage: a name in `seconds`.
        """
        now = time.perf_counter()
        self.seconds[stage] += now - self._mark
        self._mark = now

    def add(self, spent: Timings, share: float) -> None:
        """Charge a share of what was spent on several streams.

        Args:
            spent: seconds of the stages together.
            share: of this stream, in 0..1.
        """
        for stage, seconds in spent.seconds.items():
            self.seconds[stage] += share * seconds
