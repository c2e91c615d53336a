"""The file of dials and options: what is written is read, and what is wrong in it is named."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from rdn_engine.dials_file import DialsFile, read_dials_file, write_dials_file
from rdn_engine.errors import ConfigError

ENGINES = Path(__file__).parents[1] / "models" / "rdn_tiny" / "engines"


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "dials.json"
    whole = DialsFile(
        {"window": 4, "advanced_ratio": 0.5}, "int8", "openvino", 2, "bfloat16", "float16", {"AP50": 80.0}
    )
    for one in (whole, DialsFile(), DialsFile(threads=3)):
        write_dials_file(path, one)
        assert read_dials_file(path) == one
        assert [p.name for p in tmp_path.iterdir()] == ["dials.json"]
    assert whole.options == {
        "backend": "openvino", "threads": 2, "relation_precision": "bfloat16", "ring_precision": "float16",
    }  # fmt: skip
    assert DialsFile().options == {}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([], "the file is []; wanted a mapping with dials"),
        ({"dial": {}}, "has unknown fields ['dial'], perhaps for dials"),
        ({"dials": {"windows": 4}}, "dials has unknown fields ['windows'], perhaps for window"),
        ({"dials": [4]}, "dials is [4]; wanted a mapping of names"),
        ({"threads": 0}, "the file.threads is 0; wanted 1..256"),
        ({"threads": "two"}, "threads is 'two'; wanted a whole number"),
        ({"backend": "tflite"}, "backend is 'tflite'; wanted one of"),
        ({"relation_precision": "int8"}, "relation_precision is 'int8'; wanted one of"),
    ],
)
def test_what_is_wrong_is_named_with_its_file(tmp_path: Path, data: Any, message: str) -> None:
    path = tmp_path / "dials.json"
    path.write_text(json.dumps(data))
    with pytest.raises(ConfigError, match=f"^{re.escape(f'{path}: ')}.*{re.escape(message)}"):
        read_dials_file(path)


def test_a_file_that_is_no_json_or_not_there(tmp_path: Path) -> None:
    path = tmp_path / "dials.json"
    path.write_bytes(b"window: 4")
    with pytest.raises(ConfigError, match="is no JSON"):
        read_dials_file(path)
    with pytest.raises(FileNotFoundError):
        read_dials_file(tmp_path / "none.json")


def test_a_bundle_of_another_precision_is_refused() -> None:
    DialsFile().check_bundle(ENGINES)
    DialsFile(precision="float32").check_bundle(ENGINES)
    with pytest.raises(ConfigError, match=r"the precision of .*engines is 'float32'; wanted int8, as the dials file"):
        DialsFile(precision="int8").check_bundle(ENGINES)
