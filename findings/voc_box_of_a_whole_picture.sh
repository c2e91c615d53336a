#!/usr/bin/env bash
# One VOC file, two readers, two boxes: supervision moves the top left corner by a pixel, datumaro does not.
#
# Seen with: supervision 0.31.2, datumaro 1.13.12, opencv-python-headless 5.0.0.93; Python 3.11, Linux x86-64.
# Behaviour: VOC and ImageNet VID count pixels from 1 with both ends inside, so a whole picture of 64 x 48 is
#   1 1 64 48. supervision reads 0 0 64 48, the box's edges from 0; datumaro keeps 1 1 64 48, of 63 x 47. What
#   supervision writes is whole pixels, halves to the even one: 10.5 10 20 30 comes back as 11 10 20 30.
# A user of video object detection who mixes tools, one for training and one for evaluation, moves every box by up to
#   a pixel: an IoU of 0.96 for a perfect box of this size, less for small ones, and nothing looks wrong in a picture.
# Output seen:
#   1 1 64 48: supervision [0, 0, 64, 48], datumaro [1, 1, 64, 48]
#   10.5 10 20 30 through supervision: [11, 10, 20, 30]
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet supervision==0.31.2 opencv-python-headless==5.0.0.93 numpy==2.4.6
python3 -m venv other  # the two may want different packages
other/bin/pip install --quiet datumaro==1.13.12
mkdir -p VOC/JPEGImages VOC/Annotations VOC/ImageSets/Main
echo frame >VOC/ImageSets/Main/train.txt
cat >VOC/Annotations/frame.xml <<'XML'
<annotation><folder>VOC</folder><filename>frame.png</filename>
<size><width>64</width><height>48</height><depth>3</depth></size><segmented>0</segmented>
<object><name>car</name><pose>Unspecified</pose><truncated>0</truncated><difficult>0</difficult>
<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>64</xmax><ymax>48</ymax></bndbox></object></annotation>
XML
venv/bin/python -I - >supervision.json <<'PROGRAM'
import json

import cv2
import numpy as np
import supervision as sv

cv2.imwrite("VOC/JPEGImages/frame.png", np.zeros((48, 64, 3), np.uint8))
read = sv.DetectionDataset.from_pascal_voc("VOC/JPEGImages", "VOC/Annotations")
path, _, whole = next(iter(read))
fine = sv.Detections(xyxy=np.array([[10.5, 10, 20, 30]]), class_id=np.array([0]))
written = sv.DetectionDataset(classes=["car"], images=[path], annotations={path: fine})
written.as_pascal_voc(annotations_directory_path="again")
_, _, back = next(iter(sv.DetectionDataset.from_pascal_voc("VOC/JPEGImages", "again")))
print(json.dumps([whole.xyxy[0].tolist(), back.xyxy[0].tolist()]))
PROGRAM
other/bin/python -I - 2>messages <<'PROGRAM' || { cat messages >&2; exit 1; }
import json
from pathlib import Path

from datumaro.components.dataset import Dataset

whole, back = json.loads(Path("supervision.json").read_text())
item = next(iter(Dataset.import_from("VOC", "voc")))
kept = item.annotations[0].points
show = lambda box: [round(value) if value == round(value) else value for value in box]
print(f"1 1 64 48: supervision {show(whole)}, datumaro {show(kept)}")
print(f"10.5 10 20 30 through supervision: {show(back)}")
assert whole == [0, 0, 64, 48] and list(kept) == [1, 1, 64, 48]
assert back == [11, 10, 20, 30]
PROGRAM
