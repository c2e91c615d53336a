"""What is no image is refused with a message to act on, and the stream goes on as if it had not come."""

from __future__ import annotations

import json
import math
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rdn_engine import ConfigError, Detections, FrameError
from rdn_engine.frame import MAX_PIXELS, Frame, check_image
from tests.fakes import fake_detector, image

RGB = image(1)

BAD = {
    "grey": (RGB[:, :, 0], r"got uint8 \[16, 16\]; wanted uint8 \[H, W, 3\] RGB; a grey image becomes RGB"),
    "grey with a channel": (RGB[:, :, :1], r"got uint8 \[16, 16, 1\].*a grey image becomes RGB"),
    "rgba": (np.zeros((16, 16, 4), np.uint8), r"\[16, 16, 4\].*drop the alpha channel"),
    "16-bit": (RGB.astype(np.uint16), r"got uint16 \[16, 16, 3\].*16-bit becomes 8-bit"),
    "float": (RGB / 255, r"got float64 \[16, 16, 3\].*\* 255"),
    "half": (RGB.astype(np.float16), r"got float16.*\* 255"),
    "int64": (RGB.astype(np.int64), r"got int64 .*convert it first"),
    "bool": (RGB > 0, r"got bool"),
    "channels first": (np.zeros((3, 16, 20), np.uint8), r"\[3, 16, 20\].*transpose\(1, 2, 0\)"),
    "batch": (RGB[None], r"\[1, 16, 16, 3\].*one image at a time"),
    "empty": (np.zeros((0, 0, 3), np.uint8), r"\[0, 0, 3\].*at least 16 pixels"),
    "no height": (np.zeros((0, 640, 3), np.uint8), r"at least 16 pixels"),
    "small": (np.zeros((15, 640, 3), np.uint8), r"\[15, 640, 3\].*at least 16 pixels"),
    "narrow": (np.zeros((640, 15, 3), np.uint8), r"\[640, 15, 3\].*at least 16 pixels"),
    "1x1": (np.zeros((1, 1, 3), np.uint8), r"\[1, 1, 3\].*at least 16 pixels"),
    "20000x20000": (np.broadcast_to(np.uint8(0), (20000, 20000, 3)), r"\[20000, 20000, 3\].*at most"),
    "just too large": (
        np.broadcast_to(np.uint8(0), (8193, 8192, 3)),
        rf"\[8193, 8192, 3\].*at most {MAX_PIXELS} pixels",
    ),
    "scalar": (np.uint8(3), r"got uint8; wanted"),
    "no dimensions": (np.array(3, np.uint8), r"got uint8 \[\]"),
    "list": ([[1, 2, 3]], r"got list.*numpy.asarray"),
    "nothing": (None, r"got NoneType"),
    "bytes": (b"\xff\xd8\xff", r"got bytes"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_images_are_refused_by_name(name: str) -> None:
    bad, message = BAD[name]
    with pytest.raises(FrameError, match=message):
        check_image(bad)


@pytest.mark.parametrize("name", BAD)
def test_the_stream_goes_on_after_a_bad_frame(name: str) -> None:
    bad, message = BAD[name]
    good, _, seen = fake_detector()
    other, _, disturbed = fake_detector()
    plain, stream = good.open_stream(), other.open_stream()
    wanted, got = [], []
    for t in range(6):
        wanted += plain.push(image(t))
        with pytest.raises(FrameError, match=message):
            stream.push(bad)  # type: ignore[arg-type]
        got += stream.push(image(t))
        with pytest.raises(FrameError):
            stream.push(Frame(bad, t, None, "cam"))  # type: ignore[arg-type]
    wanted += plain.flush()
    got += stream.flush()
    assert [r.frame_index for r in got] == [r.frame_index for r in wanted] == list(range(6))
    assert disturbed.windows == seen.windows
    assert (stream.rejected, stream.accepted, stream.epoch) == (12, 6, 0)


@pytest.mark.parametrize("pts", [math.nan, math.inf, -math.inf, "1", [0.1]])
def test_a_time_that_is_no_number_is_refused(pts: Any) -> None:
    detector, _, _ = fake_detector()
    stream = detector.open_stream()
    stream.push(image(0), pts=0.0)
    with pytest.raises(FrameError, match=r"pts is .*finite"):
        stream.push(image(1), pts=pts)
    stream.push(image(1), pts=0.04)
    assert ([r.epoch for r in stream.flush()], stream.rejected) == ([0, 0], 1)


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({"index": 1.5}, r"index is 1\.5; wanted the frame's position .* a whole number from 0"),
        ({"index": -1}, "index is -1; wanted"),
        ({"index": None}, "index is None; wanted"),
        ({"source_id": Path("door.mp4")}, r"source_id is PosixPath\('door.mp4'\); wanted text"),
        ({"source_id": 7}, "source_id is 7; wanted text"),
        ({"pixel_aspect": 0.0}, r"pixel_aspect is 0\.0; wanted width over height in 1/16\.\.16"),
        ({"pixel_aspect": 17}, "pixel_aspect is 17; wanted"),
        ({"pixel_aspect": float("nan")}, "pixel_aspect is nan; wanted"),
        ({"pixel_aspect": "16:11"}, "pixel_aspect is '16:11'; wanted"),
    ],
)
def test_a_frame_that_says_what_no_result_can_hold_is_refused(facts: dict[str, Any], message: str) -> None:
    detector, _, _ = fake_detector()
    stream = detector.open_stream()
    good: dict[str, Any] = {"index": 0, "pts": None, "source_id": "door.mp4"}
    with pytest.raises(FrameError, match=message):
        stream.push(Frame(image(0), **good | facts))
    stream.push(Frame(image(0), **good | {"index": np.int64(4)}))
    [result] = stream.flush()
    assert Detections.from_dict(json.loads(json.dumps(result.to_dict()))).frame_index == 4
    assert (stream.rejected, stream.accepted) == (1, 1)


def test_a_stream_s_name_is_text() -> None:
    detector, _, _ = fake_detector()
    with pytest.raises(ConfigError, match="source_id is 7; wanted a name, as text"):
        detector.open_stream(source_id=7)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="source_id is 7; wanted a name, as text"):
        detector.open_streams(["door", 7])  # type: ignore[list-item]


def test_odd_but_honest_images_are_taken() -> None:
    """Views, reversed and read-only arrays, and the smallest size."""
    rng = np.random.default_rng(0)
    plain = rng.integers(0, 256, (32, 48, 3), dtype=np.uint8)
    detector, _, _ = fake_detector()
    wanted = detector.predict(plain)
    frozen = plain.copy()
    frozen.flags.writeable = False
    views = [np.asfortranarray(plain), plain[:, :, ::-1].copy()[:, :, ::-1], np.repeat(plain, 2, 1)[:, ::2], frozen]
    for view in views:
        found = detector.predict(view)
        np.testing.assert_array_equal(found.xyxy, wanted.xyxy)  # type: ignore[union-attr]
    assert check_image(image(0)).shape == (16, 16, 3)


def test_other_streams_are_left_alone() -> None:
    detector, _, relation = fake_detector()
    good, bad = detector.open_stream(), detector.open_stream()
    for t in range(4):
        good.push(image(t))
        with pytest.raises(FrameError):
            bad.push(np.zeros((4, 4, 3), np.uint8))
    assert relation.levels == [0, 1]
    assert (good.rejected, bad.rejected) == (0, 4)
    assert bad.flush() == []


@pytest.mark.parametrize("pts", [np.float32(0.5), Fraction(1, 2), np.int64(1)])
def test_any_kind_of_number_is_a_time(pts: Any) -> None:
    detector, _, _ = fake_detector()
    stream = detector.open_stream()
    stream.push(image(0), pts=pts)
    [result] = stream.flush()
    assert json.loads(json.dumps(result.to_dict()))["pts"] == float(pts)
