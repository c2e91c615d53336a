#!/usr/bin/env bash
# A video region made with label-studio-sdk has lost `enabled`: the object that left never leaves.
#
# Seen with: label-studio-sdk 2.1.2; Python 3.11, Linux x86-64.
# Behaviour: `enabled: false` in a keyframe ends an object in Label Studio's video JSON. The SDK's own type of a
#   VideoRectangle keyframe has no such field and drops it without a word, in `tag.label(...)` as in the value class. The
#   SDK's function that expands keyframes to frames, `extract_key_frames`, then raises KeyError for its own region.
# A user of video object detection writes pre-annotations with the SDK, or passes annotations through it: every object
#   stays to the end of its video, and boxes on empty ground are trained on.
# Output seen:
#   keyframes given: frame 2 enabled True, frame 6 enabled False; expanded to frames 2..6 of 10
#   fields kept by the SDK's region: frame height rotation time width x y
#   expanded again: KeyError 'enabled'
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet label-studio-sdk==2.1.2
venv/bin/python -I - 2>messages <<'PROGRAM' || { cat messages >&2; exit 1; }
from label_studio_sdk._extensions.label_studio_tools.postprocessing.video import extract_key_frames
from label_studio_sdk.label_interface import LabelInterface

CONFIG = """<View><Video name="video" value="$video"/><VideoRectangle name="box" toName="video"/>
<Labels name="labels" toName="video"><Label value="car"/></Labels></View>"""


def key(frame, enabled):
    return {"frame": frame, "enabled": enabled, "x": 10, "y": 20, "width": 30, "height": 40, "rotation": 0, "time": 0}


value = {"framesCount": 10, "duration": 1.0, "labels": ["car"], "sequence": [key(2, True), key(6, False)]}
(expanded,) = extract_key_frames([{"type": "videorectangle", "value": dict(value, sequence=list(value["sequence"]))}])
frames = [row["frame"] for row in expanded["value"]["sequence"]]
keys = ", ".join(f"frame {row['frame']} enabled {row['enabled']}" for row in value["sequence"])
print(f"keyframes given: {keys}; expanded to frames {frames[0]}..{frames[-1]} of 10")
region = LabelInterface(CONFIG).get_control("box").label(**value)
made = {"type": "videorectangle", "value": region.value.model_dump()}
kept = sorted(made["value"]["sequence"][1])
print(f"fields kept by the SDK's region: {' '.join(kept)}")
try:
    extract_key_frames([made])
    error = None
except KeyError as found:
    error = found
print(f"expanded again: {type(error).__name__} {error}")
assert frames == [2, 3, 4, 5, 6] and "enabled" not in kept and error is not None
PROGRAM
