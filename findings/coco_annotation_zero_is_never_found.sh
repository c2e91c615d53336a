#!/usr/bin/env bash
# A COCO annotation whose id is 0 counts as missed, however well it was detected.
#
# Seen with: pycocotools 2.0.11, faster-coco-eval 1.8.0 (which warns), numpy 2.4.6; Python 3.11, Linux x86-64.
# Behaviour: the matching writes down the id of the annotation that a detection met, and 0 for none. Two annotations,
#   both detected exactly: AP 1 with ids 1 and 2, AP 0.25 with 0 and 1, from either library. Nothing in the format
#   forbids 0, and category and image ids may be 0.
# A user of video object detection whose converter numbers from 0 loses one box of a data set, which nobody sees in
#   thousands; on a small clip of a few boxes it is most of the difference between two models.
# Output seen:
#   pycocotools      ids 1, 2: AP 1.00  ids 0, 1: AP 0.25
#   faster-coco-eval ids 1, 2: AP 1.00  ids 0, 1: AP 0.25
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet pycocotools==2.0.11 faster-coco-eval==1.8.0 numpy==2.4.6
venv/bin/python -I -W ignore - <<'PROGRAM'
import contextlib
import copy
import io

import faster_coco_eval
import pycocotools.coco
import pycocotools.cocoeval

BOXES = [[10, 10, 50, 50], [100, 10, 50, 50]]
LIBRARIES = {
    "pycocotools": (pycocotools.coco.COCO, pycocotools.cocoeval.COCOeval),
    "faster-coco-eval": (faster_coco_eval.COCO, faster_coco_eval.COCOeval_faster),
}


def average_precision(dataset, evaluation, first):
    where = {"image_id": 0, "category_id": 0}
    with contextlib.redirect_stdout(io.StringIO()):
        truth = dataset()
        truth.dataset = {
            "images": [{"id": 0, "width": 640, "height": 480}],
            "categories": [{"id": 0, "name": "car"}],
            "annotations": [
                {"id": number, **where, "bbox": box, "area": 2500, "iscrowd": 0}
                for number, box in enumerate(copy.deepcopy(BOXES), first)
            ],
        }
        truth.createIndex()
        found = truth.loadRes([{**where, "bbox": box, "score": 0.9} for box in copy.deepcopy(BOXES)])
        run = evaluation(truth, found, "bbox")
        run.evaluate()
        run.accumulate()
        run.summarize()
    return float(run.stats[0])


for name, library in LIBRARIES.items():
    one, zero = average_precision(*library, 1), average_precision(*library, 0)
    print(f"{name:16} ids 1, 2: AP {one:.2f}  ids 0, 1: AP {zero:.2f}")
    assert round(one, 2) == 1 and 0 < zero < 0.3
PROGRAM
