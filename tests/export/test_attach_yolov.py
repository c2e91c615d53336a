"""From a YOLOV checkpoint to an engine directory, by the command, and what it does with frames."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from export.attach_yolov import main, vid_classes
from rdn_engine import Detector
from rdn_engine.bundle.directory import Bundle
from rdn_engine.errors import BackendUnavailable
from rdn_engine.host.memory import open_memory
from rdn_engine.host.preprocess import network_input
from rdn_engine.host.runtime import HostRuntime
from rdn_engine.verify import verify
from tests.cli.commands import lines, run, write_video
from tests.yolov_files import CLASSES, SIZE, small_checkpoint, small_state


def convert(folder: Path, output: Path, *more: object) -> int:
    (folder / "names.txt").write_text("\n".join(CLASSES) + "\n", encoding="utf-8")
    checkpoint = folder / "yolov.pth"
    if not checkpoint.exists():
        small_checkpoint(checkpoint)
    arguments = ["--checkpoint", checkpoint, "--classes", folder / "names.txt", "--output", output]
    return main([str(a) for a in (*arguments, "--size", *SIZE, *more)])


@pytest.fixture(scope="module")
def engines(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("yolov")
    assert convert(folder, folder / "engines", "--window", 5) == 0
    return folder / "engines"


def test_the_directory_says_what_it_is_and_proves_itself(engines: Path) -> None:
    bundle = Bundle.open(engines)
    config = bundle.config
    assert bundle.manifest.graphs == {"encoder": "encoder.onnx", "relation": "relation.onnx"}
    assert bundle.manifest.source["layout"] == "yolov"
    assert (config.dials.window, config.dials.look_ahead, config.relation.attention) == (5, 0, "cosine_score")
    assert config.class_names == CLASSES
    reports = verify(engines)
    assert {(r.stage, r.executor) for r in reports} == {
        *((stage, "both") for stage in ("boxes", "objectness", "features")),
        *((stage, executor) for stage in ("logits", "detections") for executor in ("fused", "graph")),
    }
    assert all(r.passed for r in reports)
    golden = bundle.arrays("golden")
    # The first two frames have too little memory; those after them have relations.
    assert [bool(golden[f"t{t}/logits"].any()) for t in range(4)] == [False, False, True, True]
    assert sum(len(golden[f"t{t}/xyxy"]) for t in range(4)) > 20


def test_a_changed_weight_is_seen(engines: Path, tmp_path: Path) -> None:
    from export.yolov_graphs import Yardstick
    from training.checkpoints.yolov import load_yolov

    torch.save({"model": small_state()}, tmp_path / "w.pth")
    loaded = load_yolov(tmp_path / "w.pth", CLASSES, input_size=SIZE)
    frames = Bundle.open(engines).arrays("golden")["frames"]

    def failed(change: Callable[[Any], None]) -> set[str]:
        model = copy.deepcopy(loaded.model())
        with torch.no_grad():
            change(model)
            return {r.output for r in Yardstick(model, loaded.config, frames).differences(engines) if not r.passed}

    assert failed(lambda model: None) == set()
    assert failed(lambda model: model.head.trans.linear2.bias.add_(0.1)) == {"out"}
    assert failed(lambda model: model.head.trans.msa.qkv_reg.weight[: model.size.dim].neg_()) == {"out", "omega"}
    assert failed(lambda model: model.head.obj_preds[0].bias.add_(0.1)) == {"objectness"}


def test_executors_and_batches_agree(engines: Path) -> None:
    rng = np.random.default_rng(0)
    frames = [rng.integers(0, 256, (48, 80, 3), np.uint8) for _ in range(7)]
    fused, graph = (Detector.from_pretrained(engines, executor=e, threads=1) for e in ("fused", "graph"))
    ahead = replace(fused.config.dials, window=3, look_ahead=2)
    for dials in (fused.config.dials, ahead, replace(ahead, link="relations", link_delay=2)):
        results = [detector.predict(frames, dials=dials) for detector in (fused, graph)]
        for a, b in zip(*results, strict=True):
            assert len(a) == len(b)
            np.testing.assert_allclose(a.confidence, b.confidence, atol=1e-4)
        with fused.open_streams(["a", "b"], dials) as streams:
            both = [streams.push([frame, frame]) for frame in frames]
            rest = streams.flush()
        for s in range(2):
            found = [r for pushed in both for r in pushed[s]] + rest[s]
            assert [len(r) for r in found] == [len(r) for r in results[0]]
    omegas = []
    for detector in (fused, graph):
        assert isinstance(detector.runtime, HostRuntime)
        memory = open_memory(detector.runtime.model.relation, detector.config, ahead)
        for frame in frames:
            network = network_input(frame, detector.config.input, 1)
            (encoded,) = detector.runtime.model.encoder(network[None], 8, 8, lambda stage: None)
            memory.append(encoded)
        omegas.append(memory.relate(4, replace(ahead, link="relations", num_support=8), lambda stage: None)[1].omega)
    np.testing.assert_allclose(*omegas, rtol=1e-4, atol=1e-7)
    with graph.open_stream() as stream:
        nbytes = stream.nbytes
        for frame in frames:
            stream.push(frame)
        assert stream.nbytes == nbytes > 0
    with pytest.raises(BackendUnavailable, match="cosine_score has 'float32' alone"):
        Detector.from_pretrained(engines, relation_precision="bfloat16")


def test_the_command_line_takes_it(engines: Path, tmp_path: Path) -> None:
    video = write_video(tmp_path / "v.mp4", frames=6)
    told = run("predict", video, "--engines", engines, "--output", tmp_path / "v.jsonl", "--link", "--threshold", 0.05)
    assert told.exit_code == 0, told.output
    frames = lines(tmp_path / "v.jsonl")
    assert len([line for line in frames if "frame_index" in line]) == 6
    assert "cosine_score, 4 heads of 8, memory order time" in " ".join(run("info", engines).output.split())


def test_the_offline_head_and_its_readings(tmp_path: Path) -> None:
    more = "--window", 3, "--look-ahead", 3, "--score-in-regression", "no", "--memory-order", "shuffled"
    assert convert(tmp_path, tmp_path / "engines", *more) == 0
    config = json.loads((tmp_path / "engines" / "manifest.json").read_text())["config"]
    assert config["cosine"]["score_in_regression"] is False
    assert config["cosine"]["memory_order"] == "shuffled"
    assert (config["dials"]["window"], config["dials"]["look_ahead"]) == (3, 3)


def test_a_wrong_checkpoint_leaves_nothing_behind(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state = small_state()
    del state["head.trans.linear1.weight"]
    torch.save({"model": state}, tmp_path / "yolov.pth")
    assert convert(tmp_path, tmp_path / "engines") == 1
    assert "1 of 506 tensors are missing: head.trans.linear1.weight" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["names.txt", "yolov.pth"]


def test_the_classes_of_imagenet_vid() -> None:
    assert len(vid_classes()) == 30
    assert vid_classes()[0] == "airplane"
