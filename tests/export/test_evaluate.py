"""The command that evaluates: `export/evaluate.py`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from export import evaluate as command
from rdn_engine.config import Dials
from rdn_engine.errors import ConfigError
from rdn_engine.evaluation.coco_vid import Category, read_dataset, write_dataset
from tests.evaluation_cases import micro_model
from training.checkpoints.files import save_checkpoint
from training.data.export_synthetic import export_synthetic
from training.data.synthetic import SyntheticVideos

torch.set_num_threads(1)

ENGINES = Path(__file__).parents[2] / "models" / "rdn_tiny" / "engines"


@pytest.fixture(scope="module")
def on_disk(tmp_path_factory):
    directory = tmp_path_factory.mktemp("synthetic")
    export_synthetic(SyntheticVideos("test", 2, 6, (96, 64)), directory)
    return directory


@pytest.mark.long
def test_the_command_exports_a_checkpoint_and_runs_it(tmp_path, on_disk, capsys):
    model = micro_model()
    save_checkpoint(tmp_path / "model.safetensors", model.state_dict(), model.config)
    data = ["--data", str(on_disk / "annotations.json"), "--images", str(on_disk / "images")]
    output, plots = tmp_path / "result.json", tmp_path / "plots"
    source = ["--checkpoint", str(tmp_path / "model.safetensors"), "--threads", "1", "--dial", "window=0"]
    assert command.main([*source, *data, "--output", str(output), "--plots", str(plots)]) == 0
    result = json.loads(output.read_text())
    assert result["dials"]["window"] == 0
    assert result["data"]["frames"] == 12
    assert result["vid"]["protocol"].startswith("VID")
    assert {"command", "commit", "versions", "machine"} <= result.keys()
    assert "COCO" in capsys.readouterr().out
    assert sorted(p.name for p in plots.iterdir()) == ["average_precision.png", "precision_recall.png"]


@pytest.mark.parametrize(("setting", "message"), [
    ("wndow=4", "--dial is 'wndow=4'; wanted NAME=VALUE with a name of"),
    ("window", "--dial is 'window'; wanted NAME=VALUE"),
    ("window=many", "dials.window is 'many'; wanted a whole number"),
    ("window=[", "wanted a number or a word after the ="),
    ("edges=wrap", "dials.edges is 'wrap'; wanted one of"),
])  # fmt: skip
def test_dials_that_do_not_exist_are_refused(setting, message):
    with pytest.raises(ConfigError, match=message.replace("[", r"\[")):
        command.turned(Dials(), [setting])


def test_dials_are_turned_together():
    wanted = Dials(window=4, look_ahead=0, num_support=20, advanced_ratio=0.5, sampling="global", edges="clip")
    settings = ["window=4", "look_ahead=0", "num_support=20", "advanced_ratio=0.5", "sampling=global", "edges=clip"]
    assert command.turned(Dials(), settings) == wanted
    assert command.turned(wanted, ["look_ahead=null"]).look_ahead is None


@pytest.mark.parametrize(("arguments", "message"), [
    (["--bundle", "nowhere"], "BundleError"),
    (["--checkpoint", "nowhere.safetensors"], "CheckpointError"),
    (["--bundle", str(ENGINES), "--data", "a.json"], "wanted both or neither"),
    (["--bundle", str(ENGINES), "--data", "a.json", "--images", "nowhere"], "nowhere is no folder"),
    (["--bundle", str(ENGINES), "--data", "nowhere.json", "--images", "."], "nowhere.json cannot be read"),
    (["--bundle", str(ENGINES), "--videos", "0"], "wanted 1 or more"),
])  # fmt: skip
def test_the_command_says_what_is_wrong(arguments, message, capsys, tmp_path):
    output = tmp_path / "result.json"
    assert command.main([*arguments, "--output", str(output)]) == 1
    assert message in capsys.readouterr().err
    assert not output.exists()


def test_a_data_set_of_another_detector_is_refused_by_the_command(on_disk, tmp_path, capsys):
    dataset = read_dataset(on_disk / "annotations.json")
    dataset.categories[0] = Category(dataset.categories[0].id, "cat")
    write_dataset(dataset, tmp_path / "other.json")
    data = ["--data", str(tmp_path / "other.json"), "--images", str(on_disk / "images")]
    assert command.main(["--bundle", str(ENGINES), "--threads", "1", *data]) == 1
    assert "only the data set ['cat']; wanted the same names" in capsys.readouterr().err
