#!/usr/bin/env bash
# PyAV codes an RGB frame by BT.601 even where its encoder is told to write BT.709 into the file.
#
# Seen with: av 18.1.0 (its own FFmpeg 8.1.2), numpy 2.4.6; Python 3.11, Linux x86-64.
# Behaviour: `codec_context.colorspace` is only a tag. An RGB frame given to `encode` is converted to YUV by the matrix
#   of BT.601 whatever the tag says, so a reader that honours the tag sees other colours. What converts by a matrix is
#   `frame.reformat(format="yuv420p", dst_colorspace=...)` before.
# A user of video object detection who tags annotated or recorded HD video as BT.709 shifts its colours: pure red comes
#   back as (255, 23, 0), and saturated colours of a data set written so are off by as much.
# Output seen:
#   tag alone      stored as BT.709, red has luma 81 and is read as [255, 23, 0]
#   reformat, tag  stored as BT.709, red has luma 63 and is read as [254, 0, 0]
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet av==18.1.0 numpy==2.4.6
venv/bin/python -I - <<'PROGRAM'
import av
import numpy as np

RED = np.zeros((720, 1280, 3), np.uint8)
RED[..., 0] = 255


def seen(name, convert):
    with av.open("clip.mkv", "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 1280, 720, "yuv420p"
        stream.codec_context.colorspace, stream.codec_context.color_range = 1, 1
        frame = av.VideoFrame.from_ndarray(RED, format="rgb24")
        if convert:
            frame = frame.reformat(format="yuv420p", dst_colorspace="ITU709", dst_color_range="MPEG")
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    with av.open("clip.mkv") as container:
        frame = next(container.decode(video=0))
    assert int(frame.colorspace) == 1
    luma = int(frame.to_ndarray()[100, 100])
    rgb = frame.to_ndarray(format="rgb24")[100, 100].tolist()
    print(f"{name:14} stored as BT.709, red has luma {luma} and is read as {rgb}")
    return luma, rgb


luma, rgb = seen("tag alone", False)
assert abs(luma - 81) <= 1 and abs(rgb[1] - 23) <= 2  # BT.601: 16 + 219 * 0.299
luma, rgb = seen("reformat, tag", True)
assert abs(luma - 63) <= 1 and max(rgb[1:]) <= 2  # BT.709: 16 + 219 * 0.2126
PROGRAM
