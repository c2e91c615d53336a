"""Libraries that are not installed."""

from __future__ import annotations

import builtins
import sys
from typing import Any

import pytest

from rdn_engine.errors import BackendUnavailable
from rdn_engine.service.outputs import JsonlSettings, MqttSettings, OutputSettings, WebhookSettings, open_output
from tests.service.outputs.doubles import WAIT, Listener


@pytest.mark.parametrize(
    ("settings", "library", "package"),
    [(WebhookSettings(url="http://h/"), "httpx2", "httpx2"), (MqttSettings(host="h"), "paho", "paho-mqtt")],
)
def test_missing_library_is_named(
    settings: OutputSettings, library: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = builtins.__import__

    def without(name: str, *args: Any) -> Any:
        if name.split(".")[0] == library:
            raise ModuleNotFoundError(f"no module {name}", name=name)
        return real(name, *args)

    for name in [
        name
        for name in sys.modules
        if name.startswith(("rdn_engine.service.outputs.webhook", "rdn_engine.service.outputs.mqtt"))
    ]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(BackendUnavailable, match=f"output 'o' needs {package} .*; pip install {package}"):
        open_output("o", settings, Listener())


def test_nothing_happens_before_the_first_line(tmp_path: Any) -> None:
    output = open_output("o", JsonlSettings(path=str(tmp_path / "a" / "b")), Listener())
    assert output.counts() == {}
    assert output.trouble is None
    assert output.close(drain=True, deadline_s=WAIT)
    assert list(tmp_path.iterdir()) == []
