"""The logic of the scripts that measure quality: what is decoded, what is counted, what the pages say of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.quality import real_videos, self_label_accuracy
from benchmarks.quality.real_videos import Recording
from benchmarks.report import real_tables
from rdn_engine.evaluation.coco_vid import Annotation, Category, Dataset, Frame, Video
from rdn_engine.evaluation.images import read_image
from rdn_engine.media.writer import VideoWriter
from training.data.readers.base import frames_of
from training.evaluation.videos import AnnotatedVideos


def test_frames_of_a_recording_get_the_numbers_of_their_video(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with VideoWriter(tmp_path / "one.mp4", 10) as writer:
        for t in range(9):
            writer.write(np.full((48, 64, 3), 25 * t, np.uint8))
    parts = (Recording("one.mp4", "early", 0, 3), Recording("one.mp4", "late", 5, 8))
    monkeypatch.setattr(real_videos, "RECORDINGS", parts)
    images = tmp_path / "images"
    real_videos.write_frames(tmp_path, images)
    assert sorted(path.name for path in images.iterdir()) == ["early", "late"]
    for video, first in (("early", 0), ("late", 5)):
        found = frames_of(images / video)
        assert list(found) == [0, 1, 2, 3]
        for t, path in found.items():
            frame = Frame(1, 1, t, f"{video}/{path.name}", 64, 48)
            assert abs(float(read_image(images, frame).mean()) - 25 * (first + t)) < 4
    (tmp_path / "one.mp4").unlink()
    real_videos.write_frames(tmp_path, images)  # all of it is there


def dataset(*labels: tuple[int, float, int], ignore: bool = False) -> Dataset:
    """(frame 1 or 2, x1, class) of boxes of 10 x 10"""
    frames = [Frame(10 * t, 1, t - 1, f"{t}.png", 64, 48) for t in (1, 2)]
    rows = [Annotation(i, 10 * t, c, (x, 0.0, x + 9, 9.0), 1, ignore) for i, (t, x, c) in enumerate(labels, start=1)]
    return Dataset([Category(1, "cat"), Category(2, "dog")], [Video(1, "v")], frames, rows)


def test_labels_are_right_where_they_lie_on_an_object_of_their_class() -> None:
    truth = dataset((1, 0.0, 1), (1, 30.0, 2), (2, 0.0, 1))
    labels = dataset((1, 2.0, 1), (1, 30.0, 1), (2, 30.0, 1), (2, 1.0, 1))
    # Of another class, and on nothing: two of four are wrong; the dog has none.
    found = self_label_accuracy.right(labels, truth)
    assert found == {"labels": 4, "precision": 50.0, "recall": pytest.approx(200 / 3)}
    region = replace(labels.annotations[1], id=9, ignore=True)
    with_regions = replace(labels, annotations=[*labels.annotations, region])
    assert self_label_accuracy.right(with_regions, truth) == found


def test_every_other_stretch_keeps_its_boxes(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = AnnotatedVideos("all", dataset((1, 0.0, 1), (2, 0.0, 1), (2, 30.0, 2)), lambda frame: np.zeros(0, np.uint8))
    monkeypatch.setattr(real_videos, "STRETCH", 1)
    for which, frame, boxes in ((0, 10, 1), (1, 20, 2)):
        part = real_videos.every_other(whole, which).dataset
        assert [f.id for f in part.frames] == [frame]
        assert [a.image_id for a in part.annotations] == [frame] * boxes


def row(ap: float, fast: float | None = None) -> dict[str, Any]:
    return {"AP50": ap, "AP": ap - 20, "slow": ap, "medium": ap, "fast": fast, "delay": 0.5}


def test_a_seed_counts_once_both_heads_are_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    files = {"real_videos-0.json": {"single": row(90), "rdn": row(91.5)}, "real_videos-1.json": {"single": row(92)}}
    monkeypatch.setattr(real_tables.store, "seeds", lambda stem: [0, 1])
    monkeypatch.setattr(real_tables.store, "load", files.__getitem__)
    known = real_tables.measured()
    assert known == [files["real_videos-0.json"]]
    assert real_tables._signed(real_tables._mean_gain(known)) == ["+1.5", "+1.5", "+1.5", "+1.5", ""]
