#!/usr/bin/env bash
# A raw H.264 file says 30 fps; PyAV's average_rate and OpenCV say 25, and OpenCV counts fewer than no frames.
#
# Seen with: av 18.1.0 (its own FFmpeg 8.1.2), opencv-python-headless 5.0.0.93, numpy 2.4.6; Python 3.11, Linux x86-64.
# Behaviour: the rate stands in the stream's own headers (VUI). `stream.average_rate` is the 25 that FFmpeg's reader of
#   raw H.264 assumes where it is told nothing; `guessed_rate` and `codec_context.framerate` have read the headers.
#   OpenCV takes the 25, says a huge negative frame count, and `CAP_PROP_POS_FRAMES` succeeds and leads to frame 0
#   whatever was asked for.
# A user of video object detection reads what many cameras and encoders write by themselves: times, speeds and the fps
#   of an annotated video are a sixth too slow, a progress bar runs backwards, a sample of frames is one frame
#   many times.
# Output seen:
#   average_rate 25 guessed_rate 30 codec_context.framerate 30
#   OpenCV: fps 25.0, fewer than 0 frames: True
#   OpenCV: asked for 0 5 12 25, got 0 0 0 0; read through, 30 frames
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet av==18.1.0 opencv-python-headless==5.0.0.93 numpy==2.4.6
venv/bin/python -I - <<'PROGRAM'
import av
import cv2
import numpy as np

with av.open("clip.h264", "w") as container:
    stream = container.add_stream("libx264", rate=30, options={"bf": "0", "g": "12"})
    stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
    for number in range(30):  # picture n is a grey of 8 n
        picture = np.full((64, 64, 3), 8 * number, np.uint8)
        container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
    container.mux(stream.encode())

with av.open("clip.h264") as container:
    stream = container.streams.video[0]
    rates = stream.average_rate, stream.guessed_rate, stream.codec_context.framerate
print("average_rate", rates[0], "guessed_rate", rates[1], "codec_context.framerate", rates[2])

capture = cv2.VideoCapture("clip.h264")
fps, count = capture.get(cv2.CAP_PROP_FPS), capture.get(cv2.CAP_PROP_FRAME_COUNT)
print(f"OpenCV: fps {fps}, fewer than 0 frames: {count < 0}")
length = 0
while capture.read()[0]:
    length += 1
asked, got = (0, 5, 12, 25), []
for number in asked:
    capture = cv2.VideoCapture("clip.h264")
    assert capture.set(cv2.CAP_PROP_POS_FRAMES, number)
    got.append(round(capture.read()[1].mean() / 8))
print("OpenCV: asked for", *asked, end=", got ")
print(*got, end=f"; read through, {length} frames\n")
assert rates == (25, 30, 30)
assert fps == 25 and count < 0
assert got == [0, 0, 0, 0] and length == 30
PROGRAM
