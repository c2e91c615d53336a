"""What calibrated confidences are worth: error, thresholds and AP before and after, on videos of their own.

    python benchmarks/quality/confidence_accuracy.py --bundle models/rdn_tiny/engines --output result.json

Maps are fitted and tested by `rdn-engine calibrate`'s own rules on rendered videos of one split, and judged on another.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from rdn_engine import Detections, Detector
from rdn_engine.bundle.directory import Bundle, write_calibrated
from rdn_engine.evaluation.calibrate import calibrate, check_calibration
from rdn_engine.evaluation.score import score
from training.arguments import given_path
from training.data.synthetic import SyntheticVideos
from training.evaluation.videos import AnnotatedVideos, from_synthetic
from training.provenance import environment


def detect(detector: Detector, videos: AnnotatedVideos) -> dict[int, Detections]:
    """By `Frame.id`, with the dials of the model."""
    found: dict[int, Detections] = {}
    for _, frames in videos.videos():
        results = detector.predict([videos.read(frame) for frame in frames])
        found |= {frame.id: result for frame, result in zip(frames, results, strict=True)}
    return found


def figures(found: Mapping[int, Detections], videos: AnnotatedVideos, names: tuple[str, ...]) -> dict[str, Any]:
    result = score(found, videos, names, 0)
    calibration = result["calibration"]
    return {
        "AP50": result["vid"]["AP50"],
        "AP": result["coco"]["AP"],
        "oLRP": result["operating"]["oLRP"],
        "D_ECE": calibration["D_ECE"],
        "D_ECE_certain": calibration["D_ECE_certain"],
        "thresholds": {name: point and point["threshold"] for name, point in result["operating"]["per_class"].items()},
        "bins": calibration["bins"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--bundle", type=given_path, required=True)
    parser.add_argument("--output", type=given_path, required=True)
    parser.add_argument("--fitted", default="calibration", help="split of the videos that maps are fitted to")
    parser.add_argument("--split", default="test", help="of the videos that judge")
    parser.add_argument("--videos", type=int, default=60)
    parser.add_argument("--frames", type=int, default=24)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    detector = Detector.from_pretrained(arguments.bundle, threads=arguments.threads)
    names = detector.config.class_names
    own = from_synthetic(SyntheticVideos(arguments.fitted, arguments.videos, arguments.frames))
    others = from_synthetic(SyntheticVideos(arguments.split, arguments.videos, arguments.frames))
    # `calibrate` takes classes by their place in the data set, which has the model's order here.
    assert tuple(own.dataset.class_names) == names
    made = calibrate(detect(detector, own), own, names)
    check_calibration(made)
    with tempfile.TemporaryDirectory() as folder:
        write_calibrated(Bundle.open(arguments.bundle), Path(folder) / "calibrated", made)
        calibrated = Detector.from_pretrained(Path(folder) / "calibrated", threads=arguments.threads)
        rows = {
            "before": figures(detect(detector, others), others, names),
            "after": figures(detect(calibrated, others), others, names),
        }
    result = {
        "model": str(arguments.bundle),
        "fitted": own.name,
        "data": others.name,
        "frames": len(others.dataset.frames),
        "test": made.to_dict()["test"],
        "rows": rows,
        **environment(),
    }
    arguments.output.write_text(json.dumps(result, indent=1) + "\n")
    for name, row in rows.items():
        print(name, {key: row[key] for key in ("AP50", "AP", "oLRP", "D_ECE", "D_ECE_certain")})


if __name__ == "__main__":
    main()
