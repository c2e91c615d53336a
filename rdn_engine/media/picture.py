"""A decoded picture as upright RGB."""

from __future__ import annotations

import numpy as np
from av.video.frame import VideoFrame

from rdn_engine.frame import Image

# Without `explode` many decoders paint over what they could not read and hand the picture out as if it were whole.
STRICT = {"err_detect": "crccheck+explode"}


def upright_rgb(frame: VideoFrame) -> Image:
    image = frame.to_ndarray(format="rgb24")
    turns = round(frame.rotation / 90) % 4
    return np.ascontiguousarray(np.rot90(image, turns) if turns else image).astype(np.uint8, copy=False)
