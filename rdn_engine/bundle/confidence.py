"""What a bundle's confidences are worth on somebody's videos: a rising map for each class, and its test."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rdn_engine.errors import ConfigError
from rdn_engine.plain import check, from_plain

Knots = tuple[tuple[float, float], ...]
"""(the model's confidence, how often it is right), both rising strictly from 0 to 1; straight lines between"""


@dataclass(frozen=True)
class ConfidenceTest:
    """What the maps were fitted and tested on."""

    data: str
    """File name of the annotations"""
    fitted_frames: int
    tested_frames: int
    """Held out of the fit"""
    error_before: float
    """D-ECE, 0..1, of the frames held out, of detections to which the model gives 0.3 or more"""
    error_after: float
    """The same of their mapped confidences"""
    ap50_before: float
    """VID protocol, all frames, percent"""
    ap50_after: float

    def __post_init__(self) -> None:
        for name in ("error_before", "error_after"):
            check(0 <= getattr(self, name) <= 1, f"test.{name}", getattr(self, name), "0..1")


@dataclass(frozen=True)
class ConfidenceMap:
    """From the model's confidences to how often detections are right."""

    classes: tuple[Knots, ...]
    """Of each class of the model"""
    test: ConfidenceTest

    def __post_init__(self) -> None:
        for c, knots in enumerate(self.classes):
            pairs = np.array(knots, np.float64).reshape(-1, 2)
            ends = len(pairs) >= 2 and pairs[0, 0] == 0 and pairs[-1, 0] == 1
            inside = bool((pairs >= 0).all() and (pairs <= 1).all() and (np.diff(pairs, axis=0) > 0).all())
            check(ends and inside, f"classes[{c}]", knots, "pairs that rise in both, the first of them from 0 to 1")

    def to_dict(self) -> dict[str, Any]:
        """What `from_dict` reads, as JSON holds it."""
        test = {field.name: getattr(self.test, field.name) for field in fields(ConfidenceTest)}
        return {"classes": [[list(pair) for pair in knots] for knots in self.classes], "test": test}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], classes: int) -> ConfidenceMap:
        """Read the `confidence` of a manifest.

        Args:
            data: parsed JSON.
            classes: of the model.

        Raises:
            ConfigError: names the field, what it holds and what was wanted.
        """
        made = from_plain(cls, data, "confidence")
        check(len(made.classes) == classes, "confidence.classes", len(made.classes), f"{classes} maps, one a class")
        return made

    def apply(self, confidence: NDArray[np.float32], class_id: NDArray[np.int64]) -> NDArray[np.float32]:
        """Map confidences; within a class their order stays, but for those that float32 cannot tell apart.

        Args:
            confidence: [n] of the model, 0..1.
            class_id: [n].

        Returns:
            [n] in 0..1.
        """
        mapped = confidence.copy()
        for c in np.unique(class_id).tolist():
            rows = class_id == c
            raw, right = np.array(self.classes[c]).T
            mapped[rows] = np.interp(confidence[rows], raw, right).astype(np.float32)
        return mapped

    def least(self, threshold: float) -> float:
        """The lowest confidence of the model that any class maps above a threshold.

        Args:
            threshold: of mapped confidences, 0..1.

        Returns:
            0..1, a little less than that, as float32 rounds.
        """
        lowest = min(float(np.interp(threshold, *np.array(knots).T[::-1])) for knots in self.classes)
        return max(lowest - 1e-6, 0.0)


def read_confidence(data: object, classes: int) -> ConfidenceMap | None:
    """The `confidence` of a manifest; None where it has none.

    Args:
        data: parsed JSON, or None.
        classes: of the model.

    Raises:
        ConfigError: names the field, what it holds and what was wanted.
    """
    if data is None:
        return None
    if not isinstance(data, dict):
        raise ConfigError(f"confidence is {data!r:.80}; wanted the maps of a calibrated bundle")
    return ConfidenceMap.from_dict(data, classes)
