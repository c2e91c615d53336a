"""Kernels on boxes that `kernels.py` times: detections, suppression, following."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
import torchvision.ops
from numpy.typing import NDArray
from torch import Tensor, nn

from benchmarks.kernel.case import (
    HEIGHT,
    WIDTH,
    Case,
    N,
    public_config,
    random_boxes,
)
from rdn_engine.kernels import cpu
from tests import reference
from training.model import boxes as box_ops
from training.model.inference import select_detections


def detect() -> Case:
    """Softmax, class-wise decoding and NMS of 300 proposals in 30 classes."""
    rng, config = np.random.default_rng(5), public_config()
    logits = rng.normal(0, 2, (N, config.num_logits)).astype(np.float32)
    logits[:, 0] += 2
    deltas = rng.normal(0, 0.5, (N, 4 * config.num_logits)).astype(np.float32)
    boxes, d = random_boxes(rng, N), config.detection

    class Detect(nn.Module):
        def forward(self, logits: Tensor, deltas: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
            return select_detections(logits, deltas, boxes, (HEIGHT, WIDTH), config, 0.001)[:2]

    tensors = tuple(torch.from_numpy(a) for a in (logits, deltas, boxes))

    def batched() -> tuple[Tensor, Tensor]:
        probability, decoded = tensors[0].softmax(-1), tensors[1].unflatten(1, (-1, 4))
        decoded = box_ops.clip(box_ops.decode(decoded, tensors[2][:, None], d.box_weights), (HEIGHT, WIDTH))
        row, label = (probability[:, 1:] > 0.001).nonzero().T
        xyxy, score = decoded[row, label + 1], probability[row, label + 1]
        open_sides = xyxy + xyxy.new_tensor([0, 0, 1, 1])
        keep = torchvision.ops.batched_nms(open_sides, score, label, d.nms_threshold)[: d.max_detections]
        return xyxy[keep], score[keep]

    def ours() -> cpu.Boxes:
        return cpu.detect(logits, deltas, boxes, network_size=(HEIGHT, WIDTH), config=d, score_threshold=0.001)

    def compare(found: cpu.Boxes, theirs: Sequence[NDArray[Any]]) -> float:
        same = found.xyxy.shape == theirs[0].shape
        return float(np.abs(found.confidence - theirs[1]).max()) if same else np.inf

    return Case(
        "detections: softmax, decode, NMS per class",
        ours,
        Detect(),
        tensors,
        compare,
        1e-5,
        "confidence, of all detections in order",
        moved=logits.nbytes + deltas.nbytes + boxes.nbytes + 24 * d.max_detections,
        operations=N * config.num_logits * 30,
        others={"torchvision batched_nms": batched},
        left_out={"ONNX Runtime": "torch exports no loop whose length depends on the scores"},
    )


def suppress() -> Case:
    """NMS within 80 classes of the 3,549 boxes of a detector of 416 x 416 pixels, 100 kept."""
    rng = np.random.default_rng(6)
    n, classes, threshold, most = 3549, 80, 0.75, 100
    boxes, scores = random_boxes(rng, n), rng.random(n).astype(np.float32)
    labels = rng.integers(0, classes, n)

    class Suppress(nn.Module):
        def forward(self, boxes: Tensor, scores: Tensor, labels: Tensor) -> Tensor:
            best = scores.argsort(descending=True, stable=True)[:1000]
            found = boxes[best] + boxes.new_tensor([0, 0, 1, 1])
            return best[torchvision.ops.batched_nms(found, scores[best], labels[best], threshold)[:most]]

    def ours() -> NDArray[np.int64]:
        return cpu.suppress(boxes, scores, labels, num_classes=classes, top_n=1000, nms_threshold=threshold, most=most)

    def compare(found: NDArray[np.int64], theirs: Sequence[NDArray[Any]]) -> float:
        return float(not np.array_equal(found, theirs[0]))

    return Case(
        "suppression: NMS of given boxes per class",
        ours,
        Suppress(),
        tuple(torch.from_numpy(a) for a in (boxes, scores, labels)),
        compare,
        0,
        "rows kept, in order",
        moved=boxes.nbytes + scores.nbytes + labels.nbytes + 8 * most,
        operations=n * 12,
        left_out={"ONNX Runtime": "torch exports no batched_nms whose rows depend on the scores"},
    )


def follow() -> Case:
    """Twelve boxes on pictures of a frame in blocks of 2 x 2 pixels, each wholly in sight wherever it is looked for."""
    rng = np.random.default_rng(7)
    height, width, count = HEIGHT // 2, WIDTH // 2, 12
    coarse = rng.integers(0, 256, (height // 5, width // 5, 3)).astype(np.uint8)
    before = np.ascontiguousarray(coarse.repeat(5, 0).repeat(5, 1))
    noisy = np.roll(before, (3, 5), (0, 1)) + rng.normal(0, 4, before.shape)
    after = noisy.clip(0, 255).astype(np.uint8)
    centre, side = rng.uniform([200, 130], [300, 170], (count, 2)), rng.uniform(30, 80, (count, 2))
    boxes = np.concatenate([centre - side / 2, centre + side / 2], 1).astype(np.float32)
    guess = rng.normal(0, 3, (count, 2)).astype(np.float32)
    cells, reach, around, noise, farther, fade = 12, 8, 1.2, 4.0, 0.5, 1.5  # rdn/following.h and csrc/cpu/following.cpp
    places = 2 * reach + 1

    class Follow(nn.Module):
        def forward(self, before: Tensor, after: Tensor, boxes: Tensor, guess: Tensor) -> tuple[Tensor, Tensor]:
            step = around * (boxes[:, 2:] - boxes[:, :2]) / cells
            corner = (boxes[:, :2] + boxes[:, 2:] - cells * step) / 2
            known = self.means(before, corner, step, cells)
            seen = self.means(after, corner + guess - reach * step, step, cells + 2 * reach)
            there = seen.unfold(1, cells, 1).unfold(2, cells, 1)  # [n, places, places, 3, cells, cells]
            known = known.permute(0, 3, 1, 2)[:, None, None]
            side = torch.exp(-fade * (around * (2 * (torch.arange(cells) + 0.5) / cells - 1)) ** 2)
            weights = side[:, None] * side / side.sum() ** 2
            known, there = (x - (weights * x).sum((-2, -1), keepdim=True) for x in (known, there))
            products = known * there, known**2, there**2
            shared, own, other = ((weights * x).sum((-3, -2, -1)) for x in products)
            like = (shared + noise) / ((own + noise) * (other + noise)).sqrt()
            far = ((torch.arange(places) - reach) * around / cells) ** 2
            worth = like - farther * (far[:, None] + far)
            best = worth.flatten(1).argmax(1)
            rows, places_of = torch.arange(len(boxes)), (best % places, best // places)
            tops = [self.top(worth, rows, *places_of, axis) for axis in (0, 1)]
            moved = torch.stack([p - reach + top for p, top in zip(places_of, tops, strict=True)], 1)
            return guess + moved * step, like.flatten(1)[rows, best]

        def means(self, picture: Tensor, corner: Tensor, step: Tensor, side: int) -> Tensor:
            """[n, side, side, 3] over cells, from sums over all that is above and left."""
            sums = F.pad(picture.double().cumsum(0).cumsum(1), (0, 0, 1, 0, 1, 0))
            edges = corner[:, None] + torch.arange(side + 1)[:, None] * step[:, None]  # [n, side + 1, 2]
            low = edges.floor().long()
            part = (edges - low).double()
            x, y, right, down = low[..., 0], low[..., 1], part[..., 0], part[..., 1]
            rows = torch.lerp(sums[y], sums[y + 1], down[..., None, None])  # [n, side + 1, w + 1, 3]
            each = torch.arange(len(x))[:, None, None]
            at = torch.lerp(
                rows[each, torch.arange(side + 1)[:, None], x[:, None]],
                rows[each, torch.arange(side + 1)[:, None], x[:, None] + 1],
                right[:, None, :, None],
            )
            return (at.diff(dim=1).diff(dim=2) / step.prod(1)[:, None, None, None]).float()

        def top(self, worth: Tensor, rows: Tensor, column: Tensor, row: Tensor, axis: int) -> Tensor:
            """Of the parabola through three places, from the middle one."""
            place = column if axis == 0 else row
            three = []
            for off in (-1, 0, 1):
                moved = (place + off).clamp(0, places - 1)
                three.append(worth[rows, row, moved] if axis == 0 else worth[rows, moved, column])
            bend = three[0] - 2 * three[1] + three[2]
            inside = (place > 0) & (place < places - 1) & (bend < 0)
            at = 0.5 * (three[0] - three[2]) / torch.where(inside, bend, -torch.ones_like(bend))
            return torch.where(inside, at.clamp(-0.5, 0.5), torch.zeros_like(at))

    def truth() -> list[NDArray[Any]]:
        moved, likeness = [], []
        pictures = [picture.astype(np.float64) for picture in (before, after)]
        for box, start in zip(boxes, guess, strict=True):
            like, worth = reference.follow(pictures[0], pictures[1], box.astype(np.float64), start.astype(np.float64))
            row, column = np.unravel_index(worth.argmax(), worth.shape)
            step = around * (box[2:] - box[:2]) / cells
            tops = []
            for line, place in ((worth[row], column), (worth[:, column], row)):
                inside = 0 < place < places - 1
                a, b, c = line[place - 1 : place + 2] if inside else (0.0, 0.0, 0.0)
                tops.append(place - reach + (0.5 * (a - c) / (a - 2 * b + c) if inside else 0.0))
            moved.append(start + np.array(tops) * step)
            likeness.append(like[row, column])
        return [np.array(moved), np.array(likeness)]

    def compare(found: tuple[NDArray[Any], NDArray[Any]], theirs: Sequence[NDArray[Any]]) -> float:
        return max(float(np.abs(ours - other).max()) for ours, other in zip(found, theirs, strict=True))

    return Case(
        "following of boxes",
        lambda: cpu.follow(before, after, boxes=boxes, guess=guess),
        Follow(),
        tuple(torch.from_numpy(a) for a in (before, after, boxes, guess)),
        compare,
        0.01,
        "pixels of the pictures, and likeness",
        moved=before.nbytes + after.nbytes + boxes.nbytes + 20 * count,
        operations=2 * 3 * count * (places * cells) ** 2,
        truth=truth,
    )
