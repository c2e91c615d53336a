#!/usr/bin/env bash
# A far-away box of another class decides whether torchvision's batched_nms keeps a detection.
#
# Seen with: torchvision 0.29.1, torch 2.14.1, on a CPU; Python 3.11, Linux x86-64.
# Behaviour: up to 1000 boxes (4000 numbers; more on a GPU) each class is moved to a place of its own, by the class
#   number times the largest coordinate, and one NMS does all. Class 79 of a full HD frame is moved by some 145,000
#   pixels, where float32 has steps of 1/64: the IoU of two boxes of 10 pixels, 0.5001, is then not above 0.5, and both
#   stay. From 1001 boxes on the classes are taken one by one, without that rounding, and one goes.
# A user of video object detection sees a small object counted twice in some frames of a still scene, and differences
#   between two builds that come from the number of boxes alone.
# Output seen:
#   IoU of the two: 0.5001, threshold 0.5
#   1000 boxes: 2 of the two are kept
#   1001 boxes: 1 of the two is kept
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet torch==2.14.1 torchvision==0.29.1
venv/bin/python -I -W ignore - <<'PROGRAM'
import torch
from torchvision.ops import batched_nms, box_iou

x = 1234.567
PAIR = torch.tensor([[x, 900.1, x + 10, 910.1], [x + 3.332, 900.1, x + 13.332, 910.1]])


def kept(count):
    """of the pair in class 79, among boxes of class 0 that overlap nothing"""
    place = torch.arange(count - 2)
    left, top = (place % 40) * 45.0, (place // 40) * 25.0
    boxes = torch.cat([PAIR, torch.stack([left, top, left + 20, top + 20], 1)])
    scores = torch.cat([torch.tensor([0.9, 0.8]), torch.full((count - 2,), 0.1)])
    classes = torch.cat([torch.tensor([79, 79]), torch.zeros(count - 2, dtype=torch.int64)])
    rows = batched_nms(boxes, scores, classes, 0.5).tolist()
    assert len(rows) == count - 2 + sum(row < 2 for row in rows)  # no other box was touched
    return sum(row < 2 for row in rows)


overlap = float(box_iou(PAIR[:1], PAIR[1:]))
print(f"IoU of the two: {overlap:.4f}, threshold 0.5")
few, many = kept(1000), kept(1001)
print(f"1000 boxes: {few} of the two are kept")
print(f"1001 boxes: {many} of the two is kept")
assert 0.5001 < overlap < 0.5003 and (few, many) == (2, 1)
PROGRAM
