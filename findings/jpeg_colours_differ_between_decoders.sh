#!/usr/bin/env bash
# One JPEG, two pictures: along coloured edges PyAV's differs from Pillow's and OpenCV's by more than half the range.
#
# Seen with: av 18.1.0 (its own FFmpeg 8.1.2), pillow 13.0.0, opencv-python-headless 5.0.0.93, numpy 2.4.6;
#   Python 3.11, Linux x86-64.
# Behaviour: nearly every JPEG stores colour at half the resolution (4:2:0). libjpeg, in Pillow and OpenCV, interpolates
#   it; FFmpeg's conversion to RGB repeats each value twice in both directions, whichever `interpolation` is named.
#   Where colour is stored whole (4:4:4) the two agree within rounding.
# A user of video object detection trains on JPEG frames read by Pillow or OpenCV and runs on what PyAV decodes, or the
#   reverse: red and blue edges, as of lights and signs, are not the pixels that were learnt.
# Output seen (largest difference of 255):
#   4:4:4 Pillow-OpenCV 0, Pillow-PyAV 2
#   4:2:0 Pillow-OpenCV 0, Pillow-PyAV 143; by BILINEAR 143, by BICUBIC 143, by LANCZOS 143
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet av==18.1.0 pillow==13.0.0 opencv-python-headless==5.0.0.93 numpy==2.4.6
venv/bin/python -I - <<'PROGRAM'
import av
import cv2
import numpy as np
from PIL import Image

picture = np.zeros((64, 64, 3), np.uint8)
picture[:, :31], picture[:, 31:] = (255, 0, 0), (0, 0, 255)
picture[20:41, 10:51] = (0, 255, 0)


def apart(a, b):
    return int(np.abs(a.astype(int) - b.astype(int)).max())


for subsampling, name in ((0, "4:4:4"), (2, "4:2:0")):
    Image.fromarray(picture).save("picture.jpg", quality=95, subsampling=subsampling)
    pillow = np.asarray(Image.open("picture.jpg"))
    opencv = cv2.imread("picture.jpg")[..., ::-1]
    with av.open("picture.jpg") as container:
        frame = next(container.decode(video=0))
    same, other = apart(pillow, opencv), apart(pillow, frame.to_ndarray(format="rgb24"))
    print(name, f"Pillow-OpenCV {same}, Pillow-PyAV {other}", end="")
    if name == "4:4:4":
        print()
        assert same <= 1 and other <= 4
        continue
    ways = {
        way: apart(pillow, frame.reformat(format="rgb24", interpolation=way).to_ndarray())
        for way in ("BILINEAR", "BICUBIC", "LANCZOS")
    }
    print("; by " + ", by ".join(f"{way} {value}" for way, value in ways.items()))
    assert same <= 1 and other > 128 and set(ways.values()) == {other}
PROGRAM
