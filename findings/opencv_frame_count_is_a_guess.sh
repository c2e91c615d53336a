#!/usr/bin/env bash
# OpenCV counts 39 frames in a Matroska file of 10, and 31 in an MPEG programme stream of 60.
#
# Seen with: opencv-python-headless 5.0.0.93, av 18.1.0 (writes the clips), numpy 2.4.6; Python 3.11, Linux x86-64.
# Behaviour: neither container stores a count, so CAP_PROP_FRAME_COUNT is duration times rate, and says nothing of that.
#   The first clip pauses for a second (a camera that stalled, or one of variable rate); its duration is real and its
#   rate 30. The second has a constant rate; its duration is a guess from the bit rate.
# A user of video object detection draws random frame numbers below the count, or checks that as many results came as
#   frames: 29 of 39 numbers have no frame, and half of the programme stream is never sampled.
# Output seen:
#   stall.mkv: 39 counted, 10 read
#   steady.mpg: 31 counted, 60 read
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


def write(path, codec, times, base, options):
    with av.open(path, "w") as container:
        stream = container.add_stream(codec, rate=30, options=options)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.codec_context.time_base = base
        for number, time in enumerate(times):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 4 * number, np.uint8), format="rgb24")
            frame.pts, frame.time_base = time, base
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def counted_and_read(path):
    capture, read = cv2.VideoCapture(path), 0
    counted = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
    while capture.read()[0]:
        read += 1
    print(f"{path}: {counted} counted, {read} read")
    return counted, read


stall = [0, 33, 66, 100, 1100, 1133, 1166, 1200, 1233, 1266]  # milliseconds
write("stall.mkv", "libx264", stall, Fraction(1, 1000), {"bf": "0"})
write("steady.mpg", "mpeg2video", range(60), Fraction(1, 30), {"g": "12", "bf": "3"})
assert counted_and_read("stall.mkv") == (39, 10)
assert counted_and_read("steady.mpg") == (31, 60)
PROGRAM
