"""Small annotated videos and detections, drawn at random, for the tests of the evaluation."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import torch

from benchmarks.frame.models import draw_relation
from rdn_engine.config import BackboneConfig, Dials, RDNConfig, RelationConfig, RoIConfig, RPNConfig
from rdn_engine.evaluation.coco_vid import Annotation, Category, Dataset, Frame, Video
from rdn_engine.input_config import InputConfig
from tests.reference_evaluation import Box, Detection
from training.data.synthetic import CLASS_NAMES
from training.evaluation.videos import AnnotatedVideos
from training.model.rdn import RDN

LENGTH = 14
NAMES = ("cat", "dog", "owl")


def draw_case(seed, videos=2, tracked=True):
    """Objects on straight paths of all speeds, some hidden at times; detections near them, doubled, and elsewhere."""
    rng = np.random.default_rng(seed)
    boxes, detections = [], []
    for v in range(videos):
        for instance in range(int(rng.integers(1, 5))):
            label, size = int(rng.integers(3)), rng.uniform(8, 30, 2)
            start, step = rng.uniform(0, 60, 2), rng.uniform(-1, 1, 2) * rng.choice([0.1, 1, 6])
            first, last = sorted(rng.integers(0, LENGTH, 2).tolist())
            for t in range(first, last + 1):
                if rng.random() < 0.15:
                    continue
                corner = start + step * t
                xyxy = (*corner.tolist(), *(corner + size).tolist())
                boxes.append(Box(v * LENGTH + t, label, xyxy, False, instance if tracked else None))
        for _ in range(int(rng.integers(0, 3))):
            corner = rng.uniform(0, 60, 2)
            xyxy = (*corner.tolist(), *(corner + 40).tolist())
            boxes.append(Box(v * LENGTH + int(rng.integers(LENGTH)), int(rng.integers(3)), xyxy, True))
    for b in boxes:
        for _ in range(int(rng.integers(0, 4))):
            xyxy = tuple((np.array(b.xyxy) + rng.normal(0, 2, 4)).tolist())
            label = b.label if rng.random() < 0.8 else int(rng.integers(3))
            detections.append(Detection(b.frame, label, xyxy, float(np.float32(round(rng.random(), 2)))))
    for _ in range(25):
        corner = rng.uniform(0, 90, 2)
        xyxy = (*corner.tolist(), *(corner + rng.uniform(4, 30, 2)).tolist())
        confidence = float(np.float32(round(rng.random() * 0.6, 2)))
        detections.append(Detection(int(rng.integers(videos * LENGTH)), int(rng.integers(3)), xyxy, confidence))
    return boxes, sorted(detections, key=lambda d: d.frame)


def as_videos(boxes, videos=2):
    """The boxes as a data set whose frame ids are those of the boxes; nothing to read."""
    dataset = Dataset([Category(10 * i, name) for i, name in enumerate(NAMES)])
    dataset.videos = [Video(v, f"video {v}") for v in range(videos)]
    dataset.frames = [Frame(i, i // LENGTH, i % LENGTH, f"{i}.png", 100, 100) for i in range(videos * LENGTH)]
    dataset.annotations = [
        Annotation(i, b.frame, 10 * b.label, b.xyxy, b.instance, b.ignore) for i, b in enumerate(boxes)
    ]
    return AnnotatedVideos("drawn", dataset, lambda frame: np.zeros((100, 100, 3), np.uint8))


def as_found(detections, videos=2):
    """By frame id, in float64, so that boxes are those of the reference to the last bit"""
    found = {}
    for frame in range(videos * LENGTH):
        rows = [d for d in detections if d.frame == frame]
        found[frame] = SimpleNamespace(
            xyxy=np.array([d.xyxy for d in rows], np.float64).reshape(-1, 4),
            confidence=np.array([d.confidence for d in rows], np.float64),
            class_id=np.array([d.label for d in rows], np.int64),
        )
    return found


def micro_model():
    """Untrained, as small as they come"""
    config = RDNConfig(
        class_names=CLASS_NAMES,
        input=InputConfig(shorter_side=64, longer_side=96),
        backbone=BackboneConfig("resnet18", width=0.25, norm_eps=1e-5),
        rpn=RPNConfig(anchor_sizes=(16, 32)),
        roi=RoIConfig(size=3, reduce_channels=16),
        relation=RelationConfig(dim=64, heads=4),
        dials=Dials(window=1, num_support=5, num_reference=12, advanced_ratio=0.4),
    )
    torch.manual_seed(0)
    model = RDN(config)
    draw_relation(model.relation)
    return model
