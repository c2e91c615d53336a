"""Detections and their other shapes, against the libraries they are meant for."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import supervision as sv
import torch
from faster_coco_eval import COCO, COCOeval_faster
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.ops import batched_nms

from rdn_engine.capture import Capture
from rdn_engine.errors import BackendUnavailable, ResultError
from rdn_engine.frame import Frame
from rdn_engine.media.draw import annotate, colour
from rdn_engine.results import NOBODY, Detections
from tests.fakes import fake_detector, image

NAMES = ("bird", "big cat", "dog")


def make(n: int, tracked: bool = False, height: int = 256, width: int = 340, pts: float | None = 0.12) -> Detections:
    rng = np.random.default_rng(n)
    corner = rng.uniform(0, 0.5, (n, 2)) * (width, height)
    size = rng.uniform(0.1, 0.5, (n, 2)) * (width, height)
    return Detections(
        xyxy=np.concatenate([corner, corner + size], 1).astype(np.float32),
        confidence=np.sort(rng.uniform(0.1, 1, n).astype(np.float32))[::-1],
        class_id=rng.integers(0, len(NAMES), n),
        tracker_id=np.where(np.arange(n) == 2, NOBODY, np.arange(n) + 7) if tracked else None,
        class_names=NAMES,
        frame_index=3,
        pts=pts,
        source_id="clip.mp4",
        height=height,
        width=width,
        pool_fill=12,
        lookahead=8,
        epoch=1,
    )


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 12), st.booleans(), st.none() | st.floats(0, 1e6))
def test_json_line_round_trip(n: int, tracked: bool, pts: float | None) -> None:
    original = make(n, tracked, pts=pts)
    line = json.dumps(original.to_dict(), allow_nan=False)
    back = Detections.from_dict(json.loads(line), NAMES)
    assert np.array_equal(back.xyxy, original.xyxy)
    assert np.array_equal(back.confidence, original.confidence)
    assert np.array_equal(back.class_id, original.class_id)
    assert (back.tracker_id is not None) == (tracked and n > 0)
    if back.tracker_id is not None and original.tracker_id is not None:
        assert np.array_equal(back.tracker_id, original.tracker_id)
    assert back.pts == (None if pts is None else pytest.approx(pts, abs=1e-6))
    for name in ("frame_index", "source_id", "height", "width", "pool_fill", "lookahead", "epoch", "class_names"):
        assert getattr(back, name) == getattr(original, name)
    # What was rounded once stays as it is.
    assert back.to_dict() == json.loads(line)


def test_json_line_alone_names_its_classes() -> None:
    line = make(8).to_dict()
    alone = Detections.from_dict(line)
    assert [alone.class_names[c] for c in alone.class_id] == [d["class_name"] for d in line["detections"]]
    assert alone.to_dict() == line


# Where in the line, what stands there (nothing: it is missing), and what the error says.
FOREIGN = [
    ((), [], r"line is \[\]; wanted a JSON object"),
    ((), None, "line is None; wanted a JSON object"),
    (("frame_index",), ..., r"line lacks \['frame_index'\]"),
    (("frame_index",), -1, "line.frame_index is -1; wanted 0 or more"),
    (("frame_index",), 1.5, r"line.frame_index is 1\.5; wanted a whole number"),
    (("pts",), "0:01", "line.pts is '0:01'; wanted a finite number"),
    (("pts",), float("nan"), "line.pts is nan; wanted a finite number"),
    (("source_id",), 7, "line.source_id is 7; wanted a str"),
    (("height",), None, "line.height is None; wanted a whole number"),
    (("epoch",), True, "line.epoch is True; wanted a whole number"),
    (("detections",), ..., "line.detections is None; wanted a list"),
    (("detections",), {"0": {}}, "line.detections is .*; wanted a list"),
    (("detections", 1), [1, 2, 3, 4], r"line.detections\[1\] is \[1, 2, 3, 4\]; wanted a JSON object"),
    (("detections", 1, "xyxy"), ..., r"line.detections\[1\] lacks \['xyxy'\]"),
    (("detections", 1, "xyxy"), [1, 2, 3], r"line.detections\[1\].xyxy is \[1, 2, 3\]; wanted a list of 4"),
    (("detections", 1, "xyxy"), [1, 2, 3, "4"], r"detections\[1\].xyxy\[3\] is '4'; wanted a finite number"),
    (("detections", 1, "xyxy"), [0, 0, 1e300, 1], r"detections\[1\].xyxy is .*; wanted pixels"),
    (("detections", 0, "confidence"), 93, r"detections\[0\].confidence is 93\.0; wanted 0\.\.1"),
    (("detections", 0, "confidence"), None, r"detections\[0\].confidence is None; wanted a finite number"),
    (("detections", 0, "class_id"), -1, r"detections\[0\].class_id is -1; wanted 0\.\."),
    (("detections", 0, "class_id"), 10**15, r"detections\[0\].class_id is 10{15}; wanted 0\.\."),
    (("detections", 0, "class_name"), "", r"detections\[\d\].class_name is .*; wanted '.*', class \d's name"),
    (("detections", 1, "tracker_id"), ..., r"detections\[1\].tracker_id is None; wanted a whole number"),
    (("detections", 0, "tracker_id"), ..., r"detections\[1\].tracker_id is \d; wanted none"),
    (("frame_index",), 10**400, r"line.frame_index is 10{400}; wanted 0 or more, below 2\^63"),
    (("pts",), 10**400, r"line.pts is 10{400}; wanted a finite number"),
    (("height",), 10.0**300, r"line.height is 10.*; wanted 0 or more, below 2\^63"),
    (
        ("capture",),
        {"time": 10**400, "dropped": 0, "doubtful": False, "session": 0},
        r"capture.time is 10{400}; wanted",
    ),
    (("detections", 1, "xyxy"), [1, 2, 3, 10**400], r"detections\[1\].xyxy\[3\] is 10{400}; wanted a finite number"),
    (("detections", 0, "confidence"), 10**400, r"detections\[0\].confidence is 10{400}; wanted a finite number"),
    (("detections", 0, "class_id"), 10**400, r"detections\[0\].class_id is 10{400}; wanted 0\.\."),
    (("detections", 1, "tracker_id"), 10**400, r"detections\[1\].tracker_id is 10{400}; wanted a whole number"),
    (("detections", 1, "tracker_id"), 2**63, r"detections\[1\].tracker_id is \d+; wanted a whole number"),
    (("detections", 1, "tracker_id"), -2, r"detections\[1\].tracker_id is -2; wanted a whole number from -1"),
]


@pytest.mark.parametrize("names", [NAMES, None])
@pytest.mark.parametrize(("place", "value", "message"), FOREIGN)
def test_a_foreign_line_is_refused_by_its_field(
    place: tuple[Any, ...], value: object, message: str, names: tuple[str, ...] | None
) -> None:
    line: Any = {"line": make(8, tracked=True).to_dict()}  # eight rows of three classes: each comes twice
    assert len(Detections.from_dict(line["line"], names)) == 8
    *way, last = ("line", *place)
    holder = line
    for key in way:
        holder = holder[key]
    if value is ...:
        del holder[last]
    else:
        holder[last] = value
    with pytest.raises(ResultError, match=message):
        Detections.from_dict(line["line"], names)


def test_a_number_that_cannot_be_printed_is_refused_wherever_it_stands() -> None:
    """Python writes no whole number of more than 4300 digits."""
    far = 10**5000
    for bad in (far, [far]):
        with pytest.raises(ResultError, match="with thousands of digits; wanted a JSON object"):
            Detections.from_dict(bad)  # type: ignore[arg-type]
    line, row = make(2, tracked=True).to_dict(), make(2, tracked=True).to_dict()["detections"][0]
    places = [{**line, name: bad} for name in line for bad in (far, -far, [far])]
    places += [{**line, "detections": [{**row, name: bad}]} for name in row for bad in (far, -far, [far] * 4)]
    places.append({**line, "capture": {"time": far, "dropped": far, "doubtful": far, "session": far}})
    for place in places:
        with pytest.raises(ResultError, match=r"thousands of digits|wanted a list"):
            Detections.from_dict(place, NAMES)


def test_a_line_of_another_model_is_refused() -> None:
    line = make(8).to_dict()
    with pytest.raises(ResultError, match=r"class_id is \d; wanted 0\.\.0"):
        Detections.from_dict(line, NAMES[:1])
    with pytest.raises(ResultError, match=r"class_name is '.*'; wanted '.*', class \d's name"):
        Detections.from_dict(line, NAMES[::-1])


def test_a_line_may_carry_more() -> None:
    line = make(3).to_dict()
    line["camera"] = line["detections"][0]["speed"] = 3
    assert Detections.from_dict(line, NAMES).to_dict() == make(3).to_dict()


def test_json_line_is_the_documented_one() -> None:
    assert list(make(1, tracked=True).to_dict()) == [
        "frame_index", "pts", "source_id", "height", "width", "pool_fill", "lookahead", "epoch", "basis", "detections",
    ]  # fmt: skip
    tracked, plain = make(1, tracked=True).to_dict(), make(1).to_dict()
    assert list(tracked["detections"][0]) == ["xyxy", "confidence", "class_id", "class_name", "tracker_id"]
    assert "tracker_id" not in plain["detections"][0]
    assert make(0).to_dict()["detections"] == []


def test_lengths_that_differ_are_refused() -> None:
    good = make(3)
    with pytest.raises(ResultError, match="wanted"):
        Detections(**{**vars(good), "confidence": good.confidence[:2]})
    with pytest.raises(ResultError, match="wanted"):
        Detections(**{**vars(good), "xyxy": good.xyxy.reshape(-1)})
    with pytest.raises(ResultError, match="wanted"):
        Detections(**{**vars(good), "tracker_id": np.arange(4)})


@pytest.mark.parametrize("n", [0, 1, 5])
@pytest.mark.parametrize("tracked", [False, True])
def test_supervision_takes_them(n: int, tracked: bool) -> None:
    original = make(n, tracked)
    found = original.to_supervision()
    assert isinstance(found, sv.Detections)
    assert len(found) == n
    assert np.array_equal(found.xyxy, original.xyxy)
    assert list(found.data["class_name"]) == [NAMES[c] for c in original.class_id]
    assert (found.tracker_id is not None) == tracked
    assert len(found[found.confidence > 0.5]) == (original.confidence > 0.5).sum()
    image = np.zeros((256, 340, 3), np.uint8)
    drawn = sv.BoxAnnotator().annotate(image.copy(), found)
    assert drawn.any() == (n > 0)
    assert len(sv.Detections.merge([found, make(2, tracked).to_supervision()])) == n + 2


@pytest.mark.parametrize("n", [0, 4])
def test_torchvision_takes_them(n: int) -> None:
    original = make(n)
    found = original.to_torchvision()
    assert {k: v.dtype for k, v in found.items()} == {
        "boxes": torch.float32, "labels": torch.int64, "scores": torch.float32,
    }  # fmt: skip
    assert found["boxes"].shape == (n, 4)
    assert found["labels"].tolist() == [c + 1 for c in original.class_id]
    keep = batched_nms(found["boxes"], found["scores"], found["labels"], 1.0)
    assert keep.tolist() == list(range(n))


def test_coco_results_load_and_score_fully_against_themselves() -> None:
    frames = {1: make(4), 2: make(0), 3: make(6)}
    truth = {
        "images": [{"id": i, "height": 256, "width": 340} for i in frames],
        "categories": [{"id": c + 1, "name": name} for c, name in enumerate(NAMES)],
        "annotations": [],
    }
    results = [r for i, d in frames.items() for r in d.to_coco(i)]
    for number, r in enumerate(results):
        area = r["bbox"][2] * r["bbox"][3]
        truth["annotations"].append({**r, "id": number + 1, "area": area, "iscrowd": 0})
    coco = COCO(truth)
    loaded = coco.loadRes(json.loads(json.dumps(results)))
    assert len(loaded.anns) == 10
    evaluation = COCOeval_faster(coco, loaded, "bbox")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    assert evaluation.stats[0] == pytest.approx(1.0)


def test_coco_record() -> None:
    d = make(1)
    (record,) = d.to_coco(42)
    x1, y1, x2, y2 = d.xyxy[0]
    assert record["bbox"] == pytest.approx([x1, y1, x2 - x1 + 1, y2 - y1 + 1], rel=1e-5)
    assert (record["image_id"], record["category_id"]) == (42, d.class_id[0] + 1)
    assert make(0).to_coco(1) == []
    name = NAMES[d.class_id[0]]
    assert d.to_coco(42, {name: 17, "another": 3})[0]["category_id"] == 17
    with pytest.raises(ResultError, match=rf"category_ids are .*; wanted one of \['{name}'\] too"):
        d.to_coco(42, {"another": 3})


def test_the_box_of_a_whole_frame_is_cocos() -> None:
    """x2 and y2 are the last column and row: what covers a frame of 340 x 256 has them at 339 and 255."""
    whole = replace(make(1), xyxy=np.array([[0, 0, 339, 255]], np.float32))
    assert whole.to_coco(1)[0]["bbox"] == [0, 0, 340, 256]


def test_json_digits_are_the_fewest_that_tell_a_float32() -> None:
    confidence = np.array([0.1, np.nextafter(np.float32(0.1), np.float32(1)), 1e-30], np.float32)[::-1]
    one = replace(make(3), confidence=confidence)
    line = json.dumps(one.to_dict())
    assert '"confidence": 0.1,' in line
    assert np.array_equal(Detections.from_dict(json.loads(line), NAMES).confidence, confidence)


@pytest.mark.parametrize(("library", "method"), [("supervision", "to_supervision"), ("torch", "to_torchvision")])
def test_missing_library_is_named(monkeypatch: pytest.MonkeyPatch, library: str, method: str) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(BackendUnavailable, match=f"needs {library}.*pip install"):
        getattr(make(1), method)()


@pytest.mark.parametrize("size", [(256, 340), (2160, 3840), (16, 16)])
@pytest.mark.parametrize("tracked", [False, True])
def test_drawing_leaves_the_frame_alone_and_marks_the_copy(size: tuple[int, int], tracked: bool) -> None:
    image = np.full((*size, 3), 90, np.uint8)
    before = image.copy()
    found = make(5, tracked, *size)
    drawn = annotate(image, found)
    assert np.array_equal(image, before)
    assert drawn.shape == image.shape
    assert drawn.dtype == np.uint8
    numbers = found.class_id if found.tracker_id is None else found.tracker_id
    strongest = colour(int(numbers[0]))
    assert (drawn == np.array(strongest, np.uint8)).all(axis=2).any()
    assert np.array_equal(annotate(image, make(0, tracked, *size)), image)
    assert np.array_equal(annotate(image, found, threshold=1.0), image)


def test_a_box_without_an_identity_is_grey_and_has_no_number() -> None:
    image = np.full((256, 340, 3), 90, np.uint8)
    plain, named = make(1), make(1, tracked=True)
    drawn = annotate(image, replace(named, tracker_id=np.array([NOBODY])))
    assert (drawn == 128).all(axis=2).any()
    marked, numbered = ((annotate(image, one) != 90).any(axis=2) for one in (plain, named))
    assert np.array_equal((drawn != 90).any(axis=2), marked)
    assert numbered.sum() > marked.sum()


@pytest.mark.parametrize("corner", [(0, 0), (300, 0), (0, 240), (330, 250), (-20, -20)])
def test_label_stays_inside_the_frame(corner: tuple[int, int]) -> None:
    """Its plate is as large in every corner of the frame as in the middle."""

    def plate(x: float, y: float) -> int:
        box = np.array([[x, y, x + 1, y + 1]], np.float32)
        one = Detections(**{**vars(make(1)), "xyxy": box, "class_id": np.array([1])})
        return int((annotate(np.full((256, 340, 3), 90, np.uint8), one) != 90).any(axis=2).sum())

    assert plate(*corner) == pytest.approx(plate(150, 120), abs=16)


def test_colours_are_distinct() -> None:
    colours = np.array([colour(c) for c in range(30)], float)
    distance = np.abs(colours[:, None] - colours).max(axis=2) + 255 * np.eye(30)
    assert distance.min() > 15


def test_how_a_frame_was_come_by_goes_with_its_result() -> None:
    detector, _, _ = fake_detector()
    capture = Capture(time=1790000000.12345, dropped=3, doubtful=True, session=2, clock=17.5)
    with detector.open_stream() as stream:
        stream.push(Frame(image(0), 7, 0.5, "door", capture=capture))
        [result] = stream.flush()
    assert result.capture == capture
    line = result.to_dict()
    assert line["capture"] == {"time": 1790000000.123, "dropped": 3, "doubtful": True, "session": 2}
    assert Detections.from_dict(json.loads(json.dumps(line))).capture == replace(
        capture, time=1790000000.123, clock=None
    )
    with pytest.raises(ResultError, match=r"line\.capture\.dropped is 'x'"):
        Detections.from_dict(line | {"capture": line["capture"] | {"dropped": "x"}})
