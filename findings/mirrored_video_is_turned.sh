#!/usr/bin/env bash
# A mirrored video looks to PyAV like one that stands on its head, and OpenCV turns it: the mirroring stays.
#
# Seen with: av 18.1.0 (its own FFmpeg 8.1.2), opencv-python-headless 5.0.0.93, numpy 2.4.6; Python 3.11, Linux x86-64.
# Behaviour: an MP4's display matrix can turn and mirror. `frame.rotation` is one angle: -180 for a half turn and for a
#   left-right mirror alike, 0 for a top-bottom mirror and for no matrix. OpenCV, which applies the angle by itself,
#   puts the mark of the top left corner at the bottom right for the mirror, where a player shows it at the top right.
# A user of video object detection gets clips of front cameras upside down, or boxes on the wrong side of the picture
#   that a player shows. The matrix itself, in `frame.side_data`, tells the cases apart by the sign of its determinant.
# Output seen:
#   none              rotation    0, OpenCV: mark at top left
#   half turn         rotation -180, OpenCV: mark at bottom right
#   left-right mirror rotation -180, OpenCV: mark at bottom right
#   top-bottom mirror rotation    0, OpenCV: mark at top left
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet av==18.1.0 opencv-python-headless==5.0.0.93 numpy==2.4.6
venv/bin/python -I - <<'PROGRAM'
import struct
from pathlib import Path

import av
import cv2
import numpy as np

picture = np.zeros((48, 64, 3), np.uint8)
picture[:24, :32] = 255  # the mark, in the top left quarter as stored
with av.open("plain.mp4", "w") as container:
    stream = container.add_stream("libx264", rate=30)
    stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
    container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
    container.mux(stream.encode())
stored = Path("plain.mp4").read_bytes()
# The nine numbers end a track header of version 0, but for width and height.
at = stored.index(b"tkhd") + 44


def seen(across, down):
    """of a clip whose matrix multiplies x by `across` and y by `down`"""
    matrix = struct.pack(">9i", across << 16, 0, 0, 0, down << 16, 0, 0, 0, 1 << 30)
    Path("clip.mp4").write_bytes(stored[:at] + matrix + stored[at + 36 :])
    with av.open("clip.mp4") as container:
        rotation = next(container.decode(video=0)).rotation
    turned = cv2.VideoCapture("clip.mp4").read()[1]
    row, column = np.argwhere(turned[4::40, 4::56, 0] > 128)[0]
    return rotation, f"{('top', 'bottom')[row]} {('left', 'right')[column]}"


assert len(stored[at : at + 36]) == 36 and struct.unpack(">i", stored[at : at + 4]) == (1 << 16,)
cases = {"none": (1, 1), "half turn": (-1, -1), "left-right mirror": (-1, 1), "top-bottom mirror": (1, -1)}
found = {name: seen(*signs) for name, signs in cases.items()}
for name, (rotation, place) in found.items():
    print(f"{name:17} rotation {rotation:4}, OpenCV: mark at {place}")
assert found == {
    "none": (0, "top left"),
    "half turn": (-180, "bottom right"),
    "left-right mirror": (-180, "bottom right"),
    "top-bottom mirror": (0, "top left"),
}
PROGRAM
