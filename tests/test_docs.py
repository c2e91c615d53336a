"""Runs the pages that promise commands, as they are written, on miniatures."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from tests.data.parity.make_checkpoint import weights
from tests.own_detectors import CLASSES, columns, yolox
from tests.yolov_files import small_checkpoint
from training.data.readers.imagenet_vid import SYNSETS
from training.data.synthetic import CLASS_NAMES, SyntheticVideos, write_clip

ROOT = Path(__file__).parents[1]
COMMANDS = ("python", "rdn-engine")


SCRIPT = re.compile(r"\bpython3? (?:\./)?([\w./-]+\.py)\b")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout to run in: its own scripts and settings, the installed package."""
    for name in ("training", "export", "benchmarks"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__", "results"))
    (tmp_path / "rdn_engine").symlink_to(ROOT / "rdn_engine")
    return tmp_path


def commands(page: str, wanted: tuple[str, ...] = COMMANDS) -> list[str]:
    """The indented lines of a page that begin with a command."""
    lines = re.findall(r"^    (\S.*)$", (ROOT / page).read_text(), re.MULTILINE)
    return [line for line in lines if line.split()[0] in wanted]


def run(command: str, where: Path) -> str:
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "OMP_NUM_THREADS": "1",
    }
    done = subprocess.run(command, shell=True, cwd=where, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout


def test_every_script_that_a_page_names_exists() -> None:
    folders = ("docs", "models", "examples", "training", "export", "benchmarks", "scripts")
    files = [ROOT / "Makefile", *ROOT.glob("*.md")]
    files += [
        path for name in folders for end in ("md", "py", "yaml", "sh") for path in (ROOT / name).rglob(f"*.{end}")
    ]
    named = {(str(path.relative_to(ROOT)), name) for path in files for name in SCRIPT.findall(path.read_text())}
    assert ("README.md", "export/build_engines.py") in named
    assert sorted((page, name) for page, name in named if not (ROOT / name).is_file()) == []


def write_sequences(folder: Path, names: list[str], split: str) -> None:
    """Synthetic videos as CVAT exports tracks: MOT 1.1 with images."""
    videos = SyntheticVideos(split, len(names), 6)
    for v, name in enumerate(names):
        images, truth = folder / name / "img1", folder / name / "gt"
        images.mkdir(parents=True)
        truth.mkdir()
        rows = []
        for t, frame in enumerate(videos[v].frames, start=1):
            Image.fromarray(frame).save(images / f"{t:06d}.jpg", quality=95)
            found = zip(videos[v].boxes[t - 1], videos[v].labels[t - 1], videos[v].track_ids[t - 1], strict=True)
            rows += [
                f"{t},{track + 1},{x1},{y1},{x2 - x1 + 1},{y2 - y1 + 1},1,{label + 1},1.0"
                for (x1, y1, x2, y2), label, track in found
            ]
        (truth / "gt.txt").write_text("\n".join(rows) + "\n")
        (truth / "labels.txt").write_text("\n".join(CLASS_NAMES) + "\n")


def shorten(path: Path) -> None:
    """The same training, in a few steps at a small size."""
    settings = yaml.safe_load(path.read_text())
    settings["model"]["input"] |= {"shorter_side": 96, "longer_side": 160}
    settings["model"]["relation"] |= {"dim": 64, "heads": 4}
    settings["model"]["dials"] |= {"window": 2, "num_support": 8, "num_reference": 16}
    settings |= {"warm_up": 1, "evaluate_every": 2, "log_every": 1, "save_every": 2}
    for phase in settings["phases"]:
        phase |= {"iterations": 2, "drops": [1], "clips": 1}
    path.write_text(yaml.safe_dump(settings))


@pytest.fixture
def shown(tmp_path: Path) -> Path:
    """What `make demo` leaves of a checkout, the clip shorter."""
    (tmp_path / "models").symlink_to(ROOT / "models")
    (tmp_path / "demo").mkdir()
    write_clip(tmp_path / "demo" / "clip.mp4", index=7, num_frames=12)
    return tmp_path


def test_commands_of_the_readme_run_in_order_as_pasted(shown: Path) -> None:
    page = commands("README.md", ("rdn-engine", "export"))
    assert len(page) == 5
    out = run("set -e\n" + "\n".join(page), shown)
    assert (shown / "demo" / "out.mp4").stat().st_size > 0
    written = [json.loads(line) for line in (shown / "demo" / "out.jsonl").read_text().splitlines()]
    assert len(written) == 12
    assert all(found["confidence"] > 0.5 for line in written for found in line["detections"])
    assert out.count('"source_id": "demo/clip.mp4"') == 12
    assert "pass: each stage from stored inputs" in out


CAMERAS = """
import numpy as np
camera = first_camera = [np.full((96, 128, 3), 60 * t, np.uint8) for t in range(3)]
second_camera = [camera[0], None, camera[2]]
handled = []
handle = handled.append
"""


def test_snippets_of_the_readme_handle_one_result_each(shown: Path) -> None:
    snippets = re.findall(r"^```python\n(.*?)^```$", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    assert len(snippets) == 3
    (shown / "snippets.py").write_text(
        CAMERAS + "".join(snippets) + "print([(one.source_id, one.frame_index) for one in handled])\n"
    )
    handled = ast.literal_eval(run("python snippets.py", shown).splitlines()[-1])
    assert sorted(handled[:3]) == [("", 0), ("", 1), ("", 2)]
    assert sorted(handled[3:]) == [("door", 0), ("door", 1), ("door", 2), ("yard", 0), ("yard", 1)]


@pytest.mark.long
def test_train_your_own(checkout: Path) -> None:
    write_sequences(checkout / "clips" / "train", ["street_01", "street_02"], "train")
    write_sequences(checkout / "clips" / "val", ["street_09"], "test")
    shorten(checkout / "training" / "configs" / "own_data.yaml")
    page = commands("docs/train_your_own.md")
    assert len(page) == 12
    for command in page:
        # No weights can be fetched here; the same architecture untrained has the same tensors, and is sure of nothing.
        command = command.replace("weights='DEFAULT'", "weights=None")
        if "self_labels.py" in command:
            command += " --accept 0.02 --doubt 0 --least 1"
        run(command, checkout)
    assert json.loads((checkout / "self.json").read_text())["info"]["teacher"]["name"] == "mine"
    result = json.loads((checkout / "mine.json").read_text())
    assert result["data"]["frames"] == 6
    assert len((checkout / "mine.jsonl").read_text().splitlines()) == 6
    assert (checkout / "mine.mp4").stat().st_size > 0
    assert list((checkout / "plots").iterdir())


def write_ilsvrc(root: Path) -> None:
    """Two validation snippets of three frames with the parity data's pictures."""
    lines = []
    for v in range(2):
        name = f"ILSVRC2015_val_{v:08d}"
        for t in range(3):
            annotation = root / "Annotations" / "VID" / "val" / name / f"{t:06d}.xml"
            image = root / "Data" / "VID" / "val" / name / f"{t:06d}.JPEG"
            for path in (annotation, image):
                path.parent.mkdir(parents=True, exist_ok=True)
            frame = ROOT / "tests" / "data" / "parity" / "frames" / f"{v * 3 + t:06d}.png"
            picture = Image.open(frame).convert("RGB")
            picture.save(image, quality=95)
            synset = list(SYNSETS)[v]
            box = "<xmin>40</xmin><ymin>30</ymin><xmax>200</xmax><ymax>160</ymax>"
            annotation.write_text(
                f"<annotation><size><width>{picture.width}</width><height>{picture.height}</height></size>"
                f"<object><trackid>0</trackid><name>{synset}</name><bndbox>{box}</bndbox></object></annotation>"
            )
            lines.append(f"{name}/{t:06d} {len(lines) + 1}")
    sets = root / "ImageSets" / "VID"
    sets.mkdir(parents=True)
    (sets / "val.txt").write_text("\n".join(lines) + "\n")


@pytest.mark.long
def test_public_weights(checkout: Path) -> None:
    write_ilsvrc(checkout / "ILSVRC2015")
    torch.save({"model": weights(ROOT / "tests" / "data" / "parity" / "weights.npz")}, checkout / "RDN_R_101.pth")
    config = checkout / "export" / "configs" / "public_r101.yaml"
    settings = yaml.safe_load(config.read_text())
    settings["input"] = {"shorter_side": 96, "longer_side": 160}
    settings["dials"] |= {"window": 2, "num_support": 10, "num_reference": 40}
    config.write_text(yaml.safe_dump(settings))
    page = commands("docs/public_weights.md")
    assert len(page) == 5
    for command in page:
        run(command, checkout)
    result = json.loads((checkout / "rdn_r101.json").read_text())
    assert result["data"]["frames"] == 6
    assert 0 <= result["vid"]["AP50"] <= 100
    assert np.isfinite(result["speed"]["slow"]["AP50"])


@pytest.mark.long
def test_own_detector(checkout: Path) -> None:
    yolox(checkout / "detector.onnx")
    columns(checkout / "columns.onnx")
    (checkout / "names.txt").write_text("\n".join(CLASSES))
    shutil.copytree(ROOT / "examples", checkout / "examples")
    write_clip(checkout / "street.mp4", index=7, num_frames=12)
    for part, split in (("train", "train"), ("val", "test")):
        write_sequences(checkout / "clips" / part, [f"{part}_01"], split)
        run(f"python training/data/convert.py clips/{part} --output {part}.json", checkout)
    recipe = checkout / "training" / "configs" / "own_detector.yaml"
    settings = yaml.safe_load(recipe.read_text())
    settings["model"]["dials"] |= {"window": 2, "num_support": 8, "num_reference": 16}
    settings |= {"warm_up": 1, "evaluate_every": 2, "log_every": 1, "save_every": 2}
    for phase in settings["phases"]:
        phase |= {"iterations": 2, "clips": 1}
    recipe.write_text(yaml.safe_dump(settings))
    recipe = checkout / "training" / "configs" / "fcos_tiny.yaml"
    settings = yaml.safe_load(recipe.read_text())
    settings["data"]["train"][0]["synthetic"] |= {"num_videos": 2, "num_frames": 2}
    settings["phases"][0] |= {"iterations": 2, "clips": 2}
    recipe.write_text(yaml.safe_dump(settings))
    (checkout / "models").symlink_to(ROOT / "models")
    page = commands("docs/own_detector.md")
    assert len(page) == 12
    for command in page:
        run(command, checkout)
    for lines in ("own.jsonl", "own/found.jsonl", "own_rdn.jsonl"):
        assert len((checkout / lines).read_text().splitlines()) == 12
    assert json.loads((checkout / "own_rdn.json").read_text())["data"]["frames"] == 6
    assert (checkout / "own.mp4").stat().st_size > 0
    (snippet,) = re.findall(r"^```python\n(.*?)^```$", (ROOT / "docs/own_detector.md").read_text(), re.M | re.S)
    (checkout / "snippet.py").write_text(snippet)
    assert len(run("python snippet.py", checkout).splitlines()) >= 12


@pytest.mark.long
def test_yolov(checkout: Path) -> None:
    small_checkpoint(checkout / "yolov_s.pth", classes=30)
    write_clip(checkout / "street.mp4", index=7, num_frames=6)
    page = commands("docs/yolov.md")
    assert len(page) == 4
    for command in page:
        # The weights that stand for trained ones are random, with statistics of small pictures: in large ones hundreds
        # of proposals tie.
        run(command.replace("--classes imagenet_vid", "--classes imagenet_vid --size 64 96"), checkout)
    assert len((checkout / "street.jsonl").read_text().splitlines()) == 6
    assert (checkout / "street-out.mp4").stat().st_size > 0
    assert (checkout / "engines" / "yolov_s_offline" / "manifest.json").is_file()
