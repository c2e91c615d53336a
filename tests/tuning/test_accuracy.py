"""AP50 of settings is that of the detector at those settings."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from rdn_engine import Detector
from rdn_engine.errors import DatasetError
from rdn_engine.evaluation.annotated import Annotated
from rdn_engine.evaluation.coco_vid import Dataset, Frame, Video
from rdn_engine.frame import Image
from rdn_engine.tuning.accuracy import Accuracy, part
from tests.tuning.test_replay import ENGINES, model_of
from training.data.synthetic import SyntheticVideos
from training.evaluation.detect import RunDetector, evaluate
from training.evaluation.videos import from_synthetic

VIDEOS = from_synthetic(SyntheticVideos("test", 3, 8))


def test_settings_have_the_figures_of_the_detector_and_frames_are_read_once(tmp_path: Path) -> None:
    detector = Detector.from_pretrained(ENGINES, threads=1)
    own = detector.config.dials
    settings = [own, replace(own, interval=3), replace(own, window=1, look_ahead=0, num_support=6, num_reference=24)]
    read: list[int] = []

    def reading(frame: Frame) -> Image:
        read.append(frame.id)
        return VIDEOS.read(frame)

    accuracy = Accuracy(VIDEOS, reading, tmp_path)
    found = accuracy(0, model_of(detector), settings[:2], lambda step: None)
    found += accuracy(0, model_of(detector), settings[2:], lambda step: None)
    wanted = [evaluate(RunDetector(detector, dials), VIDEOS)["vid"]["AP50"] for dials in settings]
    assert found[:2] == pytest.approx(wanted[:2], abs=1e-6)
    # Other rows in a call of a graph: two boxes that are all but equally sure may change places.
    assert found[2] == pytest.approx(wanted[2], abs=0.5)
    assert sorted(read) == [frame.id for frame in VIDEOS.dataset.frames]
    assert accuracy.frames == 24
    accuracy(1, model_of(detector), settings[:1], lambda step: None)
    assert len(read) == 48, "another bundle has encodings of its own"


def test_a_part_has_whole_videos_and_their_annotations() -> None:
    taken = part(VIDEOS, 17)
    assert [len(frames) for _, frames in taken.videos()] == [8, 8]
    ids = {frame.id for frame in taken.dataset.frames}
    assert {one.image_id for one in taken.dataset.annotations} == ids
    assert part(VIDEOS, 17) == taken
    assert len(part(VIDEOS, 3).dataset.frames) == 8, "one video at least"
    assert len(part(VIDEOS, 1000).dataset.frames) == 24


def test_videos_without_frames_are_no_part() -> None:
    with pytest.raises(DatasetError, match=r"empty\.json has no frame"):
        part(Annotated("empty.json", Dataset(videos=[Video(1, "none")])), 10)
