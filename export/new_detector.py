"""From annotated videos to a verified engine directory, in one command (docs/train_your_own.md).

    python export/new_detector.py clips --output detectors/street
    python export/new_detector.py clips/train --validation clips/val --output detectors/street --start-from resnet18.pth
    python export/new_detector.py clips --unlabelled week/*.mp4 --output detectors/street

Finds the layout, converts, checks, writes a configuration that fits the data, trains, evaluates, exports and verifies.
With --unlabelled, what was trained labels those videos (training/data/self_labels.py) and goes on training on both; of
the two, the one with the higher AP50 on the validation set is exported. Each step prints the command that does the same
alone. A step that is done is not done again: stopped at any point, the same command goes on. Exit code 1 where a step
fails or something is wrong with the data.
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from rdn_engine.errors import DatasetError, RDNError, TrainingError
from rdn_engine.evaluation.coco_vid import Dataset, read_dataset, read_json, write_dataset
from rdn_engine.text import read_text
from training.arguments import given_path
from training.data.anchors import fit_anchors, read_anchors
from training.data.builder import Builder
from training.data.check import check_dataset, compare_sets
from training.data.convert import convert, with_classes
from training.data.doubts import find_doubts
from training.data.formats import FORMATS, find_format
from training.data.page import page
from training.data.self_labels import Choice
from training.data.split import split_dataset
from training.settings import Settings, override
from training.validation import METRIC

ROOT = Path(__file__).resolve().parents[1]
BASE = ROOT / "training/configs/own_data.yaml"
STEPS_OF_A_FRAME = 20
"""Iterations for each annotated frame, within LEAST_STEPS and what the base configuration has"""
LEAST_STEPS = 1500
BETTER = 0.05
"""Part of the boxes more that proposed anchors must meet to be taken"""


def prepare(arguments: argparse.Namespace) -> None:
    """train.json, val.json and report.html; DatasetError where anything is wrong with the data."""
    output = arguments.output
    builder = _read(arguments, arguments.data)
    if arguments.validation is None:
        train, validation, apart = split_dataset(builder.dataset)
        names = ", ".join(video.name for video in validation.videos[:5])
        print(f"held out for validation: {len(validation.videos)} videos ({names}), {len(validation.frames)} frames")
        if not apart:
            print("note: there is one video; its last part tells little of how good the detector is on another")
    else:
        other = _read(arguments, arguments.validation)
        names_of_all = list(dict.fromkeys([*builder.dataset.class_names, *other.dataset.class_names]))
        train, validation = (with_classes(one.dataset, names_of_all) for one in (builder, other))
    images, validation_images = _images(arguments, arguments.data), _images(arguments, arguments.validation)
    for name, dataset, folder in (("train", train, images), ("val", validation, validation_images)):
        problems = list(check_dataset(dataset, f"{name}.json", folder))
        if problems:
            kinds = ", ".join(f"{count} x {kind}" for kind, count in Counter(p.kind for p in problems).items())
            raise DatasetError(f"{problems[0].where}: {problems[0].what}; {kinds}; wanted a set without faults")
        write_dataset(dataset, output / f"{name}.json")
    fit = fit_anchors(train, *read_anchors(arguments.config))
    doubts = list(find_doubts(train, "train.json", fit))
    doubts += compare_sets(train, images, output / "val.json", validation_images)
    text = page(train, str(output / "train.json"), images, [], doubts, fit)
    (output / "report.html").write_text(text, encoding="utf-8")
    for kind, count in Counter(p.kind for p in doubts).items():
        print(f"in doubt: {count} x {kind}")
    print(f"pictures, histograms and doubts: {output / 'report.html'}")


def _read(arguments: argparse.Namespace, data: Path) -> Builder:
    """A set of any layout; --images goes to the readers that want to know it."""
    format_ = FORMATS[arguments.format] if arguments.format else find_format(data)
    options = {}
    if arguments.images is not None and any(option.name == "images" for option in format_.options):
        options = {"images": arguments.images}
    builder = convert(data, format_.name, **options)
    d = builder.dataset
    print(f"{data} is read as {format_.name}")
    print(f"{len(d.videos)} videos, {len(d.frames)} frames, {len(d.annotations)} annotations")
    for note in builder.notes:
        print(f"note: {note}")
    return builder


def _images(arguments: argparse.Namespace, data: Path | None) -> Path:
    """The folder that the file names of a set start from"""
    path: Path = data or arguments.data
    return (arguments.images or (path if path.is_dir() else path.parent)).resolve()


def configure(arguments: argparse.Namespace) -> None:
    """config.yaml: the base with the data in it, anchors that fit and a number of steps that does; ConfigError."""
    output = arguments.output
    raw: dict[str, Any] = yaml.safe_load(read_text(arguments.config))
    train = read_dataset(output / "train.json")
    sets = {"train": arguments.data, "validation": arguments.validation}
    for name, file in (("train", "train.json"), ("validation", "val.json")):
        images = _images(arguments, sets[name])
        raw["data"][name] = [{"annotations": str((output / file).resolve()), "images": str(images)}]
    fit = fit_anchors(train, *read_anchors(arguments.config))
    if fit.proposal_met > fit.met + BETTER:
        raw["model"].setdefault("rpn", {})["anchor_sizes"] = list(fit.proposal)
        print(f"anchor_sizes {list(fit.proposal)} meet {fit.proposal_met:.0%} of the boxes, the base's {fit.met:.0%}")
    _shorten(raw, train)
    for text in arguments.set:
        override(raw, text)
    path = output / "config.yaml"
    path.write_text(yaml.safe_dump(raw, sort_keys=False), encoding="utf-8")
    steps = sum(phase.iterations for phase in Settings.read(path).phases)
    print(f"{steps} steps for {len(train.frames)} frames: {path}")


def _shorten(raw: dict[str, Any], train: Dataset) -> None:
    """Fewer steps for fewer frames, the phases in the same proportions"""
    total = sum(phase["iterations"] for phase in raw["phases"])
    part = min(max(STEPS_OF_A_FRAME * len(train.frames), LEAST_STEPS) / total, 1)
    for phase in raw["phases"]:
        phase["iterations"] = max(round(part * phase["iterations"]), 1)
        if "drops" in phase:
            phase["drops"] = [max(round(part * drop), 1) for drop in phase["drops"]]
    for name in ("warm_up", "evaluate_every"):
        if raw.get(name):
            raw[name] = max(round(part * raw[name]), 1)


def weights(arguments: argparse.Namespace) -> None:
    """backbone.pth: torchvision's ImageNet weights, where no others are given; TrainingError without a connection."""
    if arguments.start_from is not None:
        return
    import torch
    import torchvision

    name = Settings.read(arguments.output / "config.yaml").model.backbone.name
    try:
        model = getattr(torchvision.models, name)(weights="DEFAULT")
    except (AttributeError, OSError) as error:
        raise TrainingError(
            f"the weights of {name} cannot be fetched: {error}; wanted a connection, or --start-from with a file"
        ) from error
    torch.save(model.state_dict(), arguments.output / "backbone.pth")


def configure_again(arguments: argparse.Namespace) -> None:
    """again.yaml: the last phase once more, on the annotated frames and on those that the detector labelled itself."""
    output = arguments.output
    raw: dict[str, Any] = yaml.safe_load(read_text(output / "config.yaml"))
    raw["data"]["train"].append({"annotations": str(output / "self.json"), "images": str(output / "frames")})
    raw["phases"] = [{**raw["phases"][-1], "name": "again"}]
    (output / "again.yaml").write_text(yaml.safe_dump(raw, sort_keys=False), encoding="utf-8")


def best_of(output: Path) -> Path:
    """The checkpoint that is exported: of the run, or of the one on self-labels where that came out higher."""
    runs = [output / "run"]
    if (output / "again/best.safetensors").is_file():
        runs.append(output / "again")
    reached = {}
    for run in runs:
        log = [json.loads(line) for line in read_text(run / "log.jsonl").splitlines()]
        reached[run] = max(line[METRIC] for line in log if METRIC in line)
    best = max(runs, key=lambda run: reached[run])
    if len(runs) > 1:
        print(", ".join(f"{run.name}: {METRIC} {ap:.1f}" for run, ap in reached.items()) + f"; taken: {best.name}")
    return best / "best.safetensors"


def call(*command: str | Path) -> None:
    """A command of this house, said before it runs; TrainingError where it fails."""
    words = [str(word) for word in command]
    print(f"$ {shlex.join(words)}", flush=True)
    done = subprocess.run([sys.executable, *words[1:]] if words[0] == "python" else words, cwd=ROOT, check=False)
    if done.returncode:
        raise TrainingError(f"exit code {done.returncode} of: {shlex.join(words)}")


def run(arguments: argparse.Namespace) -> None:
    """All steps; RDNError where one fails."""
    output = arguments.output
    arguments.output = output = output.resolve()
    output.mkdir(parents=True, exist_ok=True)
    done_file = output / "done.json"
    done: dict[str, Any] = {"arguments": {}, "steps": []}
    if done_file.is_file():
        done = read_json(done_file)
    # What no step that is done has read may still change.
    free = {"device"} | ({"accept"} if "label" not in done["steps"] else set())
    chosen = {key: str(value) for key, value in vars(arguments).items() if key not in free}
    changed = sorted(k for k in chosen if done["arguments"].get(k, chosen[k]) != chosen[k])
    if changed:
        raise DatasetError(f"{output} was begun with other {', '.join(changed)}; wanted the same, or another --output")
    done["arguments"] = chosen
    for name, step in _steps(arguments).items():
        if name in done["steps"]:
            print(f"{name}: done before")
            continue
        print(f"\n{name}", flush=True)
        step()
        done["steps"].append(name)
        done_file.write_text(json.dumps(done, indent=1) + "\n", encoding="utf-8")
    accuracy = json.loads(read_text(output / "accuracy.json"))
    print(f"\n{output / 'engines'} is verified; AP50 {accuracy['vid']['AP50']:.1f} on {output / 'val.json'}")
    print(f"try it: rdn-engine predict VIDEO --engines {output / 'engines'} --save-video out.mp4")


def _steps(arguments: argparse.Namespace) -> dict[str, Callable[[], None]]:
    """What is done, by name and in order."""
    output = arguments.output
    start = arguments.start_from or output / "backbone.pth"
    val, images = output / "val.json", _images(arguments, arguments.validation)

    def train(config: str, folder: str, begin: Path) -> None:
        told = ("--config", output / config, "--output", output / folder, "--start-from", begin)
        call("python", "training/train.py", *told, "--device", arguments.device)

    def evaluate() -> None:
        data = ("--data", val, "--images", images, "--output", output / "accuracy.json")
        call("python", "export/evaluate.py", "--checkpoint", best_of(output), *data)

    def build(checkpoint: Path, engines: Path) -> None:
        golden = (images / read_dataset(val).frames[0].file_name).parent
        call("python", "export/build_engines.py", "--checkpoint", checkpoint, "--output", engines, "--golden", golden)

    def label() -> None:
        # As many references as people annotated: more would drown what is known to be right.
        most = sum(frame.train for frame in read_dataset(output / "train.json").frames)
        told = ("--engines", output / "teacher", "--images", output / "frames", "--output", output / "self.json")
        how = ("--accept", str(arguments.accept), "--references", str(most))
        call("python", "training/data/self_labels.py", *arguments.unlabelled, *told, *how)

    teacher = output / "run/best.safetensors"
    again: dict[str, Callable[[], None]] = {
        "teacher": lambda: build(teacher, output / "teacher"),
        "label": label,
        "configure again": lambda: configure_again(arguments),
        "train again": lambda: train("again.yaml", "again", teacher),
    }
    return {
        "prepare": lambda: prepare(arguments),
        "configure": lambda: configure(arguments),
        "weights": lambda: weights(arguments),
        "train": lambda: train("config.yaml", "run", start),
        **(again if arguments.unlabelled else {}),
        "evaluate": evaluate,
        "export": lambda: build(best_of(output), output / "engines"),
        "verify": lambda: call("python", "-m", "rdn_engine", "verify", output / "engines"),
    }


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    made.add_argument("data", type=given_path, help="annotation file or folder, of any layout of docs/datasets.md")
    made.add_argument("--output", type=given_path, required=True, help="a folder for all that is made")
    made.add_argument("--validation", type=given_path, help="a second set; default: every fifth video of the first")
    made.add_argument("--images", type=given_path, help="the folder of the frames, where they lie elsewhere")
    made.add_argument(
        "--unlabelled", type=given_path, nargs="+", default=[], help="videos that train the relations too"
    )
    made.add_argument("--accept", type=float, default=Choice().accept, help="confidence of their labels; %(default)s")
    made.add_argument("--format", choices=tuple(FORMATS), help="the layout; found out by default")
    made.add_argument("--config", type=given_path, default=BASE, help="the training configuration to begin with")
    made.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE", help="settings to replace in it")
    made.add_argument(
        "--start-from", type=given_path, help="weights; default: torchvision's of ImageNet, which are fetched"
    )
    made.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    return made


def main() -> None:
    arguments = parser().parse_args()
    for name in ("data", "validation", "images", "config", "start_from"):
        if getattr(arguments, name) is not None:
            setattr(arguments, name, getattr(arguments, name).resolve())
    arguments.unlabelled = [video.resolve() for video in arguments.unlabelled]
    try:
        run(arguments)
    except (RDNError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
