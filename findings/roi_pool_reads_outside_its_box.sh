#!/usr/bin/env bash
# torchvision's roi_pool over a box of 57 cells in 7 bins takes the 58th cell too; of 56 cells it takes 56.
#
# Seen with: torchvision 0.29.1, torch 2.14.1, on a CPU; Python 3.11, Linux x86-64.
# Behaviour: the end of the last bin is 57 / 7 * 7, in float32 a little more than 57, and rounded up to 58. The maximum
#   of that bin is then of a cell outside the box. Of the widths up to 200 it is so for 57, 114 and 121.
# A user of video object detection who writes the operator anew, for TensorRT or in numpy, is right everywhere and
#   differs by a whole activation at some sizes: 57 cells at stride 16 are 912 pixels, an object that fills the frame.
# Output seen (the map's value is the cell's number; 7 bins of boxes from cell 0):
#   56 cells: 7 15 23 31 39 47 55
#   57 cells: 8 16 24 32 40 48 57, the last cell inside is 56
#   widths up to 200 that end a cell late: 57 114 121
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet torch==2.14.1 torchvision==0.29.1
venv/bin/python -I -W ignore - <<'PROGRAM'
import torch
from torchvision.ops import roi_pool

MAP = torch.arange(300.0).expand(1, 1, 2, 300).contiguous()


def bins(width):
    box = torch.tensor([[0, 0, 0, width - 1, 1]], dtype=torch.float32)  # its last cell is inside
    return [int(value) for value in roi_pool(MAP, box, (1, 7))[0, 0, 0]]


print("56 cells:", *bins(56))
print("57 cells:", *bins(57), end=", the last cell inside is 56\n")
late = [width for width in range(1, 201) if bins(width)[-1] != width - 1]
print("widths up to 200 that end a cell late:", *late)
assert bins(56) == [7, 15, 23, 31, 39, 47, 55]
assert bins(57) == [8, 16, 24, 32, 40, 48, 57]
assert late == [57, 114, 121]
PROGRAM
