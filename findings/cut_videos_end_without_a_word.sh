#!/usr/bin/env bash
# A video that was cut in the middle of a copy ends early, without an error, in PyAV and in OpenCV; AVI hides it as well.
#
# Seen with: av 18.1.0 (its own FFmpeg 8.1.2), opencv-python-headless 5.0.0.93, numpy 2.4.6; Python 3.11, Linux x86-64.
# Behaviour: of 90 pictures about half are read, then the file is simply over: the reader raises nothing (the picture that
#   was cut through may raise in the decoder, or not), and OpenCV's `read()` is False as at any end. MP4 (with its index in front) and Matroska still say 3.6 s in `container.duration`. Of an AVI FFmpeg replaces
#   the duration by what is left; only `stream.frames` has the 90 of its header.
# A user of video object detection counts objects in half a video and reports them for the whole.
# Output seen:
#   mp4 PyAV: 48 pictures, no error, duration 3.60 s, 90 frames; OpenCV: 48 pictures, promised 90
#   mkv PyAV: 49 pictures, no error, duration 3.60 s, 0 frames; OpenCV: 49 pictures, promised 90
#   avi PyAV: 48 pictures, no error, duration 1.96 s, 90 frames; OpenCV: 48 pictures, promised 90
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet av==18.1.0 opencv-python-headless==5.0.0.93 numpy==2.4.6
venv/bin/python -I - <<'PROGRAM'
from pathlib import Path

import av
import cv2
import numpy as np

random = np.random.default_rng(0)
found = {}
for kind, options in (("mp4", {"movflags": "faststart"}), ("mkv", {}), ("avi", {})):
    path = Path(f"clip.{kind}")
    with av.open(str(path), "w", options=options) as container:
        stream = container.add_stream("libx264", rate=25, options={"bf": "0", "threads": "1"})
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        for _ in range(90):
            picture = random.integers(0, 60, (64, 96, 3), dtype=np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 55 // 100])
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        pictures = 0
        for packet in container.demux(stream):
            try:
                pictures += len(packet.decode())
            except av.FFmpegError:  # the picture that was cut through
                pass
        duration, frames = container.duration / av.time_base, stream.frames
    capture, read = cv2.VideoCapture(str(path)), 0
    promised = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
    while capture.read()[0]:
        read += 1
    found[kind] = pictures, round(duration, 2), frames, read, promised
    print(f"{kind} PyAV: {pictures} pictures, no error, duration {duration:.2f} s, {frames} frames; "
          f"OpenCV: {read} pictures, promised {promised}")
for kind, (pictures, duration, frames, read, promised) in found.items():
    assert 40 < pictures < 60 and 40 < read < 60
    assert frames == (0 if kind == "mkv" else 90)
    assert (duration < 2.2) if kind == "avi" else duration == 3.6
PROGRAM
