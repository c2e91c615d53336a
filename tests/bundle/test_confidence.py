"""Maps of confidences in a manifest, and what a stream makes of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rdn_engine.bundle.confidence import ConfidenceMap, ConfidenceTest, Knots
from rdn_engine.bundle.directory import Bundle, write_calibrated
from rdn_engine.detector import Detector
from rdn_engine.errors import BundleError, ConfigError
from rdn_engine.verify import verify
from training.data.synthetic import SyntheticVideos

ENGINES = Path(__file__).parents[2] / "models" / "rdn_tiny" / "engines"
TEST = ConfidenceTest("val.json", 75, 25, 0.2, 0.1, 50.0, 50.0)
HALF: Knots = ((0.0, 0.0), (1.0, 0.5))
EAGER: Knots = ((0.0, 0.1), (0.5, 0.9), (1.0, 1.0))


def maps(*classes: Knots) -> ConfidenceMap:
    return ConfidenceMap(classes, TEST)


@pytest.fixture(scope="module")
def calibrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """rdn_tiny with maps that change the order of its classes."""
    directory = tmp_path_factory.mktemp("engines") / "calibrated"
    write_calibrated(Bundle.open(ENGINES), directory, maps(HALF, EAGER, HALF, EAGER, HALF, EAGER))
    return directory


def detected(engines: Path, **options: Any) -> list[Any]:
    detector = Detector.from_pretrained(engines, threads=1)
    return list(detector.predict(SyntheticVideos("test", 1, 4, (96, 64))[0].frames, **options))


def test_the_same_boxes_come_out_with_mapped_confidences(calibrated: Path) -> None:
    made = Bundle.open(calibrated).manifest.confidence
    assert made is not None
    for before, after in zip(detected(ENGINES), detected(calibrated), strict=True):
        assert len(before) == len(after) > 20
        mapped = made.apply(before.confidence, before.class_id)
        order = np.argsort(-mapped, kind="stable")
        assert np.array_equal(after.confidence, mapped[order])
        assert np.array_equal(after.xyxy, before.xyxy[order])
        assert np.array_equal(after.class_id, before.class_id[order])
        assert (np.diff(after.confidence) <= 0).all()


@pytest.mark.parametrize("threshold", [0.05, 0.3, 0.6])
def test_a_threshold_is_of_the_confidences_that_are_given_out(calibrated: Path, threshold: float) -> None:
    every, cut = detected(calibrated), detected(calibrated, threshold=threshold)
    assert sum(map(len, cut)) < sum(map(len, every))
    for all_of_it, rest in zip(every, cut, strict=True):
        kept = all_of_it.confidence > threshold
        assert np.array_equal(rest.confidence, all_of_it.confidence[kept])
        assert np.array_equal(rest.xyxy, all_of_it.xyxy[kept])


def test_a_calibrated_bundle_still_proves_what_it_computes(calibrated: Path) -> None:
    assert all(report.passed for report in verify(calibrated))


def test_a_bundle_may_take_its_own_place(tmp_path: Path) -> None:
    own = tmp_path / "own"
    write_calibrated(Bundle.open(ENGINES), own, maps(*[HALF] * 6))
    write_calibrated(Bundle.open(own), own, maps(*[EAGER] * 6))
    made = Bundle.open(own).manifest.confidence
    assert made == maps(*[EAGER] * 6)
    with pytest.raises(BundleError, match="6 maps, one a class"):
        write_calibrated(Bundle.open(ENGINES), own, maps(HALF))
    assert Bundle.open(own).manifest.confidence == made


@pytest.mark.parametrize(
    "knots",
    [(), ((0.0, 0.0),), ((0.0, 0.0), (0.9, 1.0)), ((0.1, 0.0), (1.0, 1.0)), ((0.0, 0.5), (1.0, 0.5)),
     ((0.0, 0.0), (0.5, 0.6), (0.5, 0.7), (1.0, 1.0)), ((0.0, 0.0), (1.0, 1.1))],
)  # fmt: skip
def test_what_does_not_rise_is_refused(knots: Knots) -> None:
    with pytest.raises(ConfigError, match=r"classes\[0\] is .*; wanted pairs that rise in both"):
        maps(knots)


def test_a_manifest_with_a_wrong_map_is_refused() -> None:
    manifest = Bundle.open(ENGINES).manifest
    good = replace(manifest, confidence=maps(*[HALF] * 6)).to_dict()
    assert type(manifest).from_dict(good).confidence == maps(*[HALF] * 6)
    wrong: list[tuple[object, str]] = [
        ([], "confidence is .*; wanted the maps"),
        ({**good["confidence"], "classes": [[[0, 0], [1, "x"]]] * 6}, r"confidence.classes\[0\]\[1\]\[1\] is 'x'"),
        ({**good["confidence"], "test": {**good["confidence"]["test"], "error_after": 2}}, r"error_after is 2\.0; wan"),
        ({"classes": good["confidence"]["classes"]}, r"confidence lacks \['test'\]"),
    ]
    for value, message in wrong:
        with pytest.raises(BundleError, match=message):
            type(manifest).from_dict({**good, "confidence": value})


def test_the_least_confidence_of_a_threshold_lets_everything_through() -> None:
    both = maps(HALF, EAGER)
    for threshold in (0.001, 0.1, 0.4, 0.95):
        least = both.least(threshold)
        above = np.linspace(0, 1, 2001).astype(np.float32)
        for c in (0, 1):
            kept = above[both.apply(above, np.full(len(above), c)) > threshold]
            assert (kept >= least).all()
