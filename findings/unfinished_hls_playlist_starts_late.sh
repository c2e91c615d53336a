#!/usr/bin/env bash
# A local HLS playlist that is not finished yet: FFmpeg skips all but the last three segments, then waits for more.
#
# Seen with: av 18.1.0 (its own FFmpeg 8.1.2), numpy 2.4.6; Python 3.11, Linux x86-64.
# Behaviour: a recorder that stopped or still runs leaves a playlist without #EXT-X-ENDLIST. Of five segments of a second
#   the first picture that is read is that of second 2, and after the last one the reader goes on waiting. The option
#   `live_start_index` 0 starts at the beginning. `m3u8_hold_counters`, how often a playlist without news is loaded again,
#   ends the wait when it is 2; with 1, or with `max_reload` 0, the same playlist cannot be opened at all.
# A user of video object detection analyses the end of a recording for the whole of it, and the program never returns.
# Output seen:
#   finished, no options: 125 pictures from 0.00 s
#   unfinished, no options, first picture: 2.00 s
#   unfinished, start 0, hold 2: 125 pictures from 0.00 s
#   unfinished, start 0, hold 1: InvalidDataError
#   unfinished, start 0, reload 0: InvalidDataError
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet av==18.1.0 numpy==2.4.6
timeout 60 venv/bin/python -I - <<'PROGRAM'
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

for segment in range(5):
    with av.open(f"{segment}.ts", "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"bf": "0", "g": "25"})
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        for number in range(25 * segment, 25 * segment + 25):
            frame = av.VideoFrame.from_ndarray(np.full((64, 64, 3), 2 * number, np.uint8), format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
lines = "".join(f"#EXTINF:1.0,\n{segment}.ts\n" for segment in range(5))
playlist = f"#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:1\n#EXT-X-MEDIA-SEQUENCE:0\n{lines}"
Path("unfinished.m3u8").write_text(playlist)
Path("finished.m3u8").write_text(playlist + "#EXT-X-ENDLIST\n")


def read(name, **options):
    try:
        with av.open(name, options=options) as container:
            times = [frame.time for frame in container.decode(video=0)]
        return f"{len(times)} pictures from {times[0]:.2f} s"
    except av.FFmpegError as error:
        return type(error).__name__


found = {"finished, no options": read("finished.m3u8")}
with av.open("unfinished.m3u8") as container:
    found["unfinished, no options, first picture"] = f"{next(container.decode(video=0)).time:.2f} s"
start = {"live_start_index": "0"}
found["unfinished, start 0, hold 2"] = read("unfinished.m3u8", **start, m3u8_hold_counters="2")
found["unfinished, start 0, hold 1"] = read("unfinished.m3u8", **start, m3u8_hold_counters="1")
found["unfinished, start 0, reload 0"] = read("unfinished.m3u8", **start, max_reload="0")
for what, said in found.items():
    print(f"{what}: {said}")
assert list(found.values()) == ["125 pictures from 0.00 s", "2.00 s", "125 pictures from 0.00 s",
                                "InvalidDataError", "InvalidDataError"]
PROGRAM
