"""What docs/outputs.md says is so: its examples run, its tables are the settings'."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from rdn_engine.service.outputs import JsonlSettings, MqttSettings, OutputOptions, WebhookSettings, parse_output
from tests.service.outputs.doubles import WAIT, Listener, line
from tests.service.outputs.test_webhook import opened
from tests.service.receivers import receiving

PAGE = (Path(__file__).parents[3] / "docs" / "outputs.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def test_file_is_read() -> None:
    (text,) = blocks("yaml")
    outputs = {name: parse_output(data, name) for name, data in yaml.safe_load(text)["outputs"].items()}
    assert [type(one) for one in outputs.values()] == [JsonlSettings, WebhookSettings, MqttSettings]


@pytest.mark.parametrize(
    ("heading", "settings"),
    [
        ("What every kind has", OutputOptions), ("`jsonl`: files", JsonlSettings),
        ("`webhook`: HTTP", WebhookSettings), ("`mqtt`: a broker", MqttSettings),
    ],
)  # fmt: skip
def test_tables_have_every_setting_and_its_default(heading: str, settings: Any) -> None:
    section = PAGE.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    table = section.split("| setting | default | what |\n|---|---|---|\n")[1].split("\n\n")[0]
    told = {}
    for row in table.splitlines():
        names, default = (cell.strip() for cell in row.split("|")[1:3])
        told |= dict.fromkeys(re.findall("`(.*?)`", names), default.strip("`"))
    shared = {f.name for f in dataclasses.fields(OutputOptions)} if settings is not OutputOptions else set()
    fields = {f.name: f for f in dataclasses.fields(settings) if f.name not in shared}
    assert list(told) == list(fields)
    for name, one in fields.items():
        default = one.default if one.default_factory is dataclasses.MISSING else one.default_factory()
        if default is dataclasses.MISSING:
            shown = ""
        elif default in (None, (), {}) and default is not False and default != 0:
            shown = "none"
        else:
            shown = {"": "empty", "False": "false", "True": "true"}.get(str(default), str(default))
        assert told[name] == shown, name


def test_receiver_of_the_page_takes_each_line_once() -> None:
    receiver = next(text for text in blocks("python") if "def receive" in text)
    handled: list[dict[str, Any]] = []
    names: dict[str, Any] = {"SECRET": b"s3cret", "handle": handled.append}
    exec(receiver, names)
    statuses: list[int] = []

    def judge(request: Any) -> bool:
        statuses.append(names["receive"](request.headers, request.body))
        return statuses[-1] == 204

    lines = [{**line(number), "capture": {"time": 1.5 + number}} for number in range(3)]
    with receiving() as server:
        server.judge = judge
        server.answers.extend([200, 503])
        listener = Listener()
        output = opened(server, listener, secret="s3cret", batch=1)
        for one in lines:
            output.put("door", one)
        assert output.close(drain=True, deadline_s=WAIT)
        assert handled == lines
        again = opened(server, secret="s3cret")
        again.put("door", lines[0])
        assert again.close(drain=True, deadline_s=WAIT)
        assert handled == lines
        other = opened(server, secret="another")
        other.put("door", line(9))
        other.close(drain=True, deadline_s=WAIT)
    assert statuses[-1] == 401
    assert handled == lines


def test_example_in_python_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    exec(next(text for text in blocks("python") if "open_output" in text), {})
    assert "written=1" in capsys.readouterr().out
    assert (tmp_path / "results" / "door.jsonl").read_text().count("\n") == 1
