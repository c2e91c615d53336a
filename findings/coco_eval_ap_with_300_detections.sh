#!/usr/bin/env bash
# pycocotools says an AP of -1 as soon as the limit of detections is not 100, beside AP50 and AP75 of 1.
#
# Seen with: pycocotools 2.0.11, faster-coco-eval 1.8.0, numpy 2.4.6; Python 3.11, Linux x86-64.
# Behaviour: `params.maxDets` sets the three limits. The line for AP alone looks for a limit of 100 whatever was set,
#   finds none and gives -1, which elsewhere means that there is nothing to find; the other lines use the last limit.
#   faster-coco-eval, written to take its place, gives 1 for the same detections.
# A user of video object detection raises the limit to 300, because a frame of traffic or a crowd holds more than 100,
#   and selects the best checkpoint by `stats[0]`: -1 for each of them.
# Output seen (AP, AP50, AP75):
#   pycocotools      [1, 10, 100]: 1 1 1
#   pycocotools      [1, 10, 300]: -1 1 1
#   faster-coco-eval [1, 10, 100]: 1 1 1
#   faster-coco-eval [1, 10, 300]: 1 1 1
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet pycocotools==2.0.11 faster-coco-eval==1.8.0 numpy==2.4.6
venv/bin/python -I - <<'PROGRAM'
import contextlib
import copy
import io

import faster_coco_eval
import pycocotools.coco
import pycocotools.cocoeval

TRUTH = {
    "images": [{"id": 1, "width": 640, "height": 480}],
    "categories": [{"id": 1, "name": "car"}],
    "annotations": [
        {"id": 1, "image_id": 1, "category_id": 1, "bbox": [10, 10, 50, 50], "area": 2500, "iscrowd": 0}
    ],
}
FOUND = [{"image_id": 1, "category_id": 1, "bbox": [10, 10, 50, 50], "score": 0.9}]
LIBRARIES = {
    "pycocotools": (pycocotools.coco.COCO, pycocotools.cocoeval.COCOeval),
    "faster-coco-eval": (faster_coco_eval.COCO, faster_coco_eval.COCOeval_faster),
}
seen = {}
for name, (dataset, evaluation) in LIBRARIES.items():
    for limits in ([1, 10, 100], [1, 10, 300]):
        with contextlib.redirect_stdout(io.StringIO()):
            truth = dataset()
            truth.dataset = copy.deepcopy(TRUTH)
            truth.createIndex()
            run = evaluation(truth, truth.loadRes(copy.deepcopy(FOUND)), "bbox")
            run.params.maxDets = limits
            run.evaluate()
            run.accumulate()
            run.summarize()
        seen[name, limits[2]] = [round(float(value), 6) for value in run.stats[:3]]
        print(f"{name:16} {limits}:", *(f"{value:g}" for value in seen[name, limits[2]]))
assert seen == {
    ("pycocotools", 100): [1, 1, 1],
    ("pycocotools", 300): [-1, 1, 1],
    ("faster-coco-eval", 100): [1, 1, 1],
    ("faster-coco-eval", 300): [1, 1, 1],
}
PROGRAM
