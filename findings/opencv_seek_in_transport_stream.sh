#!/usr/bin/env bash
# OpenCV asked for frame 0 of a transport stream gives frame 12, and says that it stands at the frame asked for.
#
# Seen with: opencv-python-headless 5.0.0.93, av 18.1.0 (writes the clip), numpy 2.4.6; Python 3.11, Linux x86-64.
# Behaviour: MPEG-TS, H.264 with B-pictures, a key frame every 12. `CAP_PROP_POS_FRAMES` succeeds; what is read next is
#   frame 12 or 13 for everything in the first group of pictures, and right from the second on. The same pictures in
#   MP4, or in MPEG-TS without B-pictures, are found.
# A user of video object detection samples frames of recorded streams by number, to annotate or calibrate on them: the
#   annotation of frame 0 gets the detections of frame 12.
# Output seen:
#   asked for            0 1 5 11 12 13 25 40
#   .ts with B-pictures  12 13 13 13 13 13 25 40
#   .ts without          0 1 5 11 12 13 25 40
#   .mp4 with B-pictures 0 1 5 11 12 13 25 40
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet av==18.1.0 opencv-python-headless==5.0.0.93 numpy==2.4.6
venv/bin/python -I - 2>messages <<'PROGRAM' || { cat messages >&2; exit 1; }
import av
import cv2
import numpy as np

ASKED = [0, 1, 5, 11, 12, 13, 25, 40]


def found(path, b_pictures):
    with av.open(path, "w") as container:
        options = {"g": "12", "bf": str(b_pictures), "b-adapt": "0"}
        stream = container.add_stream("libx264", rate=30, options=options)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        for number in range(60):  # picture n is a grey of 4 n
            picture = np.full((64, 64, 3), 4 * number, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    got = []
    for number in ASKED:
        capture = cv2.VideoCapture(path)
        assert capture.set(cv2.CAP_PROP_POS_FRAMES, number)
        got.append(round(capture.read()[1].mean() / 4))
    return got


print("asked for           ", *ASKED)
seen = {}
for label, path, count in (
    (".ts with B-pictures ", "b.ts", 3),
    (".ts without         ", "p.ts", 0),
    (".mp4 with B-pictures", "b.mp4", 3),
):
    seen[path] = found(path, count)
    print(label, *seen[path])
assert seen == {"b.ts": [12, 13, 13, 13, 13, 13, 25, 40], "p.ts": ASKED, "b.mp4": ASKED}
PROGRAM
