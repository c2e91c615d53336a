"""What a run says about itself: log lines, validation, TensorBoard, the command line."""

import json
import sys
from importlib.metadata import version

import numpy as np
import pytest
import safetensors.torch
import torch

from rdn_engine.errors import DatasetError
from tests.training_files import micro, phase, synthetic, write_settings
from training import train, trainer, validation
from training.runlog import RunLog
from training.samples import sample_picture
from training.settings import Settings
from training.trainer import Trainer


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def validated(**changes):
    data = {"train": [synthetic()], "validation": [synthetic(split="validation", num_videos=1, num_frames=3)]}
    return micro(data=data, evaluate_every=2, images_every=0, **changes)


def lines_of(output):
    return [json.loads(line) for line in (output / "log.jsonl").read_text().splitlines()]


def test_validation_is_ap_of_the_protocol(tmp_path):
    made = Trainer(validated(), tmp_path)
    before = {name: tensor.clone() for name, tensor in made.model.state_dict().items()}
    made.model.train()
    found = validation.validate(made.model, made.validation)
    assert 0 <= found <= 100
    assert made.model.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in made.model.state_dict().items())


def test_the_best_model_is_kept(tmp_path, monkeypatch):
    scores = iter([10.0, 30.0, 20.0])
    seen = []

    def validate(model, sources):
        seen.append(model.state_dict()["roi.fc.weight"].clone())
        return next(scores)

    monkeypatch.setattr(trainer, "validate", validate)
    Trainer(validated(), tmp_path).run()
    found = [(line["iteration"], line["AP50"]) for line in lines_of(tmp_path) if "AP50" in line]
    assert found == [(2, 10.0), (4, 30.0), (6, 20.0)]
    best = safetensors.torch.load_file(tmp_path / "best.safetensors")
    assert torch.equal(best["roi.fc.weight"], seen[1])
    assert not torch.equal(best["roi.fc.weight"], seen[2])


def test_a_resumed_run_knows_what_was_best(tmp_path, monkeypatch):
    scores = iter([30.0, 10.0, 20.0])
    monkeypatch.setattr(trainer, "validate", lambda model, sources: next(scores))
    settings = validated(save_every=2)

    def stop():
        raise KeyboardInterrupt

    stopped = Trainer(settings, tmp_path)
    save = stopped.save
    monkeypatch.setattr(stopped, "save", lambda: (save(), stop()))
    with pytest.raises(KeyboardInterrupt):
        stopped.run()
    best = (tmp_path / "best.safetensors").read_bytes()
    Trainer(settings, tmp_path).run()
    assert (tmp_path / "best.safetensors").read_bytes() == best
    assert [line["AP50"] for line in lines_of(tmp_path) if "AP50" in line] == [30.0, 10.0, 20.0]


def test_validation_data_of_other_classes_are_refused(tmp_path):
    settings = validated()
    with pytest.raises(DatasetError, match="cat"):
        validation.open_validation(settings.data.validation, ("cat", "dog"))


def test_where_the_time_goes(tmp_path):
    Trainer(micro(), tmp_path).run()
    for line in lines_of(tmp_path):
        assert 0 < line["data_seconds"] < line["step_seconds"]
        assert line["eta_minutes"] >= 0


def test_curves_and_pictures_for_tensorboard(tmp_path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    settings = micro(images_every=4, save_every=4)
    Trainer(settings, tmp_path).run()
    board = accumulator.EventAccumulator(str(tmp_path / "tensorboard"))
    board.Reload()
    assert {"loss", "rpn_class", "learning_rate", "gradient_norm", "data_seconds"} <= set(board.Tags()["scalars"])
    written = {event.step: event.value for event in board.Scalars("loss")}
    assert written == pytest.approx({line["iteration"]: line["loss"] for line in lines_of(tmp_path)}, rel=1e-5)
    [tag] = board.Tags()["images"]
    assert [event.step for event in board.Images(tag)] == [4, 6]
    assert (board.Images(tag)[0].width, board.Images(tag)[0].height) == (192, 64)


def test_pictures_show_annotations_beside_detections(tmp_path):
    made = Trainer(micro(), tmp_path)
    made.step()
    picture = sample_picture(made.model, made._batch)
    image = made._batch.images[0].numpy()
    assert picture.shape == (64, 192, 3)
    changed = (picture[:, :96] != image).any(-1)
    x1, y1, x2, _ = made._batch.boxes[0][0].round().int().tolist()
    assert changed[y1, x1 : x2 + 1].mean() > 0.9, "the annotated box is drawn"
    untouched = np.abs(picture[:, 96:].astype(int) - image).max(-1) == 0
    assert untouched.any(), "the same image on the right"


def test_without_tensorboard_the_log_is_enough(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    Trainer(micro(), tmp_path).run()
    assert "tensorboard is not installed" in capsys.readouterr().err
    assert len(lines_of(tmp_path)) == 3
    assert not (tmp_path / "tensorboard").exists()


def test_a_terminal_shows_progress_and_a_pipe_gets_json(tmp_path, monkeypatch, capsys):
    line = {"iteration": 5, "phase": "basic", "loss": 1.25, "eta_minutes": 3.5}
    (tmp_path / "pipe").mkdir()
    log = RunLog(tmp_path / "pipe", 0, 10)
    log.write(line)
    log.close()
    assert json.loads(capsys.readouterr().out) == line
    monkeypatch.setenv("FORCE_COLOR", "1")
    log = RunLog(tmp_path, 0, 10)
    log.write(line)
    log.close()
    shown = capsys.readouterr().out
    assert all(part in shown for part in ("basic", "5/10", "1.25", "3.5 min left"))


def command(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["train.py", *map(str, arguments), "--threads", "1", "--device", "cpu"])
    train.main()


def test_the_command_line(tmp_path, monkeypatch, capsys):
    config = write_settings(tmp_path / "s.yaml", images_every=0)
    run = tmp_path / "run"
    command(monkeypatch, "--config", config, "--output", run, "--set", "phases.0.iterations=2", "seed=3",
            "--set", "log_every=1")  # fmt: skip
    assert [line["iteration"] for line in lines_of(run)] == [1, 2]
    recorded = Settings.read(run / "config.yaml")
    assert (recorded.seed, recorded.total, recorded.log_every) == (3, 2, 1)
    versions = json.loads((run / "versions.json").read_text())
    assert {"commit", "command", "machine", "versions"} <= set(versions)
    assert versions["versions"]["torch"] == version("torch")
    capsys.readouterr()
    command(monkeypatch, "--config", config, "--output", tmp_path / "next", "--set", "phases.0.iterations=1",
            "--start-from", run / "model.safetensors")  # fmt: skip
    with pytest.raises(SystemExit, match="1"):
        command(monkeypatch, "--config", config, "--output", run)
    assert "error: " in (said := capsys.readouterr().err)
    assert "of a run with other settings: phases.0.iterations is 6 here, 2 there" in said


@pytest.mark.parametrize("name", ["s.yaml", "nothing.yaml"])
def test_errors_end_in_a_message(tmp_path, monkeypatch, capsys, name):
    write_settings(tmp_path / "s.yaml", phases=[phase(relation="some")])
    with pytest.raises(SystemExit, match="1"):
        command(monkeypatch, "--config", tmp_path / name, "--output", tmp_path / "run")
    assert f"error: {tmp_path / name}" in capsys.readouterr().err
