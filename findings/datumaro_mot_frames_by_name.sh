#!/usr/bin/env bash
# Exported as MOT by datumaro, the same three frames are 0, 1, 2 or 1, 2, 3 by the names of their images.
#
# Seen with: datumaro 1.13.12, numpy from it; Python 3.11, Linux x86-64.
# Behaviour: MOT Challenge numbers frames from 1. An item whose name is a number keeps it, so images 000000.png and on
#   become frame 0 and on; an item with any other name, as frame_000000.png of a video, is counted from 1.
# A user of video object detection exports both kinds: boxes of the first are a frame late in every reader that
#   subtracts one, or frame 0 is lost, and nothing looks wrong but fast objects.
# Output seen:
#   frame_000000 frame_000001 frame_000002: frames 1 2 3, images 000001 000002 000003
#   000000 000001 000002: frames 0 1 2, images 000000 000001 000002
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet datumaro==1.13.12
venv/bin/python -I - 2>messages <<'PROGRAM' || { cat messages >&2; exit 1; }
from pathlib import Path

import datumaro as dm
import numpy as np
from datumaro.components.dataset import Dataset


def exported(folder, names):
    items = [
        dm.DatasetItem(
            name,
            media=dm.Image.from_numpy(np.zeros((24, 32, 3), np.uint8), ext=".png"),
            attributes={"frame": t},
            annotations=[dm.Bbox(2 + t, 3, 10, 8, label=0, attributes={"track_id": 7})],
        )
        for t, name in enumerate(names)
    ]
    Dataset.from_iterable(items, categories=["car"]).export(folder, "mot_seq_gt", save_media=True, image_ext=".png")
    frames = [line.split(",")[0] for line in Path(folder, "gt/gt.txt").read_text().split()]
    images = sorted(path.stem for path in Path(folder, "img1").iterdir())
    print(f"{' '.join(names)}: frames {' '.join(frames)}, images {' '.join(images)}")
    return frames


assert exported("video", [f"frame_{t:06d}" for t in range(3)]) == ["1", "2", "3"]
assert exported("numbers", [f"{t:06d}" for t in range(3)]) == ["0", "1", "2"]
PROGRAM
