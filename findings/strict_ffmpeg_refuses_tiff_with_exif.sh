#!/usr/bin/env bash
# A TIFF that has Exif, as Pillow writes it, is invalid data to FFmpeg once that is told to refuse what is damaged.
#
# Seen with: av 18.1.0 (its own FFmpeg 8.1.2), pillow 13.0.0 (writes the files); Python 3.11, Linux x86-64.
# Behaviour: with `err_detect` explode, which makes decoders refuse damaged pictures that they would otherwise fill with
#   grey, the TIFF decoder raises InvalidDataError on a sound file that says its orientation in Exif. Without the option
#   the same file is read, and without Exif it is read either way. JPEG and PNG with the same Exif are read either way.
# A user of video object detection who checks a data set for damaged pictures loses every TIFF that went through Pillow
#   with its Exif kept.
# Output seen:
#   jpg  without Exif: read, strictly read; with Exif: read, strictly read
#   png  without Exif: read, strictly read; with Exif: read, strictly read
#   tiff without Exif: read, strictly read; with Exif: read, strictly InvalidDataError
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet av==18.1.0 pillow==13.0.0
venv/bin/python -I - <<'PROGRAM'
import av
from PIL import Image


def outcome(path, options):
    with av.open(path) as container:
        stream = container.streams.video[0]
        stream.codec_context.options = options
        try:
            next(container.decode(stream))
        except av.FFmpegError as error:
            return type(error).__name__
        return "read"


found = {}
for kind in ("jpg", "png", "tiff"):
    said = []
    for orientation in (None, 6):
        exif = Image.Exif()
        if orientation:
            exif[0x0112] = orientation
        path = f"{orientation}.{kind}"
        Image.new("RGB", (64, 48), (90, 60, 30)).save(path, **({"exif": exif} if orientation else {}))
        said.append((outcome(path, {}), outcome(path, {"err_detect": "crccheck+explode"})))
    found[kind] = said
    (plain, plain_strict), (exif_plain, exif_strict) = said
    print(f"{kind:4} without Exif: {plain}, strictly {plain_strict}; with Exif: {exif_plain}, strictly {exif_strict}")
read = ("read", "read")
assert found == {"jpg": [read, read], "png": [read, read], "tiff": [read, ("read", "InvalidDataError")]}
PROGRAM
