#!/usr/bin/env bash
# Of a file with two video streams OpenCV and PyAV's usual call read the first, a player the one that is marked default.
#
# Seen with: opencv-python-headless 5.0.0.93, av 18.1.0 (its own FFmpeg 8.1.2), numpy 2.4.6; Python 3.11, Linux x86-64.
# Behaviour: cameras and recorders write a small preview beside the real stream, and mark which is the default one.
#   `VideoCapture` and `container.decode(video=0)` take the first in the file, here the preview, in Matroska and MP4 alike.
#   FFmpeg's own choice (`container.streams.best("video")`) is the default one.
# A user of video object detection runs on a picture of a quarter of the pixels and misses what is small.
# Output seen:
#   mkv: OpenCV 48x32, PyAV video=0 48x32, FFmpeg's best 96x64
#   mp4: OpenCV 48x32, PyAV video=0 48x32, FFmpeg's best 96x64
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet opencv-python-headless==5.0.0.93 av==18.1.0 numpy==2.4.6
venv/bin/python -I - <<'PROGRAM' 2>/dev/null
import av
import cv2
import numpy as np
from av.stream import Disposition

found = {}
for kind in ("mkv", "mp4"):
    with av.open(f"clip.{kind}", "w") as container:
        streams = [container.add_stream("mpeg4", rate=25) for _ in range(2)]
        for stream, (width, height), mark in zip(streams, ((48, 32), (96, 64)), (Disposition(0), Disposition.default)):
            stream.width, stream.height, stream.pix_fmt, stream.disposition = width, height, "yuv420p", mark
        for number in range(3):
            for stream in streams:
                picture = np.full((stream.height, stream.width, 3), 60 * number, np.uint8)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        for stream in streams:
            container.mux(stream.encode())
    picture = cv2.VideoCapture(f"clip.{kind}").read()[1]
    with av.open(f"clip.{kind}") as container:
        first, best = next(container.decode(video=0)), container.streams.best("video")
        found[kind] = [f"{picture.shape[1]}x{picture.shape[0]}", f"{first.width}x{first.height}", f"{best.width}x{best.height}"]
    print(f"{kind}: OpenCV {found[kind][0]}, PyAV video=0 {found[kind][1]}, FFmpeg's best {found[kind][2]}")
assert all(said == ["48x32", "48x32", "96x64"] for said in found.values())
PROGRAM
