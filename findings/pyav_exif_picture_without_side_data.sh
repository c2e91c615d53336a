#!/usr/bin/env bash
# PyAV cannot list the side data of a picture that has EXIF: it does not know a number of its own FFmpeg.
#
# Seen with: av 18.1.0 (its own FFmpeg 8.1.2), pillow 13.0.0 (writes the JPEG); Python 3.11, Linux x86-64.
# Behaviour: FFmpeg 8.1 attaches EXIF to the frame as side data of type 31, which PyAV's enumeration lacks. Any look
#   into `frame.side_data` raises ValueError. A picture without EXIF has an empty list. `frame.rotation` still works,
#   and is all that is left of the orientation: mirrored pictures (2, 4, 5, 7) have the angle of one not mirrored.
# A user of video object detection who looks for a display matrix, motion vectors or captions finds that code which
#   works on every video stops at a photograph from a phone.
# Output seen:
#   without EXIF: []
#   with EXIF:    ValueError: 31 is not a valid Type
#   rotation by orientation: 1:0 2:-180 3:-180 4:0 5:-90 6:-90 7:90 8:90
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet av==18.1.0 pillow==13.0.0
venv/bin/python -I - <<'PROGRAM'
import av
from PIL import Image


def frame(orientation=None):
    exif = Image.Exif()
    if orientation is not None:
        exif[0x0112] = orientation
    Image.new("RGB", (64, 48)).save("picture.jpg", exif=exif)
    with av.open("picture.jpg") as container:
        return next(container.decode(video=0))


plain = list(frame().side_data)
print("without EXIF:", plain)
try:
    said = list(frame(6).side_data)
except ValueError as error:
    said = f"ValueError: {error}"
print("with EXIF:   ", said)
rotations = [frame(orientation).rotation for orientation in range(1, 9)]
print("rotation by orientation:", *(f"{i}:{r}" for i, r in enumerate(rotations, 1)))
assert plain == []
assert said == "ValueError: 31 is not a valid Type"
assert rotations == [0, -180, -180, 0, -90, -90, 90, 90]
PROGRAM
