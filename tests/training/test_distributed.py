"""Several processes compute what one computes."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import safetensors.torch
import torch

from rdn_engine.errors import BackendUnavailable, ConfigError
from tests.training_files import MODEL, micro, phase, write_settings
from training.distributed import World, joined
from training.trainer import Trainer

ROOT = Path(__file__).parents[2]
GROUP = {"model": {**MODEL, "backbone": {**MODEL["backbone"], "norm": "group"}}, "bf16": False}
CASES = [
    {"phases": [phase(clips=4, relation="none", frames_per_clip=1)]},
    {"phases": [phase(clips=2, relation="basic")]},
    {"phases": [phase(clips=4, references="first")], "accumulate": 2},
]


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def gradients(settings, folder, world):
    torch.set_num_threads(1)
    trainer = Trainer(settings, folder, world=world)
    values, _ = trainer.gradients()
    return {n: p.grad for n, p in trainer.model.named_parameters() if p.grad is not None}, values


def process(rank, port, folder):
    os.environ.update(RANK=str(rank), WORLD_SIZE="2", LOCAL_RANK=str(rank), MASTER_ADDR="127.0.0.1",
                      MASTER_PORT=str(port))  # fmt: skip
    with joined("cpu") as world:
        found = [gradients(micro(**GROUP, **case), folder / f"{i}", world) for i, case in enumerate(CASES)]
        torch.save([found, world.total([rank + 1.0])], folder / f"rank{rank}.pt")


def test_two_processes_have_the_gradient_of_one(tmp_path):
    torch.multiprocessing.spawn(process, (free_port(), tmp_path), nprocs=2)
    ranks = [torch.load(tmp_path / f"rank{rank}.pt") for rank in range(2)]
    assert [total for _, total in ranks] == [[3.0], [3.0]]
    for i, case in enumerate(CASES):
        whole, values = gradients(micro(**GROUP, **case), tmp_path / f"whole{i}", World())
        (first, a), (second, b) = (found[i] for found, _ in ranks)
        assert whole.keys() == first.keys() == second.keys()
        assert all(torch.equal(first[n], second[n]) for n in first), "both hold the same"
        scale = max(g.abs().max() for g in whole.values())
        assert all((whole[n] - first[n]).abs().max() < 1e-5 * scale for n in whole)
        for name in ("rpn_class", "rpn_box", "roi_class", "roi_box"):
            assert (a[name] + b[name]) / 2 == pytest.approx(values[name], rel=1e-4, abs=1e-6)
        assert a["roi_class"] != b["roi_class"], "each saw clips of its own"


def test_torchrun_takes_the_same_command(tmp_path):
    phases = [phase(name="a", iterations=1, relation="none", frames_per_clip=1), phase(name="b", iterations=1)]
    changes = {**GROUP, "optimizer": "sgd", "log_every": 1, "phases": phases, "images_every": 0}
    settings = write_settings(tmp_path / "s.yaml", **changes)
    torch.set_num_threads(1)
    Trainer(micro(**changes), tmp_path / "one").run()
    launcher = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", str(free_port())]
    told = ["--config", str(settings), "--output", str(tmp_path / "two"), "--device", "cpu", "--threads", "1"]
    command = [sys.executable, *launcher, "training/train.py", *told]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count('"iteration": 1') == 1, "the first process alone prints"
    lines = [[json.loads(x) for x in (tmp_path / n / "log.jsonl").read_text().splitlines()] for n in ("one", "two")]
    for one, two in zip(*lines, strict=True):
        assert two["loss"] == pytest.approx(one["loss"], rel=1e-4)
    one, two = (safetensors.torch.load_file(tmp_path / n / "model.safetensors") for n in ("one", "two"))
    assert all(torch.allclose(one[n], two[n], rtol=1e-4, atol=1e-6) for n in one)


def test_clips_that_cannot_be_shared_are_refused(tmp_path):
    with pytest.raises(
        ConfigError, match="'only': clips is 2; wanted a multiple of 3, 3 processes with accumulate = 1"
    ):
        Trainer(micro(), tmp_path, world=World(0, 3))


def test_a_gpu_that_is_not_there_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setenv("LOCAL_RANK", "1")
    wanted = "process 1 of this machine wants a GPU of its own; torch finds 1"
    wanted = "process 1 of this machine wants a GPU of its own; torch finds 1"
    with pytest.raises(BackendUnavailable, match=wanted), joined("cuda"):
        pass
