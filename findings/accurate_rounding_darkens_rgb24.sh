#!/usr/bin/env bash
# FFmpeg's "accurate rounding" makes the colours of a video less accurate when they are read as rgb24.
#
# Seen with: av 18.1.0 (its own FFmpeg 8.1.2), numpy 2.4.6; Python 3.11, Linux x86-64.
# Behaviour: a picture in yuv420p, BT.709 in limited range, is converted as every frame of a video is. By default all
#   channels come out 1.2 levels too dark on average, three at most (the tables cut where the standard rounds). With
#   ACCURATE_RND, which is what one turns on against that, rgb24 is 2.1 levels too dark, and five values in six are off by
#   more than one. The same option is right for the planar format gbrp: no value is off by more than one.
# A user of video object detection who normalises frames and compares two decoders, or a decoder with training pictures,
#   takes an offset of one or two levels for a fault of the model's.
# Output seen:
#   rgb24 as it is: mean -1.15, within one level 76%; ACCURATE_RND: mean -2.05, within one level 15%
#   gbrp  as it is: mean -1.15, within one level 76%; ACCURATE_RND: mean 0.00, within one level 100%
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet av==18.1.0 numpy==2.4.6
venv/bin/python -I - <<'PROGRAM'
import av
import numpy as np
from av.video.reformatter import Interpolation

red_weight, blue_weight = 0.2126, 0.0722
green_weight = 1 - red_weight - blue_weight
colours = np.random.default_rng(0).integers(0, 256, (120, 160, 3)) / 255  # each fills two pixels by two
luma = colours @ np.array([red_weight, green_weight, blue_weight])
u = (colours[..., 2] - luma) / (2 * (1 - blue_weight))
v = (colours[..., 0] - luma) / (2 * (1 - red_weight))
y, u, v = (np.round(plane).astype(np.uint8) for plane in (16 + 219 * luma, 128 + 224 * u, 128 + 224 * v))
large = [np.kron(plane, np.ones((2, 2), np.uint8)) for plane in (y, u, v)]
frame = av.VideoFrame.from_ndarray(np.concatenate([large[0], u.reshape(-1, 320), v.reshape(-1, 320)]), format="yuv420p")
frame.colorspace, frame.color_range = 1, 1

bright, blue_part, red_part = (large[0] - 16.0) / 219, (large[1] - 128.0) / 224, (large[2] - 128.0) / 224
red, blue = bright + 2 * (1 - red_weight) * red_part, bright + 2 * (1 - blue_weight) * blue_part
green = (bright - red_weight * red - blue_weight * blue) / green_weight
wanted = np.clip(np.stack([red, green, blue], axis=-1) * 255, 0, 255).round()

found = {}
for kind in ("rgb24", "gbrp"):
    for name, flags in (("as it is", Interpolation.POINT), ("ACCURATE_RND", Interpolation.POINT | Interpolation.ACCURATE_RND)):
        error = frame.to_ndarray(format=kind, interpolation=int(flags)) - wanted
        found[kind, name] = error.mean(), (np.abs(error) <= 1).mean()
    print(f"{kind:5}", "; ".join(f"{name}: mean {abs(mean) < 0.005 and 0.0 or mean:.2f}, within one level {share:.0%}"
                                 for (_, name), (mean, share) in list(found.items())[-2:]))
assert -1.3 < found["rgb24", "as it is"][0] < -1.0 and -2.2 < found["rgb24", "ACCURATE_RND"][0] < -1.9
assert found["rgb24", "ACCURATE_RND"][1] < 0.25 < 0.7 < found["rgb24", "as it is"][1]
assert abs(found["gbrp", "ACCURATE_RND"][0]) < 0.1 and found["gbrp", "ACCURATE_RND"][1] == 1
PROGRAM
