"""A small YOLOV's checkpoint in the public layout, its weights random."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from rdn_engine.config import CosineConfig
from training.data.synthetic import SyntheticVideos
from training.model.yolov import YOLOV
from training.model.yolox import YOLOXSize

CLASSES = ("cat", "dog", "fox")
SIZE = (64, 96)
SMALL = YOLOXSize(stem=8, depth=1, classes=len(CLASSES))


@torch.no_grad()
def small_state(classes: int = len(CLASSES)) -> dict[str, Tensor]:
    """By the public names. On rendered videos no layer saturates, and scores spread over 0..1."""
    torch.manual_seed(3)
    model = YOLOV(replace(SMALL, classes=classes), CosineConfig())
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0  # what one batch has is the statistics
            module.bias.normal_(0, 0.3)
    for name, spread in (("cls", 1.0), ("obj", 1.0), ("reg", 0.3)):
        for level in cast("nn.ModuleList", getattr(model.head, f"{name}_preds")):
            assert isinstance(level, nn.Conv2d)
            level.weight.normal_(0, spread * level.in_channels**-0.5)
    videos = SyntheticVideos("train", num_videos=16, num_frames=1)
    frames = torch.from_numpy(np.concatenate([videos[v].frames for v in range(16)])).permute(0, 3, 1, 2).flip(1).float()
    model.train().anchors(torch.cat([nn.functional.interpolate(frames, SIZE), 255 * torch.rand(8, 3, *SIZE)]))
    return model.state_dict()


def small_checkpoint(path: Path, classes: int = len(CLASSES), **beside: Any) -> Path:
    torch.save({"model": small_state(classes), **beside}, path)
    return path
