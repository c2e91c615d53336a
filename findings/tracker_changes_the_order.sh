#!/usr/bin/env bash
# Three detections in, three out, in another order: ByteTrack and OC-SORT of `trackers` shuffle, SORT does not.
#
# Seen with: trackers 2.6.1, supervision 0.31.2, numpy 2.4.6; Python 3.11, Linux x86-64.
# Behaviour: `update` returns a new Detections with `tracker_id`, sorted into those that were matched first, and by
#   confidence; ByteTrack keeps the order in the first frame and changes it from the second on. The number of rows is
#   the same, so nothing fails.
# A user of video object detection keeps features, masks or distances of the detections in a list of their own and
#   indexes it by the row: each object gets another one's, from the second frame on.
# Output seen (class of each row in frames 0 to 3; in: 0 1 2 of confidence 0.3, 0.9, 0.6):
#   ByteTrackTracker 012 102 102 102
#   OCSORTTracker    120 120 120 120
#   SORTTracker      012 012 012 012
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet trackers==2.6.1 supervision==0.31.2 numpy==2.4.6
venv/bin/python -I - <<'PROGRAM'
import numpy as np
import supervision as sv
import trackers

BOXES = np.array([[10, 10, 50, 50], [100, 100, 150, 150], [200, 200, 260, 260]], np.float32)
CONFIDENCE = np.array([0.3, 0.9, 0.6], np.float32)


def orders(name):
    tracker, found = getattr(trackers, name)(), []
    for frame in range(4):
        detections = sv.Detections(xyxy=BOXES + frame, confidence=CONFIDENCE, class_id=np.arange(3))
        rows = tracker.update(detections).class_id
        found.append("".join(map(str, rows)))
    print(f"{name:16}", *found)
    return found


assert orders("ByteTrackTracker") == ["012", "102", "102", "102"]
assert orders("OCSORTTracker") == ["120"] * 4
assert orders("SORTTracker") == ["012"] * 4
PROGRAM
