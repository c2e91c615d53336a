"""Maps of confidences: what they gain, what they leave alone, and when they are refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from rdn_engine.bundle.confidence import ConfidenceMap
from rdn_engine.errors import CalibrationError, DatasetError
from rdn_engine.evaluation.annotated import Annotated
from rdn_engine.evaluation.calibrate import calibrate, check_calibration
from rdn_engine.evaluation.coco_vid import Annotation, Category, Dataset, Frame, Video
from rdn_engine.evaluation.score import score
from rdn_engine.results import Detections

NAMES = ("cat", "dog", "owl")
Found = dict[int, Detections]


def detections(frame: int, rows: list[tuple[float, float, int]]) -> Detections:
    """Boxes at the places of some columns, with confidence and class."""
    rows = sorted(rows, key=lambda row: -row[1])
    return Detections(
        xyxy=np.array([(x, 0, x + 9, 9) for x, _, _ in rows], np.float32).reshape(-1, 4),
        confidence=np.array([c for _, c, _ in rows], np.float32),
        class_id=np.array([label for _, _, label in rows], np.int64),
        tracker_id=None,
        class_names=NAMES,
        frame_index=frame,
        pts=None,
        source_id="clip",
        height=20,
        width=400,
        pool_fill=1,
        lookahead=0,
        epoch=0,
    )


def drawn(frames: int = 400, right: float = 0.5, late: float | None = None, seed: int = 0) -> tuple[Annotated, Found]:
    """A detector that says c and is right with the chance c * `right`, in the last quarter c * `late`.

    Of the third class there are a few boxes only.
    """
    rng = np.random.default_rng(seed)
    data = Dataset([Category(i + 1, name) for i, name in enumerate(NAMES)], [Video(1, "clip")])
    found: Found = {}
    for t in range(frames):
        data.frames.append(Frame(t, 1, t, f"{t}.png", 400, 20))
        rows = []
        for place in range(6):
            label = 2 if place == 0 and t % 40 == 0 else place % 2
            confidence = float(rng.uniform(0.01, 0.99))
            rows.append((40.0 * place, confidence, label))
            chance = right if late is None or t < 0.75 * frames else late
            if rng.random() < confidence * chance:
                x = 40.0 * place
                data.annotations.append(Annotation(len(data.annotations), t, label + 1, (x, 0, x + 9, 9)))
        found[t] = detections(t, rows)
    return Annotated("drawn.json", data), found


def test_an_overconfident_detector_becomes_honest_and_keeps_its_ap() -> None:
    annotated, found = drawn()
    made = calibrate(found, annotated, NAMES)
    check_calibration(made)
    test = made.test
    assert (test.data, test.fitted_frames, test.tested_frames) == ("drawn.json", 300, 100)
    assert test.error_before > 0.2
    assert test.error_after < 0.1
    mapped = {t: replace(r, confidence=made.apply(r.confidence, r.class_id)) for t, r in found.items()}
    before, after = (score(one, annotated, NAMES, 0) for one in (found, mapped))
    for block, figure in (("vid", "AP50"), ("coco", "AP")):
        assert after[block][figure] == pytest.approx(before[block][figure], abs=1e-9)
    assert after["operating"]["oLRP"] == pytest.approx(before["operating"]["oLRP"], abs=1e-9)
    assert (test.ap50_before, test.ap50_after) == pytest.approx((before["vid"]["AP50"], after["vid"]["AP50"]))
    # Half as often right as it says: 0.8 becomes 0.4.
    assert made.apply(np.array([0.8], np.float32), np.array([0]))[0] == pytest.approx(0.4, abs=0.12)


def test_maps_rise_strictly_and_a_rare_class_shares_one() -> None:
    annotated, found = drawn()
    made = calibrate(found, annotated, NAMES)
    for c in range(3):
        line = made.apply(np.linspace(0, 1, 1001).astype(np.float32), np.full(1001, c))
        assert (np.diff(line) > 0).all()
        assert 0 <= line[0] < line[-1] <= 1
    assert made.classes[0] != made.classes[1]
    assert made.classes[2] not in made.classes[:2]
    assert ConfidenceMap.from_dict(made.to_dict(), 3) == made
    turned = calibrate(found, annotated, NAMES[::-1])
    assert turned.classes == made.classes[::-1], "maps stand in the order of the model's classes"


def test_what_frames_held_out_do_not_bear_out_is_refused() -> None:
    annotated, found = drawn(right=0.3, late=1.0)
    made = calibrate(found, annotated, NAMES)
    assert made.test.error_after > made.test.error_before
    with pytest.raises(CalibrationError, match=r"on 100 frames held out the calibration error is .*; wanted less"):
        check_calibration(made)
    worse = replace(made, test=replace(made.test, error_after=0.0, ap50_after=made.test.ap50_before - 1))
    with pytest.raises(CalibrationError, match=r"AP50 is .* with the maps and .* without; wanted the same"):
        check_calibration(worse)


def test_frames_that_show_nothing_are_no_evidence() -> None:
    annotated, found = drawn(right=1, late=0)
    with pytest.raises(CalibrationError, match=r"frames that are held out, with a confidence of 0.3 or more \(\d+ det"):
        calibrate(found, annotated, NAMES)
    one = Annotated("one", replace(annotated.dataset, frames=annotated.dataset.frames[:1], annotations=[
        a for a in annotated.dataset.annotations if a.image_id == 0
    ] or [Annotation(0, 0, 1, (0, 0, 9, 9))]))  # fmt: skip
    with pytest.raises(DatasetError, match="the data set has 1 frames; wanted some to fit and some to test"):
        calibrate({0: found[0]}, one, NAMES)
