"""A detector of the size of YOLOX-s, trained for a few minutes on rendered frames, as an ONNX file.

    python benchmarks/frame/yolox.py runs/yolox_s

Ge et al., *YOLOX: Exceeding YOLO Series in 2021* (arXiv 2107.08430): depth 0.33, width 0.5, 9 M parameters. Cells are
assigned to objects by size and distance, which is simpler than theirs and enough here. Stopped at any point, the same
command goes on.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import box_iou, generalized_box_iou_loss

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from training.arguments import given_path
from training.data.drawing import CLASS_NAMES
from training.data.synthetic import SyntheticVideos
from training.model.yolox import PAFPN, STRIDES, Head, YOLOXSize
from training.state import LAST, save_state

OPSET = 18
SIZE = YOLOXSize(stem=32, depth=1, classes=len(CLASS_NAMES))
FRAME = (192, 128)
"""(width, height) of the frames that it learns from, pixels; objects are 24 to 64 pixels large"""
VIDEOS = (400, 12)
"""Videos, and frames of each"""
STEPS, BATCH = 600, 32
LEARNING_RATE, WEIGHT_DECAY, WARM_UP = 2e-3, 0.05, 100
SAVE_EVERY = 50
LARGEST = (32.0, 56.0, math.inf)
"""Longer side, pixels, up to which an object belongs to a level"""
_NEAR = 1.5  # strides from the middle of an object within which cells are its examples
_PRIOR = 0.01  # objectness of every cell before anything is learnt
_BOX_WEIGHT = 5.0


class YOLOXS(nn.Module):
    """[B, 3, H, W] -> [B, cells, 5 + C], raw: dx, dy, log w, log h, objectness, classes."""

    def __init__(self) -> None:
        super().__init__()
        self.neck, self.head = PAFPN(SIZE.stem, SIZE.depth), Head(SIZE)
        del self.head.cls_convs2  # what YOLOV relates proposals by
        for kind in ("obj", "cls"):
            for layer in getattr(self.head, f"{kind}_preds"):
                nn.init.constant_(layer.bias, math.log(_PRIOR / (1 - _PRIOR)))

    def forward(self, images: Tensor) -> Tensor:
        """Of BGR images of 0..255; objectness and classes in 0..1."""
        return self._rows(images, lambda x: x.sigmoid())

    def logits(self, images: Tensor) -> Tensor:
        """The same in front of the sigmoids."""
        return self._rows(images, lambda x: x)

    def _rows(self, images: Tensor, scores: Any) -> Tensor:
        head: Any = self.head
        rows = []
        for k, x in enumerate(self.neck(images)):
            x = head.stems[k](x)
            classes, regression = head.cls_convs[k](x), head.reg_convs[k](x)
            parts = [head.reg_preds[k](regression)]
            parts += [scores(head.obj_preds[k](regression)), scores(head.cls_preds[k](classes))]
            rows.append(torch.cat(parts, 1).flatten(2))
        return torch.cat(rows, 2).transpose(1, 2)


def cells(height: int, width: int) -> tuple[Tensor, Tensor]:
    """Columns and rows [A, 2] and strides [A] of the cells of an image, in the order of the output."""
    places, strides = [], []
    for stride in STRIDES:
        y, x = torch.meshgrid(torch.arange(height // stride), torch.arange(width // stride), indexing="ij")
        places.append(torch.stack([x, y], 2).reshape(-1, 2))
        strides.append(torch.full((y.numel(),), stride))
    return torch.cat(places).float(), torch.cat(strides).float()


def assigned(truth: Tensor, places: Tensor, strides: Tensor) -> Tensor:
    """The row of `truth` [A] that each cell is an example of, -1 for the background.

    Args:
        truth: [n, 4] edges of the objects, pixels; n may be 0.
        places, strides: of the cells.
    """
    if not len(truth):
        return torch.full((len(strides),), -1)
    centres = ((places + 0.5) * strides[:, None])[:, None]
    middles, sides = (truth[:, :2] + truth[:, 2:]) / 2, truth[:, 2:] - truth[:, :2]
    away = (centres - middles).abs()
    level = torch.bucketize(sides.amax(1), torch.tensor(LARGEST))
    fits = (away < _NEAR * strides[:, None, None]).all(2) & (away < sides / 2).all(2)
    fits &= strides[:, None] == torch.tensor(STRIDES)[level]
    # Where two meet, the smaller one is in front.
    cost = torch.where(fits, sides.prod(1), math.inf)
    least, row = cost.min(1)
    return torch.where(least.isfinite(), row, -1)


def loss(rows: Tensor, truths: list[Tensor], labels: list[Tensor], places: Tensor, strides: Tensor) -> Tensor:
    """Objectness and classes by cross entropy, boxes by their overlap, over the positive cells of the batch.

    Args:
        rows: [B, A, 5 + C] of `YOLOXS.logits`.
        truths, labels: of each image [n, 4] edges of its objects, pixels, and [n] their classes from 0.
        places, strides: of the cells.
    """
    owner = torch.stack([assigned(truth, places, strides) for truth in truths])
    image, cell = (owner >= 0).nonzero(as_tuple=True)
    objectness = F.binary_cross_entropy_with_logits(rows[..., 4], (owner >= 0).float(), reduction="sum")
    if not len(image):
        return objectness
    found, stride = rows[image, cell], strides[cell][:, None]
    middle, half = (found[:, :2] + places[cell]) * stride, found[:, 2:4].clamp(max=6).exp() * stride / 2
    boxes = torch.cat([middle - half, middle + half], 1)
    wanted = torch.stack([truths[b][owner[b, a]] for b, a in zip(image, cell, strict=True)])
    label = torch.stack([labels[b][owner[b, a]] for b, a in zip(image, cell, strict=True)])
    overlap = box_iou(boxes.detach(), wanted).diagonal().clamp(min=0)
    classes = F.one_hot(label, SIZE.classes) * overlap[:, None]
    parts = [objectness, F.binary_cross_entropy_with_logits(found[:, 5:], classes, reduction="sum")]
    parts.append(_BOX_WEIGHT * generalized_box_iou_loss(boxes, wanted, reduction="sum"))
    return torch.stack(parts).sum() / len(image)


def batch(videos: SyntheticVideos, step: int) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    """Images [B, 3, H, W] of 0..255, edges and classes of their objects.

    Half of them are mirrored; their colours are in any order, which tells no class.
    """
    rng = np.random.default_rng([step, 7])
    images, truths, labels = [], [], []
    for _ in range(BATCH):
        video, t = videos[int(rng.integers(len(videos)))], int(rng.integers(videos.num_frames))
        image, boxes = video.frames[t][..., rng.permutation(3)], video.boxes[t] + np.array([0, 0, 1, 1], np.float32)
        if rng.random() < 0.5:
            image = image[:, ::-1]
            boxes[:, [0, 2]] = image.shape[1] - boxes[:, [2, 0]]
        images.append(image)
        truths.append(torch.from_numpy(boxes))
        labels.append(torch.from_numpy(video.labels[t]))
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float(), truths, labels


def train(folder: Path) -> YOLOXS:
    """The trained detector; from `folder/last.pt`, where a training that was stopped goes on."""
    torch.manual_seed(0)
    model = YOLOXS().to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(model.parameters(), LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    done = 0
    folder.mkdir(parents=True, exist_ok=True)
    if (folder / LAST).exists():
        state = torch.load(folder / LAST, weights_only=True)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        done = state["steps"]
    videos = SyntheticVideos("train", *VIDEOS, FRAME)
    places, strides = cells(FRAME[1], FRAME[0])
    model.train()
    summed, began = 0.0, time.monotonic()
    for step in range(done, STEPS):
        rate = min((step + 1) / WARM_UP, 0.525 + 0.475 * math.cos(math.pi * step / STEPS))
        for group in optimizer.param_groups:
            group["lr"] = LEARNING_RATE * rate
        images, truths, labels = batch(videos, step)
        with torch.autocast("cpu", torch.bfloat16):
            rows = model.logits(images.contiguous(memory_format=torch.channels_last))
        optimizer.zero_grad(set_to_none=True)
        found = loss(rows.float(), truths, labels, places, strides)
        found.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 10.0)
        optimizer.step()
        summed += float(found.detach())
        if (step + 1) % SAVE_EVERY == 0 or step + 1 == STEPS:
            state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "steps": step + 1}
            save_state(folder, state)
            told = {"steps": step + 1, "loss": round(summed / SAVE_EVERY, 3), "seconds": time.monotonic() - began}
            print(json.dumps(told), file=sys.stderr, flush=True)
            summed = 0.0
    return model.eval().to(memory_format=torch.contiguous_format)


def write(model: YOLOXS, path: Path, side: int) -> None:
    """Write the ONNX file.

    Args:
        model: in evaluation mode.
        path: of the file.
        side: of the square network input, pixels, a multiple of 32.
    """
    program = torch.onnx.export(
        model, (torch.zeros(1, 3, side, side),), input_names=["images"], output_names=["output"], opset_version=OPSET,
        dynamo=True, verbose=False,
    )  # fmt: skip
    assert program is not None
    onnx.save(program.model_proto, path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("folder", type=given_path)
    parser.add_argument("--side", type=int, default=576, help="of the square network input; default: %(default)s")
    arguments = parser.parse_args()
    write(train(arguments.folder), arguments.folder / "yolox_s.onnx", arguments.side)


if __name__ == "__main__":
    main()
