#!/usr/bin/env bash
# A box at the corner of the picture, written as MOT by datumaro and read by motmetrics, begins outside at -1, -1.
#
# Seen with: datumaro 1.13.12, motmetrics 1.4.0, numpy 2.4.6; Python 3.11, Linux x86-64.
# Behaviour: MOT Challenge counts pixels from 1. motmetrics subtracts 1 from x and y of whatever it reads as `mot16`;
#   datumaro, whose exporters annotation tools use, writes the edges from 0 and reads them back as they stand. Frames
#   are numbered from 1 by both.
# A user of video object detection annotates in one tool and evaluates with the other: all boxes of the truth are a
#   pixel up and left of the detections'; of a box of 8 x 8 pixels an IoU of 0.62 is left.
# Output seen:
#   drawn 0 0 8 8; in gt.txt 0.0 0.0 8.0 8.0; motmetrics [-1.0, -1.0, 8.0, 8.0]; datumaro [0.0, 0.0, 8.0, 8.0]
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet datumaro==1.13.12
python3 -m venv other  # the two may want different packages
other/bin/pip install --quiet motmetrics==1.4.0 numpy==2.4.6
venv/bin/python -I - 2>messages <<'PROGRAM' || { cat messages >&2; exit 1; }
import json
from pathlib import Path

import datumaro as dm
import numpy as np
from datumaro.components.dataset import Dataset

box = dm.Bbox(0, 0, 8, 8, label=0, attributes={"track_id": 1})
item = dm.DatasetItem("000001", media=dm.Image.from_numpy(np.zeros((48, 64, 3), np.uint8)), annotations=[box])
Dataset.from_iterable([item], categories=["car"]).export("MOT", "mot_seq_gt", save_media=True)
again = next(iter(Dataset.import_from("MOT", "mot_seq"))).annotations[0]
Path("datumaro.json").write_text(json.dumps([again.x, again.y, again.w, again.h]))
PROGRAM
other/bin/python -I - <<'PROGRAM'
import json
from pathlib import Path

import motmetrics

again = json.loads(Path("datumaro.json").read_text())
line = Path("MOT/gt/gt.txt").read_text().split(",")
table = motmetrics.io.loadtxt("MOT/gt/gt.txt", fmt="mot16")
read = table[["X", "Y", "Width", "Height"]].to_numpy(float)[0].tolist()
print(f"drawn 0 0 8 8; in gt.txt {' '.join(line[2:6])}; motmetrics {read}; datumaro {again}")
assert line[:6] == ["1", "1", "0.0", "0.0", "8.0", "8.0"]
assert read == [-1, -1, 8, 8] and again == [0, 0, 8, 8]
PROGRAM
