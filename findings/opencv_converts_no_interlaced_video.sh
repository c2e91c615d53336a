#!/usr/bin/env bash
# OpenCV converts no picture of an interlaced H.264 video, and says that every read succeeded.
#
# Seen with: opencv-python-headless 5.0.0.93, av 18.1.0 (writes the clips; its own FFmpeg 8.1.2), numpy 2.4.6; Python 3.11,
#   Linux x86-64.
# Behaviour: broadcast and many older cameras are interlaced. For every frame of such a clip `VideoCapture.read` returns
#   True and an array of the right size, and none holds a picture of the clip: all are the same, mostly black. The scaler
#   refuses each frame with a line on stderr ("Cannot convert interlaced to progressive frames or vice versa"), which
#   OpenCV does not look at. PyAV converts the same pictures. Both read the clip when it is coded progressively.
# A user of video object detection finds nothing in a whole archive, and no call has failed.
# Output seen:
#   progressive: OpenCV 12 reads, 12 different pictures; PyAV 12 different pictures
#   interlaced:  OpenCV 12 reads, 1 different pictures; PyAV 12 different pictures
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet opencv-python-headless==5.0.0.93 av==18.1.0 numpy==2.4.6
venv/bin/python -I - <<'PROGRAM' 2>/dev/null
import av
import numpy as np

for kind in ("progressive", "interlaced"):
    options = {"x264-params": "interlaced=1"} if kind == "interlaced" else {}
    with av.open(f"{kind}.mp4", "w") as container:
        stream = container.add_stream("libx264", rate=25, options=options)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        for number in range(12):
            picture = np.full((64, 96, 3), 40, np.uint8)
            for field in range(2):  # a bar that moves between the two fields
                left = 8 + 3 * (2 * number + field)
                picture[field::2, left : left + 16] = 220
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    with av.open(f"{kind}.mp4") as container:
        different = len({frame.to_ndarray(format="bgr24").tobytes() for frame in container.decode(video=0)})
    assert different == 12
PROGRAM
for kind in progressive interlaced; do
  venv/bin/python -I - "$kind" <<'PROGRAM' 2>/dev/null
import sys

import cv2

kind = sys.argv[1]
capture, reads, pictures = cv2.VideoCapture(f"{kind}.mp4"), 0, set()
while (read := capture.read())[0]:
    reads += 1
    pictures.add(read[1].tobytes())
print(f"{kind + ':':12} OpenCV {reads} reads, {len(pictures)} different pictures; PyAV 12 different pictures")
assert (reads, len(pictures)) == ((12, 12) if kind == "progressive" else (12, 1))
PROGRAM
done
