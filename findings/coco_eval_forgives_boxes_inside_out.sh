#!/usr/bin/env bash
# A detection whose box has one negative side costs nothing in COCO's evaluation, however sure the detector was of it.
#
# Seen with: pycocotools 2.0.11, faster-coco-eval 1.8.0, numpy 2.4.6; Python 3.11, Linux x86-64.
# Behaviour: the area of a result is width x height, below 0 here, and what meets no object and lies outside the range
#   of areas (0 to 1e10 for `all`) is left out instead of counted as false. One object, found with 0.8, after a false
#   detection with 0.9: AP 0.5 where that is a proper box somewhere else, AP 1 where its width is -40. With both sides
#   negative the area is above 0 again, and AP 0.5. Neither library warns.
# A user of video object detection whose decoder turns a part of the boxes inside out (x2 < x1 after a clip, corners that
#   were swapped) sees a better AP for it: the wrong boxes are gone from the count, and nobody is told.
# Output seen:
#   pycocotools      false box of 40 x 40: AP 0.50  -40 x 40: AP 1.00  -40 x -40: AP 0.50
#   faster-coco-eval false box of 40 x 40: AP 0.50  -40 x 40: AP 1.00  -40 x -40: AP 0.50
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet pycocotools==2.0.11 faster-coco-eval==1.8.0 numpy==2.4.6
venv/bin/python -I -W ignore - <<'PROGRAM'
import contextlib
import io

import faster_coco_eval
import pycocotools.coco
import pycocotools.cocoeval

WHERE = {"image_id": 1, "category_id": 1}
LIBRARIES = {
    "pycocotools": (pycocotools.coco.COCO, pycocotools.cocoeval.COCOeval),
    "faster-coco-eval": (faster_coco_eval.COCO, faster_coco_eval.COCOeval_faster),
}


def average_precision(dataset, evaluation, width, height):
    with contextlib.redirect_stdout(io.StringIO()):
        truth = dataset()
        truth.dataset = {
            "images": [{"id": 1, "width": 640, "height": 480}],
            "categories": [{"id": 1, "name": "car"}],
            "annotations": [{"id": 1, **WHERE, "bbox": [10, 10, 50, 50], "area": 2500, "iscrowd": 0}],
        }
        truth.createIndex()
        wrong = {**WHERE, "bbox": [400, 300, width, height], "score": 0.9}
        found = truth.loadRes([wrong, {**WHERE, "bbox": [10, 10, 50, 50], "score": 0.8}])
        run = evaluation(truth, found, "bbox")
        run.evaluate()
        run.accumulate()
        run.summarize()
    return float(run.stats[0])


for name, library in LIBRARIES.items():
    proper, one, both = (average_precision(*library, *sides) for sides in ((40, 40), (-40, 40), (-40, -40)))
    print(f"{name:16} false box of 40 x 40: AP {proper:.2f}  -40 x 40: AP {one:.2f}  -40 x -40: AP {both:.2f}")
    assert (round(proper, 2), round(one, 2), round(both, 2)) == (0.5, 1, 0.5)
PROGRAM
