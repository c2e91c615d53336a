"""What is found before a service starts, and that nothing has started then."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rdn_engine.errors import BundleError, ConfigError
from rdn_engine.service.config import ServiceSettings, service_settings
from rdn_engine.service.preflight import check_all
from tests.service.doubles import until

ENGINES = Path(__file__).parents[2] / "models/rdn_tiny/engines"


def whole(tmp_path: Path, **data: Any) -> ServiceSettings:
    outputs = {"lines": {"kind": "jsonl", "path": str(tmp_path / "lines.jsonl"), "class_names": ["striped disc"]}}
    streams = {"door": {"source": "env:DOOR", "outputs": ["lines"], "dials": {"window": 2}, "capacity": {"window": 4}}}
    return service_settings({"engines": str(ENGINES), "outputs": outputs, "streams": streams, **data})


def test_good_settings_pass_and_nothing_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOOR", "rtsp://door.invalid/1")
    before = set(threading.enumerate())
    check_all(whole(tmp_path, http={"token": "env:DOOR"}, trace={"endpoint": "http://127.0.0.1:9/v1/traces"}))
    until(lambda: set(threading.enumerate()) <= before)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"streams": {"door": {"source": "env:NO_CAMERA"}}}, r"streams\.door\.source: .* 'NO_CAMERA' is not set"),
        ({"streams": {"door": {"source": "x", "capacity": {"window": -1}}}}, "window is -1"),
        ({"http": {"token": "env:NO_CAMERA"}}, "'NO_CAMERA' is not set .* a token"),
        ({"outputs": {"lines": {"kind": "webhook", "url": "door/1"}}}, "wanted http://HOST"),
        (
            {"outputs": {"lines": {"kind": "jsonl", "path": "x", "class_names": ["striped disc", "cat"]}}},
            r"outputs\.lines\.class_names is \['cat'\]; wanted classes of the model: \['striped disc'",
        ),
        ({"trace": {"endpoint": "user:hush@127.0.0.1:9"}}, "^trace.endpoint is not shown"),
    ],
)
def test_what_would_not_start_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: dict[str, Any], words: str
) -> None:
    monkeypatch.setenv("DOOR", "rtsp://door.invalid/1")
    monkeypatch.delenv("NO_CAMERA", raising=False)
    with pytest.raises(ConfigError, match=words):
        check_all(whole(tmp_path, **data))


def test_engines_that_are_none_are_said(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="none"):
        check_all(replace(whole(tmp_path), engines=tmp_path / "none"))
