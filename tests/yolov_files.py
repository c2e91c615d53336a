"""A small YOLOV's checkpoint in the public layout, its weights random."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rdn_engine.config import CosineConfig
from training.model.yolov import YOLOV
from training.model.yolox import YOLOXSize

CLASSES = ("cat", "dog", "fox")
SIZE = (64, 96)
SMALL = YOLOXSize(stem=8, depth=1, classes=len(CLASSES))


def small_state(classes: int = len(CLASSES)) -> dict[str, Tensor]:
    """By the public names; scores are all over 0..1."""
    torch.manual_seed(3)
    model = YOLOV(replace(SMALL, classes=classes), CosineConfig())
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.weight.data.uniform_(1.5, 2.5)
            module.bias.data.normal_(0, 0.5)
    for level in model.head.cls_preds:
        level.weight.data.mul_(8)  # type: ignore[operator, union-attr]
    return model.state_dict()


def small_checkpoint(path: Path, classes: int = len(CLASSES), **beside: Any) -> Path:
    torch.save({"model": small_state(classes), **beside}, path)
    return path
