"""`Detector.predict`: what goes in decides what comes out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest

from rdn_engine import ConfigError, Detections
from rdn_engine.errors import FrameError, VideoError
from rdn_engine.frame import Frame
from tests.fakes import DIALS, fake_detector, image


def test_the_return_type_follows_the_source() -> None:
    detector, _, relation = fake_detector()
    one = detector.predict(image(1))
    assert isinstance(one, Detections)
    assert one.pool_fill == 1
    assert relation.windows == [{1: [5, 5, 5]}]
    for source in (np.stack([image(1)]), [image(1)], iter([image(1)]), [Frame(image(1), 0, None, "")]):
        found = detector.predict(source)
        assert isinstance(found, list)
        assert len(found) == 1
        np.testing.assert_array_equal(found[0].xyxy, one.xyxy)
    assert [r.frame_index for r in detector.predict(image(1), stream=True)] == [0]


def test_stream_true_reads_no_further_than_it_must() -> None:
    detector, _, _ = fake_detector()
    read: list[int] = []

    def frames() -> Iterator[np.ndarray]:
        for t in range(100):
            read.append(t)
            yield image(t)

    results = detector.predict(frames(), stream=True)
    assert read == []
    assert next(results).frame_index == 0
    assert read == [0, 1, 2]


@pytest.mark.parametrize("stream", [False, True])
def test_what_is_no_source_is_refused(stream: bool) -> None:
    detector, _, _ = fake_detector()
    for source in (None, 3):
        with pytest.raises(FrameError, match=rf"source is {source} of type .*; wanted"):
            detector.predict(source, stream=stream)  # type: ignore[call-overload]
    with pytest.raises(FrameError):
        list(detector.predict([None], stream=stream))


@pytest.mark.parametrize("source", [[], (), iter(()), np.zeros((0, 8, 8, 3), np.uint8)])
def test_source_without_a_frame_is_a_video_error(source: list[np.ndarray]) -> None:
    detector, _, _ = fake_detector()
    with pytest.raises(VideoError, match="no frame"):
        detector.predict(source)
    results = detector.predict(source, stream=True)
    with pytest.raises(VideoError, match="no frame"):
        next(results)


def test_threshold_overrides_the_dials() -> None:
    detector, _, _ = fake_detector()
    dials = replace(DIALS, score_threshold=0.99)
    assert len(detector.predict(image(0), dials=dials)) == 0  # type: ignore[arg-type]
    assert len(detector.predict(image(0), dials=dials, threshold=0.5)) > 0  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="score_threshold"):
        detector.predict(image(0), threshold=1.5)


def test_paths_and_lists_of_paths(tmp_path: Path) -> None:
    paths = []
    for t in range(3):
        paths.append(tmp_path / f"{t}.png")
        _write_png(paths[-1], image(40 * t, 32, 32))
    detector, _, relation = fake_detector()
    for source in (paths, [str(p) for p in paths], tmp_path, str(tmp_path / "*.png")):
        relation.levels.clear()
        results = detector.predict(source)
        assert isinstance(results, list)
        assert [r.frame_index for r in results] == [0, 1, 2]
        assert relation.levels == [0, 40, 80]


def _write_png(path: Path, array: np.ndarray) -> None:
    with av.open(str(path), "w", format="image2") as container:
        stream = container.add_stream("png", rate=1)
        stream.width, stream.height, stream.pix_fmt = array.shape[1], array.shape[0], "rgb24"
        for packet in [*stream.encode(av.VideoFrame.from_ndarray(array, format="rgb24")), *stream.encode()]:
            container.mux(packet)
