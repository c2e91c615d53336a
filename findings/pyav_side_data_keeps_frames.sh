#!/usr/bin/env bash
# A frame whose side data was looked at stays in memory until Python's garbage collector runs.
#
# Seen with: av 18.1.0, numpy 2, Python 3.11, Linux x86-64.
# Behaviour: `frame.side_data` makes a container that refers to the frame, and the frame keeps the container: a circle. With
#   the last name gone, five frames are freed at once; five whose `side_data` was asked for are all still there, and go when
#   `gc.collect()` runs. A container that is made by hand, `SideDataContainer(frame)`, is not kept by the frame, and nothing
#   stays.
# A user of video object detection looks at each frame's side data for its rotation. Each frame holds its picture, and the
#   decoder's pool of pictures with it. The collector counts objects, not bytes, so it runs rarely: a process whose cameras
#   come and go grows by hundreds of MiB first.
# Output seen:
#   frames left: 0 without side data, 5 with it, 0 after the collector, 0 with a container made by hand
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet av==18.1.0 numpy
venv/bin/python - <<'PROGRAM'
import gc

import av
from av.sidedata.sidedata import SideDataContainer

gc.disable()


def left(look) -> int:
    """Of five frames, those that are there when nothing names them any more."""
    for _ in range(5):
        look(av.VideoFrame(64, 64, "yuv420p"))
    return sum(isinstance(one, av.VideoFrame) for one in gc.get_objects())


found = [left(lambda frame: frame.width), left(lambda frame: len(frame.side_data))]
gc.collect()
found += [left(lambda frame: frame.width), left(lambda frame: len(SideDataContainer(frame)))]
none, kept, collected, by_hand = found
print(f"frames left: {none} without side data, {kept} with it, {collected} after the collector, {by_hand} with a container made by hand")
assert found == [0, 5, 0, 0]
PROGRAM
