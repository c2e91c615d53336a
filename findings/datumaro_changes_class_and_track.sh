#!/usr/bin/env bash
# Written and read back by datumaro, class 1 is 1, 2 or 0 by the format, and a CVAT file has lost the tracks.
#
# Seen with: datumaro 1.13.12, numpy from it; Python 3.11, Linux x86-64.
# Behaviour: the same boxes of class 1 (of car, dog) with track 7. VOC puts a class "background" in front, LabelMe keeps
#   the classes that occur and no others, COCO keeps the numbers. The CVAT exporter writes a picture's boxes without
#   their `track_id`, and raises nothing; COCO and LabelMe keep it as a number, VOC as text.
# A user of video object detection converts a data set and trains on `label` as it stands: every class is another one.
#   Tracks that go through CVAT's format come back as boxes that have nothing to do with each other.
# Output seen:
#   coco     classes car dog             label 1 track 7
#   voc      classes background car dog  label 2 track '7'
#   label_me classes dog                 label 0 track 7
#   cvat     classes car dog             label 1 track None
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet datumaro==1.13.12
venv/bin/python -I - 2>messages <<'PROGRAM' || { cat messages >&2; exit 1; }
import datumaro as dm
import numpy as np
from datumaro.components.annotation import AnnotationType
from datumaro.components.dataset import Dataset


def seen(form):
    items = [
        dm.DatasetItem(
            f"frame{number}",
            subset="train",
            media=dm.Image.from_numpy(np.zeros((48, 64, 3), np.uint8)),
            attributes={"frame": number},
            annotations=[dm.Bbox(10, 20, 30, 20, label=1, attributes={"track_id": 7})],
        )
        for number in range(2)
    ]
    Dataset.from_iterable(items, categories=["car", "dog"]).export(form, form, save_media=True)
    again = Dataset.import_from(form, form)
    names = [label.name for label in again.categories()[AnnotationType.label]]
    boxes = [box for item in again for box in item.annotations if box.type == AnnotationType.bbox]
    assert len(boxes) == 2 and names[boxes[0].label] == "dog"
    (found,) = {(box.label, box.attributes.get("track_id")) for box in boxes}
    known = [name for name in names if name in ("background", "car", "dog")]
    print(f"{form:8} classes {' '.join(known[:3]):19} label {found[0]} track {found[1]!r}")
    return found


assert seen("coco") == (1, 7)
assert seen("voc") == (2, "7")
assert seen("label_me") == (0, 7)
assert seen("cvat") == (1, None)
PROGRAM
