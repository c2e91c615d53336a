"""What videos are worth that nobody annotated: few annotated ones, with and without self-labels of more.

    python benchmarks/quality/self_label_accuracy.py [--threads 1] [--runs runs/self_labels]

On rendered videos, and on backbone and proposals of rdn_tiny that stay as they are (frozen.py), heads with
relations are trained on few annotated videos: the teacher. It labels others as `training/data/self_labels.py` does, by
its whole window and tubes through the whole video. Then the teacher's weights go on, for as many steps each, on the
annotated videos alone, on those and the self-labels, and on those and the true annotations of the others, which no
label can beat. Every one is evaluated as an engine directory with and without look-ahead. Stopped at any point, the
same command goes on.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.quality.accuracy import write_json
from benchmarks.quality.frozen import attached, settings, train
from export.attach_relations import attach_relations
from rdn_engine import Detector
from rdn_engine.bundle.directory import Bundle
from rdn_engine.evaluation.boxes import Truth, iou
from rdn_engine.evaluation.coco_vid import Dataset, read_dataset, write_dataset
from training.arguments import given_path
from training.data.export_synthetic import export_synthetic
from training.data.self_labels import Choice, provenance, self_labels
from training.data.synthetic import SyntheticVideos
from training.evaluation.detect import RunDetector, evaluate
from training.evaluation.videos import from_synthetic
from training.provenance import environment
from training.settings import Relation

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "results"
SEEDS = 3
ANNOTATED, OTHERS, HELD_OUT = (20, 12), (60, 12), (30, 24)
"""Videos, and frames of each"""
TEACHER_STEPS, STEPS, CLIPS = 250, 200, 2
"""Of each of the teacher's two phases; of what goes on from it; clips of three frames in a step"""


def exported(folder: Path, split: str, count: tuple[int, int]) -> Path:
    """The folder of rendered videos as files, written unless they are there."""
    if not (folder / "annotations.json").exists():
        export_synthetic(SyntheticVideos(split, *count), folder)
    return folder


def right(labels: Dataset, truth: Dataset) -> dict[str, float]:
    """How good labels are: the part that lies on an object of their class by an IoU of 0.5, and the part of the objects
    that have one. Frame i of both is the same.
    """
    ours, theirs = Truth.of(labels), Truth.of(truth)
    ours = ours[~ours.ignore]
    hits, found = 0, 0
    for mine, other in zip(labels.frames, truth.frames, strict=True):
        a, b = ours[ours.image == mine.id], theirs[theirs.image == other.id]
        same = (iou(a.xyxy, b.xyxy) >= 0.5) & (a.label[:, None] == b.label[None])
        hits += int(same.any(1).sum())
        found += int(same.any(0).sum())
    return {"labels": len(ours), "precision": 100 * hits / len(ours), "recall": 100 * found / len(theirs)}


def label(teacher: Path, others: Path, output: Path, images: Path, threads: int) -> dict[str, float]:
    """Self-labels of the other videos in `output`, unless they are there, and how good they are."""
    truth = read_dataset(others / "annotations.json")
    if not output.exists():
        detector, choice = Detector.from_pretrained(teacher, threads=threads), Choice()
        videos = [others / "images" / video.name for video in truth.videos]
        dataset, accounts = self_labels(detector, videos, images, choice)
        write_dataset(dataset, output, provenance(Bundle.open(teacher), detector.config.dials, choice, accounts))
    return right(read_dataset(output), truth)


def figures(engines: Path, threads: int) -> dict[str, dict[str, float]]:
    """Causal and with the whole window."""
    videos = from_synthetic(SyntheticVideos("test", *HELD_OUT))
    detector = Detector.from_pretrained(engines, threads=threads)
    own, rows = detector.config.dials, {}
    for ahead in (0, own.window):
        result = evaluate(RunDetector(detector, replace(own, look_ahead=ahead)), videos)
        speeds = {name: result["speed"][name]["AP50"] for name in ("slow", "medium", "fast")}
        rows[f"L={ahead}"] = {"AP50": result["vid"]["AP50"], "AP": result["coco"]["AP"], **speeds}
    return rows


def measure(folder: Path, seed: int, threads: int) -> dict[str, Any]:
    """Teacher and students of one seed."""
    detector = attached(folder)
    few, others = (exported(folder / name, name, count) for name, count in (("few", ANNOTATED), ("others", OTHERS)))
    annotated = {"annotations": str(few / "annotations.json"), "images": str(few / "images")}

    def head(name: str, sources: list[dict[str, str]], begin: Path | None, steps: int, features: str) -> Path:
        run = folder / f"{name}-{seed}"
        relation: Relation = "none" if name == "single" else "full"
        told = settings(detector, folder / features, sources, name, relation, seed, steps, CLIPS)
        train(told, run, begin)
        return run / "model.safetensors"

    def engines(checkpoint: Path) -> Path:
        made = checkpoint.parent / "engines"
        if not made.exists():
            attach_relations(detector, checkpoint, made)
        return made

    first = head("single", [annotated], None, TEACHER_STEPS, "features-few")
    teacher = head("teacher", [annotated], first, TEACHER_STEPS, "features-few")
    labels = folder / f"self-{seed}.json"
    quality = label(engines(teacher), others, labels, folder / "frames", threads)
    own = {"annotations": str(labels), "images": str(folder / "frames")}
    true = {"annotations": str(others / "annotations.json"), "images": str(others / "images")}
    rows = {"teacher": figures(engines(teacher), threads)}
    students: Mapping[str, tuple[list[dict[str, str]], str]] = {
        "annotated": ([annotated], "features-few"),
        "self": ([annotated, own], f"features-self-{seed}"),
        "true": ([annotated, true], "features-all"),
    }
    for name, (sources, features) in students.items():
        rows[name] = figures(engines(head(name, sources, teacher, STEPS, features)), threads)
    return {"labels": quality, "rows": rows}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--runs", type=given_path, default=ROOT / "runs" / "self_labels")
    parser.add_argument("--seeds", type=int, nargs="+", default=range(SEEDS), help="to measure now")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    about: dict[str, Any] = {"annotated": ANNOTATED, "others": OTHERS, "held_out": HELD_OUT}
    about |= {"teacher_steps": TEACHER_STEPS, "steps": STEPS, "clips": CLIPS}
    for seed in arguments.seeds:
        path = RESULTS / f"self_labels-{seed}.json"
        if not path.exists():
            where = environment()  # before the training: the commit it was made with
            write_json(path, {**where, **about, **measure(arguments.runs.resolve(), seed, arguments.threads)})


if __name__ == "__main__":
    main()
