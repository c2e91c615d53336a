"""The models that come along: whole, small, and finding what they were made to find."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from rdn_engine import Detector
from rdn_engine.evaluation.boxes import iou
from rdn_engine.verify import verify
from training.checkpoints.files import load_checkpoint
from training.data.synthetic import SyntheticVideos

MODELS = Path(__file__).resolve().parents[1] / "models"
LARGEST = {"rdn_tiny": 16e6, "rdn_mini": 8e6}
"""Bytes of a whole folder"""


@pytest.mark.parametrize("name", LARGEST)
def test_it_is_whole_and_small(name: str) -> None:
    folder = MODELS / name
    assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) <= LARGEST[name]
    assert all(stage.passed for stage in verify(folder / "engines"))
    told = Detector.from_pretrained(folder / "engines", threads=1).config
    trained = load_checkpoint(folder / "model.safetensors").config
    assert replace(trained, dials=told.dials) == told


@pytest.mark.parametrize("name", LARGEST)
def test_it_finds_most_of_what_moves_in_videos_it_has_not_seen(name: str) -> None:
    detector = Detector.from_pretrained(MODELS / name / "engines", threads=1)
    objects = found = right = confident = 0
    for video in SyntheticVideos("test", 3, 16, (192, 128)):
        for result, truth, labels in zip(detector.predict(list(video.frames)), video.boxes, video.labels, strict=True):
            sure = result.confidence > 0.5
            same = result.class_id[sure][:, None] == labels
            hits = (iou(result.xyxy[sure], truth.astype(np.float32)) > 0.5) & same
            objects, found = objects + len(truth), found + int(hits.any(0).sum())
            confident, right = confident + int(sure.sum()), right + int(hits.any(1).sum())
    assert objects > 50
    assert found > 0.6 * objects
    assert right > 0.8 * confident
