#!/usr/bin/env bash
# PyAV gives the pictures of an AVI in display order, with times in coding order.
#
# Seen with: av 18.1.0 (its own FFmpeg 8.1.2), numpy 2.4.6; Python 3.11, Linux x86-64.
# Behaviour: H.264 with B-pictures in AVI, which stores no presentation times. The times are made up from the packets'
#   order, so `frame.pts` and `frame.time` jump back and forth while the pictures come in the right order. `frame.dts`
#   rises by one a picture, though it is None for the last ones, which the decoder still held at the end of the file.
# A user of video object detection sorts or pairs frames by `pts`, as with MP4, and gets the pictures in a wrong order:
#   tracks jump, and a window of neighbouring frames holds strangers.
# Output seen:
#   picture 0 1 2 3 4 5 6 7 8 9 10 11
#   pts     1 4 3 5 2 8 7 9 6 11 12 10
#   dts     2 3 4 5 6 7 8 9 10 11 None None
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet av==18.1.0 numpy==2.4.6
venv/bin/python -I - <<'PROGRAM'
import av
import numpy as np

with av.open("clip.avi", "w") as container:
    stream = container.add_stream("libx264", rate=30, options={"bf": "3", "b-adapt": "0"})
    stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
    for number in range(12):  # picture n is a grey of 20 n
        picture = np.full((64, 64, 3), 20 * number, np.uint8)
        container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
    container.mux(stream.encode())

with av.open("clip.avi") as container:
    frames = list(container.decode(video=0))
pictures = [round(frame.to_ndarray(format="rgb24").mean() / 20) for frame in frames]
pts, dts = [frame.pts for frame in frames], [frame.dts for frame in frames]
print("picture", *pictures)
print("pts    ", *pts)
print("dts    ", *dts)
assert pictures == list(range(12))
assert pts == [1, 4, 3, 5, 2, 8, 7, 9, 6, 11, 12, 10]
assert dts == [*range(2, 12), None, None]
PROGRAM
