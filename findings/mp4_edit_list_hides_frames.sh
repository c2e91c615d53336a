#!/usr/bin/env bash
# An MP4 that says 12 frames gives 7: its edit list hides the first five from decoders, not from the counts.
#
# Seen with: av 18.1.0 (its own FFmpeg 8.1.2), opencv-python-headless 5.0.0.93, numpy 2.4.6; Python 3.11, Linux x86-64.
# Behaviour: a clip that starts before time 0, as one that was cut without encoding it again does, carries an edit list.
#   The pictures before its start are decoded, because later ones are predicted from them, and never come out. PyAV's
#   `stream.frames` and OpenCV's CAP_PROP_FRAME_COUNT count the samples stored.
# A user of video object detection sizes an array by the count, or joins detections to annotations that an
#   annotation tool numbered by stored sample: the last five have no detections, and all others are five off.
# Output seen:
#   stream.frames 12, CAP_PROP_FRAME_COUNT 12
#   PyAV gives 7, OpenCV 7; the first one is picture 5 at 0.0 s
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet av==18.1.0 opencv-python-headless==5.0.0.93 numpy==2.4.6
venv/bin/python -I - <<'PROGRAM'
from fractions import Fraction

import av
import cv2
import numpy as np

with av.open("clip.mp4", "w") as container:
    stream = container.add_stream("libx264", rate=30, options={"bf": "0"})
    stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
    for number in range(12):  # picture n is a grey of 20 n
        frame = av.VideoFrame.from_ndarray(np.full((64, 64, 3), 20 * number, np.uint8), format="rgb24")
        frame.pts, frame.time_base = number - 5, Fraction(1, 30)
        container.mux(stream.encode(frame))
    container.mux(stream.encode())

with av.open("clip.mp4") as container:
    counted = container.streams.video[0].frames
    frames = list(container.decode(video=0))
first = round(frames[0].to_ndarray(format="rgb24").mean() / 20)
capture = cv2.VideoCapture("clip.mp4")
counted_too, read = capture.get(cv2.CAP_PROP_FRAME_COUNT), 0
while capture.read()[0]:
    read += 1
print(f"stream.frames {counted}, CAP_PROP_FRAME_COUNT {counted_too:.0f}")
print(f"PyAV gives {len(frames)}, OpenCV {read}; the first one is picture {first} at {frames[0].time} s")
assert (counted, counted_too) == (12, 12)
assert (len(frames), read, first, frames[0].time) == (7, 7, 5, 0.0)
PROGRAM
