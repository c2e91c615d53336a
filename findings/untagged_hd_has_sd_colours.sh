#!/usr/bin/env bash
# A 1080p video that does not say which colours it has is read by PyAV and OpenCV with those of standard definition.
#
# Seen with: av 18.1.0 (its own FFmpeg 8.1.2), opencv-python-headless 5.0.0.93, numpy 2.4.6; Python 3.11, Linux x86-64.
# Behaviour: HD is made with the matrix of BT.709, and many encoders do not write it down (`frame.colorspace` is 2,
#   unspecified). What is then read is BT.601, whatever the height; the same samples with the tag give other RGB.
#   Both libraries agree, so a comparison of the two hides it.
# A user of video object detection gets other reds and greens from the same camera once a clip was cut or remuxed
#   without its tag; here one channel is off by 15 of 255.
# Output seen:
#   untagged PyAV [211, 52, 20] OpenCV [211, 52, 20]
#   BT.709   PyAV [226, 66, 16] OpenCV [226, 66, 16]
#   BT.601   PyAV [211, 52, 20] OpenCV [211, 52, 20]
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


def seen(name, colorspace):
    with av.open("clip.mp4", "w") as container:
        stream = container.add_stream("libx264", rate=30, options={"qp": "0"})
        stream.width, stream.height, stream.pix_fmt = 1920, 1080, "yuv420p"
        frame = av.VideoFrame(1920, 1080, "yuv420p")
        for plane, value in zip(frame.planes, (100, 90, 200), strict=True):
            plane.update(bytes([value]) * plane.buffer_size)
        if colorspace is not None:
            stream.codec_context.colorspace = frame.colorspace = colorspace
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    with av.open("clip.mp4") as container:
        frame = next(container.decode(video=0))
    pyav = frame.to_ndarray(format="rgb24")[500, 900].tolist()
    opencv = cv2.VideoCapture("clip.mp4").read()[1][500, 900, ::-1].tolist()
    print(f"{name:8} PyAV {pyav} OpenCV {opencv}")
    assert int(frame.colorspace) == (2 if colorspace is None else colorspace)
    return np.array([pyav, opencv])


untagged, bt709, bt601 = seen("untagged", None), seen("BT.709", 1), seen("BT.601", 5)
assert np.abs(untagged - [211, 52, 20]).max() <= 1 and np.abs(bt601 - untagged).max() <= 1
assert np.abs(bt709 - [226, 66, 16]).max() <= 1
PROGRAM
