"""The file of `rdn-engine run`: read whole, checked whole."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rdn_engine.errors import ConfigError
from rdn_engine.service.config import read_settings, service_settings, shown_source, stream_settings
from rdn_engine.service.outputs.settings import JsonlSettings, MqttSettings, WebhookSettings

SECRET = "hush"
WHOLE = """
engines: models/rdn_tiny/engines
threads: 1
byte_budget: 1073741824
dials: {look_ahead: 2}
defaults: {policy: drop_latest, dials: {num_support: 8}}
http: {port: 0, token: env:TOKEN}
trace: {endpoint: "http://127.0.0.1:4318/v1/traces", part: 0.5}
outputs:
  lines: {kind: jsonl, path: "results/{stream}.jsonl"}
  alarm: {kind: webhook, url: "http://127.0.0.1:1/alarm", policy: drop_oldest}
  bus: {kind: mqtt, host: 127.0.0.1, topic: "cameras/{stream}"}
streams:
  door: {source: "rtsp://admin:hush@door/1", outputs: [lines, alarm], latency_seconds: 0.5, dials: {window: 2}}
  yard: {source: env:YARD, room: 4, policy: drop_oldest, rtsp_over: udp, timeout: 3, idle_seconds: 60, outputs: [bus]}
"""


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "streams.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def refusal(tmp_path: Path, text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        read_settings(write(tmp_path, text))
    assert caught.value.__cause__ is None
    return str(caught.value)


def test_every_field_goes_where_it_belongs(tmp_path: Path) -> None:
    settings = read_settings(write(tmp_path, WHOLE))
    assert settings.engines == Path("models/rdn_tiny/engines")
    assert (settings.threads, settings.byte_budget, settings.dials) == (1, 2**30, {"look_ahead": 2})
    assert settings.http is not None
    assert (settings.http.host, settings.http.port, settings.http.token) == ("127.0.0.1", 0, "env:TOKEN")
    assert settings.trace is not None
    assert settings.trace.part == 0.5
    assert [type(one) for one in settings.outputs.values()] == [JsonlSettings, WebhookSettings, MqttSettings]
    door, yard = settings.streams["door"], settings.streams["yard"]
    assert (door.outputs, door.bounds.latency_seconds) == (("lines", "alarm"), 0.5)
    assert door.dials == {"num_support": 8, "window": 2}, "its own beside those of all"
    assert (door.live.policy, yard.live.policy) == ("drop_latest", "drop_oldest")
    assert (yard.live.room, yard.live.source.rtsp_over, yard.live.source.timeout) == (4, "udp", 3.0)
    assert yard.bounds.idle_seconds == 60.0


def test_least_file_is_enough(tmp_path: Path) -> None:
    settings = read_settings(write(tmp_path, "engines: e\nstreams:\n  a: {source: clip.mp4}\n"))
    assert (settings.http, settings.trace, settings.outputs) == (None, None, {})
    assert settings.streams["a"].source == "clip.mp4"


def test_a_dials_file_stands_behind_what_the_settings_say(tmp_path: Path) -> None:
    filed = tmp_path / "dials.json"
    filed.write_text('{"threads": 2, "backend": "openvino", "dials": {"window": 4, "look_ahead": 1}}')
    text = (
        f"engines: e\ndials_file: {filed}\nbackend: auto\ndials: {{look_ahead: 0}}\nstreams:\n  a: {{source: c.mp4}}\n"
    )
    settings = read_settings(write(tmp_path, text))
    assert (settings.threads, settings.backend, settings.dials) == (2, "auto", {"window": 4, "look_ahead": 0})
    assert settings.dials_file == filed
    filed.write_text('{"dials": {"windows": 4}}')
    assert "dials.json: dials has unknown fields ['windows']" in refusal(tmp_path, text)
    assert "dials_file is 4; wanted a file" in refusal(tmp_path, "engines: e\ndials_file: 4\nstreams: {}\n")
    with pytest.raises(FileNotFoundError):
        read_settings(write(tmp_path, "engines: e\ndials_file: none.json\nstreams: {}\n"))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("engines: [", "line 1 is no YAML"),
        ("engines: e\nstreams:\n  a: {source: x}\n  a: {source: y}\n", "line 4 is no YAML: 'a' stands twice"),
        ("engines: e\nstreams:\n\ta: {source: x}\n", "line 3 is no YAML: a tab; wanted spaces"),
        ("", "the file is None; wanted a mapping"),
        ("engines: e\ndefault: {}", "unknown fields ['default'], perhaps for defaults"),
        ("engines: e\nstreams: {a: {source: x, dials: {window: 1, window: 1}}}", "'window' stands twice"),
        ("engines: e\nx: 2020-99-99", "is no YAML"),
        ("engines: e\nx: !!int a", "is no YAML"),
        (f"engines: e\nx: {'[' * 3000}", "is no YAML"),
        ("engines: e\nstreams: &s {a: *s}", "streams.a has unknown fields ['a']"),
        ("engines: e\nhttp: {token: ''}", "http.token is 'empty'"),
        ("engines: e\nhttp: {hosts: ['*x']}", "http.hosts is ('*x',)"),
        ("- 1", "wanted a mapping with engines and streams"),
        ("streams: {}", "wanted engines, a directory"),
        ("engines: 1", "engines is 1; wanted a directory"),
        ("engines: e\nstream: {}", "unknown fields ['stream']"),
        ("engines: e\nstreams: {a: {source: x, dials_file: d}}", "streams.a has ['dials_file'], which stand once"),
        ("engines: e\nstreams: []", "streams is []; wanted a mapping"),
        ("engines: e\nstreams: {1: {source: x}}", "a stream's name is 1; wanted 1 to 128 printable characters"),
        ("engines: e\nstreams: {a/b: {source: x}}", "a stream's name is 'a/b'"),
        ("engines: e\nstreams: {a: x}", "streams.a is 'x'; wanted a mapping"),
        ("engines: e\nstreams: {a: {}}", "wanted a source among them"),
        (
            "engines: e\nstreams: {a: {source: 0.5}}",
            "streams.a.source is of type float (not shown, as it may be secret); wanted text",
        ),
        (
            "engines: e\nstreams: {a: {source: x, rom: 3}}",
            "streams.a has unknown fields ['rom'], perhaps for room; known are",
        ),
        ("engines: e\nstreams: {a: {source: x, room: 0}}", "live.room is 0; wanted 1..1000"),
        ("engines: e\nstreams: {a: {source: x, policy: drop}}", "streams.a.policy is 'drop'; wanted one of"),
        ("engines: e\nstreams: {a: {source: x, outputs: [y]}}", "streams.a.outputs is 'y'; wanted one of []"),
        ("engines: e\nstreams: {a: {source: x, dials: 3}}", "streams.a.dials is 3; wanted a mapping of names"),
        ("engines: e\nthreads: 0", "service.threads is 0; wanted 1..1024"),
        ("engines: e\nhttp: {port: 70000}", "http.port is 70000"),
        ("engines: e\nhttp: true", ": http is True; wanted a mapping"),
        ("engines: e\noutputs: {o: {kind: kafka}}", "outputs.o"),
        ("engines: e\noutputs: {o: {kind: jsonl, path: a}, p: {kind: jsonl, path: a}}", "wanted files of their own"),
        ("engines: e\ntrace: {}", "lacks ['endpoint']"),
    ],
)
def test_wrong_files_are_refused_with_the_place(tmp_path: Path, text: str, words: str) -> None:
    message = refusal(tmp_path, text)
    assert message.startswith(f"{tmp_path}/streams.yaml")
    assert words in message


@pytest.mark.parametrize(
    "text",
    [
        "engines: e\nstreams: {a: {source: ['rtsp://admin:hush@door/1']}}",
        "engines: e\nstreams: {'rtsp://admin:hush@door': {source: x}}",
        "engines: e\nstreams: ['rtsp://admin:hush@door/1']",
        "engines: e\nstreams: {a: {source: x, policy: 'rtsp://admin:hush@door/1'}}",
        "engines: e\nstreams: {a: {source: x, outputs: ['rtsp://admin:hush@door/1']}}",
        "engines: e\n'rtsp://admin:hush@door/1': 1",
    ],
)
def test_a_password_in_the_wrong_place_is_not_quoted(tmp_path: Path, text: str) -> None:
    assert SECRET not in refusal(tmp_path, text)


def test_files_that_are_no_text(tmp_path: Path) -> None:
    path = tmp_path / "streams.yaml"
    path.write_bytes(b"engines: \xff")
    with pytest.raises(ConfigError, match="is no text"):
        read_settings(path)
    path.write_bytes(b"\xef\xbb\xbfengines: e\n")
    assert read_settings(path).engines == Path("e"), "a byte order mark is no text"
    with pytest.raises(OSError, match="No such file"):
        read_settings(tmp_path / "none.yaml")


@pytest.mark.parametrize("name", ["", " a", "a ", "a\nb", ".", "..", "x" * 129, None, True, ["a"]])
def test_names_that_stand_in_no_address(name: Any) -> None:
    with pytest.raises(ConfigError, match="a stream's name is"):
        stream_settings(name, {"source": "x"})


def test_objects_of_the_right_type_are_taken() -> None:
    """What a program hands over is checked like what a file holds."""
    settings = service_settings({"engines": "e", "streams": {"a": {"source": "x", "restart_seconds": None}}})
    assert settings.streams["a"].restart_seconds is None


def test_pictures_and_checks_of_a_stream_are_set() -> None:
    stream = {"source": "x", "preview": {"min_confidence": 0.3, "checks": {"frozen_seconds": None, "dark_seconds": 9}}}
    preview = service_settings({"engines": "e", "streams": {"a": stream}}).streams["a"].preview
    assert (preview.min_confidence, preview.side) == (0.3, 640)
    assert (preview.checks.frozen_seconds, preview.checks.dark_seconds, preview.checks.shifted_seconds) == (None, 9, 5)
    with pytest.raises(ConfigError, match=r"streams\.a.*checks.*dark"):
        service_settings({"engines": "e", "streams": {"a": {"source": "x", "preview": {"checks": {"dark": 9}}}}})


def test_number_of_a_camera_is_a_source(tmp_path: Path) -> None:
    assert read_settings(write(tmp_path, "engines: e\nstreams: {a: {source: 0}}")).streams["a"].source == "0"


def test_source_is_shown_without_credentials() -> None:
    assert shown_source("rtsp://admin:hush@door/1?pwd=hush") == "rtsp://door/1"
    assert shown_source("env:DOOR") == "env:DOOR"


def test_mapping_that_another_is_merged_with_may_say_more_than_that(tmp_path: Path) -> None:
    """`<<` puts the names of one mapping before those of another, which may be the same."""
    path = tmp_path / "streams.yaml"
    path.write_text("""
engines: e
streams:
  door: {source: x, dials: &door {<<: {window: 2, num_support: 8}, window: 1}}
dials: {<<: *door}
""")
    settings = read_settings(path)
    assert settings.dials == settings.streams["door"].dials == {"window": 1, "num_support": 8}
