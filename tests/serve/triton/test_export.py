"""The model repository that `export-triton` writes, as Triton's own definition of a configuration reads it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from rdn_engine.bundle.directory import Bundle
from rdn_engine.cli.exits import BAD_BUNDLE, OTHER_ERROR, USAGE
from rdn_engine.dials_file import DialsFile, write_dials_file
from rdn_engine.errors import AdmissionRefused, ConfigError
from rdn_engine.frame import Frame
from rdn_engine.serve.sessions import Request
from rdn_engine.serve.triton.options import TritonOptions
from tests.cli.commands import run

ENGINES = Path(__file__).parents[3] / "models" / "rdn_tiny" / "engines"


def test_repository_is_whole_and_its_configuration_is_tritons(tmp_path: Path) -> None:
    pytest.importorskip("tritonclient.grpc")
    from google.protobuf import text_format
    from tritonclient.grpc.model_config_pb2 import ModelConfig

    dials = tmp_path / "dials.json"
    write_dials_file(dials, DialsFile({"look_ahead": 2}, threads=2, ring_precision="float16"))
    done = run("export-triton", ENGINES, "--output", tmp_path, "--name", "doors", "--max-streams", 5,
               "--idle-seconds", 2.5, "--max-batch", 3, "--instances", 2, "--threads", 1,
               "--dials", dials)  # fmt: skip
    assert done.exit_code == 0, done.output
    assert f"tritonserver --model-repository={tmp_path}" in done.output
    config = text_format.Parse((tmp_path / "doors" / "config.pbtxt").read_text(encoding="utf-8"), ModelConfig())
    assert (config.name, config.backend, config.max_batch_size) == ("doors", "python", 3)
    assert config.sequence_batching.max_sequence_idle_microseconds == 2_500_000
    assert config.sequence_batching.oldest.max_candidate_sequences == 80, "more than the 5 that it refuses beyond"
    assert config.instance_group[0].count == 2
    options = TritonOptions.from_json(config.parameters["rdn_engine"].string_value)
    assert options == TritonOptions(max_streams=5, idle_seconds=2.5, max_batch=3, instances=2, threads=1,
                                    ring_precision="float16", dials={"look_ahead": 2})  # fmt: skip
    copied = Bundle.open(tmp_path / "doors" / "1" / "engines")
    assert json.loads(config.parameters["class_names"].string_value) == list(copied.config.class_names)
    compile((tmp_path / "doors" / "1" / "model.py").read_text(encoding="utf-8"), "model.py", "exec")


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--name", "a/b"], USAGE, "letters, digits"),
        (["--max-streams", "0"], USAGE, "triton.max_streams is 0"),
        (["--idle-seconds", "0"], USAGE, "triton.idle_seconds is 0"),
    ],
)
def test_what_cannot_be_served_is_not_written(tmp_path: Path, arguments: list[str], code: int, said: str) -> None:
    done = run("export-triton", ENGINES, "--output", tmp_path / "new", *arguments)
    assert done.exit_code == code
    assert said in done.output
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "no JSON"),
        ("[]", "a mapping with dials"),
        ('{"dials": {"windw": 1}}', "perhaps for window"),
        ('{"dials": {"link": "boxes", "link_delay": -1}}', "link_delay"),
        ('{"dials": {"link": "boxes", "link_delay": 2147483647}}', "the whole video"),
    ],
)
def test_dials_that_are_none_are_not_written(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "dials.json").write_text(text, encoding="utf-8")
    done = run("export-triton", ENGINES, "--output", tmp_path / "new", "--dials", tmp_path / "dials.json")
    assert done.exit_code == USAGE
    assert said in done.output
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("there", [True, False])
def test_what_fails_half_way_leaves_nothing(there: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if there:
        (tmp_path / "new").mkdir()

    def full(source: Path, place: Path) -> None:
        place.mkdir()
        raise OSError(28, "No space left on device", str(place))

    monkeypatch.setattr(shutil, "copytree", full)
    done = run("export-triton", ENGINES, "--output", tmp_path / "new")
    assert done.exit_code == OTHER_ERROR
    assert "No space left" in done.output
    assert not list((tmp_path / "new").iterdir()) if there else not (tmp_path / "new").exists()
    monkeypatch.undo()
    assert run("export-triton", ENGINES, "--output", tmp_path / "new").exit_code == 0


def test_options_are_what_a_model_reads_of_them() -> None:
    options = TritonOptions(threads=2, byte_budget=5, dials={"look_ahead": 2})
    assert TritonOptions.from_json(options.to_json()) == options
    with pytest.raises(ConfigError, match="idle_seconds"):
        TritonOptions(idle_seconds=0)


def test_a_model_opens_what_its_options_say() -> None:
    sessions = TritonOptions(max_streams=1, threads=1, dials={"window": 1}, warm_up=1).open(ENGINES)
    frame = Frame(np.zeros((64, 64, 3), np.uint8), 0, None, "a")
    first, second = sessions.step([Request(name, frames=(frame,) * 2) for name in "ab"])
    assert [one.pool_fill for one in first.results] == [2]
    assert isinstance(second.error, AdmissionRefused)
    sessions.close()
    assert len(sessions) == 0
    with pytest.raises(ConfigError, match="windw"):
        TritonOptions(dials={"windw": 3}).open(ENGINES)
    with pytest.raises(AdmissionRefused):
        TritonOptions(byte_budget=1, threads=1).open(ENGINES)


def test_a_repository_is_not_in_what_is_copied_into_it(tmp_path: Path) -> None:
    shutil.copytree(ENGINES, tmp_path / "engines")
    (tmp_path / "link").symlink_to(tmp_path / "engines")
    for output in ("engines", "engines/models", "link/models"):
        done = run("export-triton", tmp_path / "engines", "--output", tmp_path / output)
        assert done.exit_code == USAGE, done.output
        assert "wanted a place outside" in done.output
    assert {path.name for path in (tmp_path / "engines").iterdir()} == {path.name for path in ENGINES.iterdir()}


def test_a_model_that_is_there_stays(tmp_path: Path) -> None:
    (tmp_path / "rdn").mkdir()
    done = run("export-triton", ENGINES, "--output", tmp_path)
    assert done.exit_code == USAGE
    assert "wanted another name" in done.output
    assert run("export-triton", tmp_path, "--output", tmp_path / "x").exit_code == BAD_BUNDLE
