"""What relations, linking and calibration are worth on real video: two recordings of fruit flies, with identities.

    python benchmarks/quality/real_videos.py FOLDER [--threads 1] [--runs runs/real_videos]

FOLDER holds `train.json`, `val.json` and the recordings of `RECORDINGS`; it comes from the test data of the public
repository talmolab/sleap and is not part of this one. Frames are decoded once. Backbone, proposals and heads of
models/rdn_tiny are trained on with single frames of the flies; then backbone and proposals stay as they are. On their
features, computed once, two heads go on from the same weights for as many steps, one on single frames, one with
relations; seeds decide the order of the data and what relation modules start from. Everything is evaluated as an engine
directory, through `rdn_engine.Detector`, on the recording's last part. Stopped at any point, the same command goes on.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
import yaml
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.quality.accuracy import BASE, FIRST, start_settings, write_json
from benchmarks.quality.frozen import attached, settings, train
from benchmarks.quality.linking_accuracy import IDENTITY, METHODS, lasting
from benchmarks.quality.recorded import linkables
from export.attach_relations import attach_relations
from rdn_engine import Detections, Detector
from rdn_engine.config import WHOLE_VIDEO, Dials
from rdn_engine.errors import CalibrationError
from rdn_engine.evaluation.calibrate import calibrate
from rdn_engine.evaluation.coco_vid import Dataset
from rdn_engine.evaluation.score import score
from rdn_engine.media.source import open_source
from rdn_engine.stream.linking import FLOOR, BoxLinker
from rdn_engine.stream.links import Linkable
from training.arguments import given_path
from training.data.frames import QUALITY
from training.evaluation.detect import RunDetector, detect_all
from training.evaluation.videos import AnnotatedVideos, from_files
from training.provenance import environment
from training.settings import Relation, Settings

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "results"
SEEDS = 3
SIDE = 224
"""Of the network input, pixels: a fly covers about 24 of them, what the smallest anchors are made for"""
START_STEPS, STEPS, CLIPS = 240, 200, 2
"""Of the start, twelve images each; of each head, so many clips of three frames each, or as many single frames"""
STRETCH = 50
"""Frames: of every other stretch confidences are calibrated, on those between they are judged"""
GAP = 30
"""Frames for which a lost object keeps its identity, where there is a dial for that"""
HEADS: dict[str, Relation] = {"single": "none", "rdn": "full"}


class Recording(NamedTuple):
    """Frames of a file that are a video of the data set"""

    file: str
    video: str
    first: int
    last: int


RECORDINGS = (
    Recording("courtship_1024x1024_25fps.mp4", "courtship_a", 0, 899),
    Recording("pair_384x384_15fps.mp4", "pair", 0, 1099),
    Recording("courtship_1024x1024_25fps.mp4", "courtship_b", 1000, 1499),
)


def write_frames(folder: Path, images: Path) -> None:
    """Every frame as `images`/VIDEO/NNNNNN.jpg, numbered from 0 in its video; what is there is not decoded again."""
    for file in dict.fromkeys(recording.file for recording in RECORDINGS):
        parts = [r for r in RECORDINGS if r.file == file and not (images / r.video).exists()]
        if not parts:
            continue
        for part in parts:
            (images / f".{part.video}").mkdir(parents=True, exist_ok=True)
        with open_source(folder / file) as source:
            for frame in source:
                for part in parts:
                    if part.first <= frame.index <= part.last:
                        path = images / f".{part.video}" / f"{frame.index - part.first:06d}.jpg"
                        Image.fromarray(frame.image).save(path, quality=QUALITY, subsampling=0)
        for part in parts:
            (images / f".{part.video}").rename(images / part.video)


def record(detector: Detector, videos: AnnotatedVideos, **given: Any) -> dict[str, list[Linkable]]:
    """What links the frames of each video, with the detector's dials and those that are `given`."""
    return linkables(detector, videos, detector.config.dials.turned({"link": "relations", "link_delay": 0, **given}))


def linked(recorded: dict[str, list[Linkable]], videos: AnnotatedVideos, dials: Dials) -> dict[int, Detections]:
    """By `Frame.id`."""
    found: dict[int, Detections] = {}
    for name, frames in videos.videos():
        linker = BoxLinker()
        results = [one for at in recorded[name] for one in linker.push(at, dials)] + linker.flush(dials)
        found |= {frame.id: result for frame, result in zip(frames, results, strict=True)}
    return found


def every_other(videos: AnnotatedVideos, which: int) -> AnnotatedVideos:
    """Every other stretch of frames of a data set: those with an even number for 0, with an odd one for 1."""
    whole = videos.dataset
    frames = [frame for i, frame in enumerate(whole.frames) if i // STRETCH % 2 == which]
    ids = {frame.id for frame in frames}
    kept = [a for a in whole.annotations if a.image_id in ids]
    return replace(videos, dataset=Dataset(whole.categories, whole.videos, frames, kept))


def figures(result: Mapping[str, Any]) -> dict[str, Any]:
    """Of one evaluation, those that the page shows."""
    speed = {name: result["speed"][name] for name in ("slow", "medium", "fast")}
    found = {"AP50": result["vid"]["AP50"], "AP": result["coco"]["AP"], "delay": result["delay"]["frames"]}
    found |= {name: part["AP50"] for name, part in speed.items()}
    return {name: None if value is None else round(value, 3) for name, value in found.items()}


def result_of(seed: int) -> Path:
    """The file of a seed's results."""
    return RESULTS / f"real_videos-{seed}.json"


@dataclass(frozen=True)
class Plan:
    """Where things lie, and what has been measured of a seed."""

    folder: Path
    runs: Path
    threads: int
    seed: int
    document: dict[str, Any]
    """Of the seed's results; written after every figure"""

    @property
    def sources(self) -> list[dict[str, str]]:
        return [{"annotations": str(self.folder / "train.json"), "images": str(self.runs / "frames")}]

    @property
    def held_out(self) -> AnnotatedVideos:
        return from_files(self.folder / "val.json", self.runs / "frames")

    def start(self) -> Path:
        """The weights that all heads begin with: of a single-frame detector of flies."""
        raw = start_settings(yaml.safe_load(BASE.read_text()), seed=0)
        raw["model"]["input"] |= {"shorter_side": SIDE, "longer_side": SIDE}
        raw["data"] = {"train": self.sources}
        raw["phases"][0] |= {"iterations": START_STEPS}
        # Most processors have no bfloat16 and compute it more slowly than float32.
        told = Settings.from_plain(raw | {"bf16": False, "save_every": 40})
        run = self.runs / "start"
        self.document["minutes"]["start"] = round(train(told, run, FIRST), 1)
        return run / "model.safetensors"

    def engines(self, name: str) -> Path:
        """The engine directory of one head, after training and exporting as far as that is not done."""
        start = self.start()
        detector = attached(self.runs, start, (SIDE, SIDE))
        told = settings(detector, self.runs / "features", self.sources, name, HEADS[name], self.seed, STEPS, CLIPS)
        run = self.runs / f"{name}-{self.seed}"
        self.document["minutes"][name] = round(train(told, run, start), 1)
        if not (run / "engines").exists():
            attach_relations(detector, run / "model.safetensors", run / "engines")
        return run / "engines"

    def put(self, name: str, value: dict[str, Any]) -> None:
        self.document[name] = value
        write_json(result_of(self.seed), self.document)
        print(self.seed, name, value, flush=True)

    def single(self) -> None:
        detector = Detector.from_pretrained(self.engines("single"), threads=self.threads)
        found = detect_all(RunDetector(detector, detector.config.dials), self.held_out)
        self.put("single", figures(score(found, self.held_out, detector.config.class_names, 0)))

    def rdn(self) -> None:
        """RDN, its linking and its calibration, of one look at the frames."""
        detector = Detector.from_pretrained(self.engines("rdn"), threads=self.threads)
        videos, names = self.held_out, detector.config.class_names
        recorded = record(detector, videos)
        found = linked(recorded, videos, Dials(link="off", score_threshold=FLOOR))
        self.document["linking"] = linking(recorded, videos, names)
        self.document["calibration"] = calibration(found, videos, names)
        self.put("rdn", figures(score(found, videos, names, detector.config.dials.frames_ahead)))

    def over_gaps(self) -> None:
        """Tube linking whose identities outlast a gap."""
        detector, gap = Detector.from_pretrained(self.engines("rdn"), threads=self.threads), {"link_gap": GAP}
        recorded = record(detector, self.held_out, **gap)
        whole = Dials(link="boxes", link_delay=WHOLE_VIDEO, score_threshold=FLOOR).turned(gap)
        found = linked(recorded, self.held_out, whole)
        row = figures(score(found, self.held_out, detector.config.class_names, 0)) | lasting(found, self.held_out)
        self.put("linking", self.document["linking"] | {"gaps": row})

    def look_ahead(self) -> None:
        """L below T; with L = T it is the model as it was evaluated above."""
        detector = Detector.from_pretrained(self.engines("rdn"), threads=self.threads)
        videos, own, rows = self.held_out, detector.config.dials, self.document.get("look_ahead", {})
        # Those first that were measured on rendered videos.
        for ahead in sorted(range(own.window), key=lambda frames: (frames not in (0, 1, 2, 4), frames)):
            if str(ahead) not in rows:
                found = detect_all(RunDetector(detector, replace(own, look_ahead=ahead)), videos)
                row = figures(score(found, videos, detector.config.class_names, ahead))
                self.put("look_ahead", rows | {str(ahead): row})
                rows = self.document["look_ahead"]


def linking(recorded: dict[str, list[Linkable]], videos: AnnotatedVideos, names: tuple[str, ...]) -> dict[str, Any]:
    """Every way of linking, over the whole video."""
    rows: dict[str, Any] = {}
    for method in METHODS:
        found = linked(recorded, videos, Dials(link=method, link_delay=WHOLE_VIDEO, score_threshold=FLOOR))
        rows[method] = figures(score(found, videos, names, 0)) | lasting(found, videos)
    return rows


def calibration(found: Mapping[int, Detections], videos: AnnotatedVideos, names: tuple[str, ...]) -> dict[str, Any]:
    """Maps fitted and tested on every other stretch of frames, judged on the stretches between."""
    own, others = every_other(videos, 0), every_other(videos, 1)
    try:
        made = calibrate({f.id: found[f.id] for f in own.dataset.frames}, own, names)
    except CalibrationError as error:  # as a user would be told
        return {"refused": str(error)}
    before = {f.id: found[f.id] for f in others.dataset.frames}
    after = {i: replace(one, confidence=made.apply(one.confidence, one.class_id)) for i, one in before.items()}
    rows: dict[str, Any] = {"test": made.to_dict()["test"]}
    for name, results in (("before", before), ("after", after)):
        result = score(results, others, names, 0)
        errors = {key: result["calibration"][key] for key in ("D_ECE", "D_ECE_certain")}
        rows[name] = {"AP50": result["vid"]["AP50"], "oLRP": result["operating"]["oLRP"], **errors}
    return rows


def begun(folder: Path, seed: int) -> dict[str, Any]:
    """The document of a seed: that which is there, or a new one."""
    path = result_of(seed)
    if path.exists():
        document: dict[str, Any] = json.loads(path.read_text())
        return document
    data = {}
    for name in ("train", "val"):
        counted = json.loads((folder / f"{name}.json").read_text())
        data[name] = {key: len(counted[key]) for key in ("videos", "images", "annotations")}
    about = {"data": data, "side": SIDE, "start_steps": START_STEPS, "steps": STEPS, "clips": CLIPS}
    return {**environment(), **about, "identity": IDENTITY, "minutes": {}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("folder", type=given_path, help="of the recordings and their annotations")
    parser.add_argument(
        "--runs", type=given_path, default=ROOT / "runs" / "real_videos", help="frames, trainings, engines"
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=range(SEEDS), help="to measure now")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    folder, runs = arguments.folder.resolve(), arguments.runs.resolve()
    write_frames(folder, runs / "frames")
    plans = [Plan(folder, runs, arguments.threads, seed, begun(folder, seed)) for seed in arguments.seeds]
    for plan in plans:
        if "single" not in plan.document:
            plan.single()
        if "rdn" not in plan.document:
            plan.rdn()
        if "link_gap" in {field.name for field in fields(Dials)} and "gaps" not in plan.document["linking"]:
            plan.over_gaps()
    for plan in plans:
        plan.look_ahead()


if __name__ == "__main__":
    main()
