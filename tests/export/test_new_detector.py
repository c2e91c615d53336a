"""From an exported CVAT XML to a verified bundle in one command, and again from where it stopped."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torchvision
import yaml
from PIL import Image

from training.data.drawing import CLASS_NAMES
from training.data.synthetic import SyntheticVideos, write_clip

ROOT = Path(__file__).parents[2]
SMALL = (
    "model.input.shorter_side=96", "model.input.longer_side=160", "model.relation.dim=64", "model.relation.heads=4",
    "model.dials.window=2", "model.dials.num_support=8", "model.dials.num_reference=16",
    "warm_up=1", "evaluate_every=2", "log_every=1", "save_every=2",
    *(f"phases.{i}.{field}" for i in (0, 1) for field in ("iterations=2", "drops=[1]", "clips=1")),
)  # fmt: skip


def write_export(folder: Path, video: int, frames: int = 6) -> None:
    """A rendered video as CVAT exports it: a track of keyframes for each object, ended where it is hidden."""
    made = SyntheticVideos("train", 4, frames)[video]
    (folder / "images").mkdir(parents=True)
    tracks: dict[int, list[str]] = {}
    names: dict[int, str] = {}
    for t, frame in enumerate(made.frames):
        Image.fromarray(frame).save(folder / f"images/frame_{t:06d}.png")
        for (x1, y1, x2, y2), label, track in zip(made.boxes[t], made.labels[t], made.track_ids[t], strict=True):
            names[int(track)] = CLASS_NAMES[label]
            sides = f'xtl="{x1:.2f}" ytl="{y1:.2f}" xbr="{x2 + 1:.2f}" ybr="{y2 + 1:.2f}"'
            rows = tracks.setdefault(int(track), [])
            rows.append(f'<box frame="{t}" outside="0" keyframe="1" {sides}/>')
    labels = "".join(f"<label><name>{name}</name></label>" for name in CLASS_NAMES)
    size = f"<size>{frames}</size><start_frame>0</start_frame><stop_frame>{frames - 1}</stop_frame>"
    task = f"<meta><task>{size}<labels>{labels}</labels></task></meta>"
    body = "".join(f'<track id="{i}" label="{names[i]}">{"".join(rows)}</track>' for i, rows in tracks.items())
    (folder / "annotations.xml").write_text(f"<annotations><version>1.1</version>{task}{body}</annotations>")


def command(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "export/new_detector.py", *map(str, arguments)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(line, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.long
def test_from_cvat_to_a_verified_bundle(tmp_path: Path) -> None:
    for video, name in enumerate(("street", "yard")):
        write_export(tmp_path / "exports" / name, video)
    write_clip(tmp_path / "week.mp4", num_frames=6)
    torch.save(torchvision.models.resnet18(weights=None).state_dict(), tmp_path / "resnet18.pth")
    arguments = [tmp_path / "exports", "--output", tmp_path / "made", "--start-from", tmp_path / "resnet18.pth"]
    arguments += [part for setting in SMALL for part in ("--set", setting)]
    arguments += ["--unlabelled", tmp_path / "week.mp4"]
    # A detector of two steps is certain of nothing; how certain it has to be may be said anew until it has labelled.
    unsure = command(*arguments, "--device", "cpu", "--accept", "0.99")
    assert unsure.returncode == 1
    assert "in 1 videos no track has 3 boxes of a confidence above 0.99; wanted a lower --accept" in unsure.stderr
    arguments += ["--accept", "0.1"]
    done = command(*arguments, "--device", "cpu")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    done.stdout = unsure.stdout + done.stdout
    assert "is read as cvat-video" in done.stdout
    assert "held out for validation: 1 videos" in done.stdout
    assert f"{tmp_path / 'made/engines'} is verified; AP50" in done.stdout
    assert 0 <= json.loads((tmp_path / "made/accuracy.json").read_text())["vid"]["AP50"] <= 100
    settings = yaml.safe_load((tmp_path / "made/config.yaml").read_text())
    assert settings["data"]["validation"][0]["annotations"] == str(tmp_path / "made/val.json")
    again = yaml.safe_load((tmp_path / "made/again.yaml").read_text())
    assert [phase["name"] for phase in again["phases"]] == ["again"]
    assert again["data"]["train"][0] == settings["data"]["train"][0]
    assert again["data"]["train"][1]["annotations"] == str(tmp_path / "made/self.json")
    references = [
        image["is_vid_train_frame"] for image in json.loads((tmp_path / "made/self.json").read_text())["images"]
    ]
    assert 0 < sum(references) <= len(references) == 6
    assert "run: AP50" in done.stdout
    assert (tmp_path / "made/report.html").read_text().startswith("<!doctype html>")
    stored = (tmp_path / "made/engines/manifest.json").stat().st_mtime_ns
    repeated = command(*arguments, "--device", "cpu")
    assert repeated.returncode == 0, repeated.stderr
    assert repeated.stdout.count("done before") == 11
    assert (tmp_path / "made/engines/manifest.json").stat().st_mtime_ns == stored
    other = command(*arguments, "--set", "seed=1")
    assert other.returncode == 1
    assert "was begun with other set; wanted the same, or another --output" in other.stderr


def test_faults_of_the_data_stop_it(tmp_path: Path) -> None:
    write_export(tmp_path / "exports/street", 0)
    path = tmp_path / "exports/street/images/frame_000003.png"
    path.write_bytes(path.read_bytes()[:100])
    done = command(tmp_path / "exports", "--output", tmp_path / "made", "--start-from", tmp_path / "exports")
    assert done.returncode == 1
    assert "frame_000003.png: " in done.stderr
    assert "wanted a set without faults" in done.stderr
    assert not (tmp_path / "made/done.json").exists()
    done = command(tmp_path / "absent", "--output", tmp_path / "other")
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: there is no {tmp_path / 'absent'}; wanted")
