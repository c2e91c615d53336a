#!/usr/bin/env bash
# After x264 a still picture changes, and a changing one is still: comparing frames does not tell whether a camera froze.
#
# Seen with: av 18.1.0 (its own FFmpeg 8.1.2 and x264), numpy 2.4.6; Python 3.11, Linux x86-64.
# Behaviour: a picture with noise, as of a camera, is coded as cameras do it (zerolatency, a key picture every 4 s).
#   - Then the same frame comes again and again, as from a camera whose sensor or memory hangs. The decoded pictures do not
#     stay the same: each key picture and those after it differ a little, at first from all before, by rate control.
#     Only after half a minute (CRF) or minutes (a mean bit rate) are there no pictures any more that were not there before.
#   - While the noise goes on, at a strong compression, half of the decoded frames equal the one before to the bit.
# A user of video object detection who flags a camera because a frame equals the last one, or differs from it, flags one
#   that works, and believes one that has hung for an hour. What separates them: a live camera always shows something new.
# Output seen:
#   one frame for ever, CRF 23:   341 of 399 frames differ from the one before; the last new picture after 44 s
#   one frame for ever, 400 kb/s: 397 of 399 frames differ from the one before; the last new picture after 78 s
#   noise goes on, CRF 38:        193 of 399 frames equal the one before; the last new picture after 80 s
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet av==18.1.0 numpy==2.4.6
venv/bin/python -I - <<'PROGRAM'
import io

import av
import numpy as np

RATE, LIVE, COUNT = 5, 100, 400  # frames a second; frames before anything hangs; frames after
rng = np.random.default_rng(0)
scene = np.kron(rng.integers(30, 220, (18, 32, 3)), np.ones((20, 20, 1)))


def film(hangs):
    for i in range(LIVE + COUNT):
        if i <= LIVE or not hangs:
            frame = (scene + rng.normal(0, 2, scene.shape)).clip(0, 255).astype(np.uint8)
        yield frame


def decoded(hangs, **options):
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="matroska") as container:
        video = container.add_stream("libx264", rate=RATE)
        video.height, video.width, video.pix_fmt = *scene.shape[:2], "yuv420p"
        video.codec_context.thread_count = 1
        video.options = {"tune": "zerolatency", "preset": "veryfast", "g": str(4 * RATE), **options}
        for frame in film(hangs):
            container.mux(video.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(video.encode())
    buffer.seek(0)
    with av.open(buffer) as container:
        return [frame.to_ndarray(format="rgb24").tobytes() for frame in container.decode(video=0)][LIVE:]


def seen(hangs, **options):
    frames, known, last_new = decoded(hangs, **options), set(), 0
    for i, frame in enumerate(frames):
        if frame not in known:
            last_new = i
        known.add(frame)
    return sum(a != b for a, b in zip(frames, frames[1:])), last_new / RATE


quality, rate, strong = seen(True, crf="23"), seen(True, b="400000"), seen(False, crf="38")
print(f"one frame for ever, CRF 23:   {quality[0]} of {COUNT - 1} frames differ from the one before; "
      f"the last new picture after {quality[1]:.0f} s")
print(f"one frame for ever, 400 kb/s: {rate[0]} of {COUNT - 1} frames differ from the one before; "
      f"the last new picture after {rate[1]:.0f} s")
print(f"noise goes on, CRF 38:        {COUNT - 1 - strong[0]} of {COUNT - 1} frames equal the one before; "
      f"the last new picture after {strong[1]:.0f} s")
assert quality[0] > 50 and 5 < quality[1] < 60
assert rate[0] > 50
assert COUNT - 1 - strong[0] > 100 and strong[1] > 70
PROGRAM
