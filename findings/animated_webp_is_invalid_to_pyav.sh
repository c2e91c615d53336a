#!/usr/bin/env bash
# An animated WebP opens in PyAV, names its codec and size, and then is invalid data; an animated PNG or GIF plays.
#
# Seen with: av 18.1.0 (its own FFmpeg 8.1.2), pillow 13.0.0 (writes the files); Python 3.11, Linux x86-64.
# Behaviour: FFmpeg's WebP decoder has no animation. `av.open` succeeds all the same and only the first decoded packet
#   raises InvalidDataError, as it does for a damaged file. Pillow reads the four frames of each file.
# A user of video object detection takes a sound clip for a damaged one, and a folder of pictures in which one is
#   animated fails half way.
# Output seen:
#   gif: Pillow 4 frames; PyAV 4 frames
#   png: Pillow 4 frames; PyAV 4 frames
#   webp: Pillow 4 frames; PyAV opens it as webp, then InvalidDataError
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet av==18.1.0 pillow==13.0.0
venv/bin/python -I - <<'PROGRAM'
import av
from PIL import Image

frames = [Image.new("RGB", (64, 48), (60 * number, 0, 0)) for number in range(4)]
found = {}
for kind in ("gif", "png", "webp"):
    path = f"clip.{kind}"
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=100)
    with Image.open(path) as picture:
        count = picture.n_frames
    with av.open(path) as container:
        codec = container.streams.video[0].codec_context.name
        try:
            said = f"{sum(1 for _ in container.decode(video=0))} frames"
        except av.error.InvalidDataError:
            said = f"opens it as {codec}, then InvalidDataError"
    found[kind] = (count, said)
    print(f"{kind}: Pillow {count} frames; PyAV {said}")
assert found == {
    "gif": (4, "4 frames"),
    "png": (4, "4 frames"),
    "webp": (4, "opens it as webp, then InvalidDataError"),
}
PROGRAM
