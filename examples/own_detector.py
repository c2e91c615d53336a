"""A detector of yours on a video of yours: attached, proved, run with linking; who was seen for how long.

python examples/own_detector.py --detector yolox_nano.onnx --video street.mp4 --output own

The detector is an ONNX file of the YOLOX family trained on COCO, as its authors publish them; others: export/attach.py.
"""

import argparse
import collections
import json
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from rdn_engine.results import NOBODY
from training.arguments import given_path

ROOT = Path(__file__).resolve().parents[1]


def run(*arguments: str | Path) -> None:
    """Run a script or module of this Python; leave with its exit code where it fails."""
    line = [str(a) for a in arguments]
    print("\n$ python", *line, flush=True)
    code = subprocess.run([sys.executable, *line], check=False).returncode
    if code:
        sys.exit(code)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--detector", type=given_path, required=True, help="ONNX file")
    parser.add_argument("--family", default="yolox", help="of the detector; default: yolox")
    parser.add_argument("--classes", default="coco", help="coco, or a file with a name a line; default: coco")
    parser.add_argument("--video", required=True, help="anything that rdn-engine predict reads")
    parser.add_argument("--output", type=given_path, required=True, help="folder for what is written")
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    engines, lines = arguments.output / "engines", arguments.output / "found.jsonl"

    run(ROOT / "export" / "attach.py", "--detector", arguments.detector, "--family", arguments.family,
        "--classes", arguments.classes, "--output", engines)  # fmt: skip
    run("-m", "rdn_engine", "predict", arguments.video, "--engines", engines, "--threshold", "0.3", "--link",
        "--link-by", "boxes", "--link-gap", "30", "--output", lines,
        "--save-video", arguments.output / "annotated.mp4")  # fmt: skip

    seen: dict[tuple[str, int], int] = collections.Counter()
    for line in lines.read_text().splitlines():
        found = json.loads(line)["detections"]
        seen.update((box["class_name"], box["tracker_id"]) for box in found if box["tracker_id"] != NOBODY)
    print("\nlongest in the picture:")
    for (name, identity), frames in sorted(seen.items(), key=lambda one: -one[1])[:10]:
        print(f"  {name} {identity}: {frames} frames")


if __name__ == "__main__":
    main()
