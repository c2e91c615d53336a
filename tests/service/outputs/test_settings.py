"""Settings of outputs, as a file holds them."""

from __future__ import annotations

from typing import Any

import pytest

from rdn_engine.errors import ConfigError
from rdn_engine.service.outputs import JsonlSettings, MqttSettings, WebhookSettings, parse_output


def test_each_kind_is_read() -> None:
    jsonl = parse_output({"kind": "jsonl", "path": "a/{stream}.jsonl", "policy": "wait", "max_bytes": 1e6}, "o")
    assert jsonl == JsonlSettings(path="a/{stream}.jsonl", policy="wait", max_bytes=1_000_000)
    hook = parse_output({"kind": "webhook", "url": "env:URL", "class_names": ["cat"], "headers": {"X-A": "1"}}, "o")
    assert hook == WebhookSettings(url="env:URL", class_names=("cat",), headers={"X-A": "1"})
    assert parse_output({"kind": "mqtt", "host": "h", "qos": 0}, "o") == MqttSettings(host="h", qos=0)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("lines", "outputs.o is a str; wanted a mapping"),
        ({}, r"outputs.o.kind is None; wanted one of \['jsonl', 'mqtt', 'webhook'\]"),
        ({"kind": ["jsonl"]}, "outputs.o.kind is"),
        ({"kind": "file"}, "outputs.o.kind is 'file'"),
        ({"kind": "jsonl"}, r"outputs.o lacks \['path'\]"),
        ({"kind": "jsonl", "path": "a", "paht": 1}, r"outputs.o has unknown fields \['paht'\]"),
        ({"kind": "jsonl", "path": 1}, "outputs.o.path is 1; wanted a str"),
        ({"kind": "jsonl", "path": ""}, "outputs.o.path is ''"),
        ({"kind": "jsonl", "path": "a", "room": 0}, "outputs.o.room is 0; wanted 1..100000"),
        ({"kind": "jsonl", "path": "a", "policy": "drop"}, "outputs.o.policy is 'drop'"),
        ({"kind": "jsonl", "path": "a", "first_delay": 60}, "outputs.o.first_delay is 60.0; wanted 0.01..30, the long"),
        ({"kind": "jsonl", "path": "a", "min_confidence": 2}, "outputs.o.min_confidence is 2.0; wanted 0..1"),
        ({"kind": "jsonl", "path": "{stream}", "max_bytes": 2000}, "outputs.o.path is '{stream}'; wanted a name that"),
        ({"kind": "jsonl", "path": "{stream}.1", "max_bytes": 2000}, "outputs.o.path is '{stream}.1'; wanted a name"),
        ({"kind": "mqtt", "host": ""}, "outputs.o.host is ''"),
        ({"kind": "mqtt", "host": "a..b"}, "outputs.o.host is 'a..b'; wanted a name or an address"),
        ({"kind": "mqtt", "host": "h", "topic": "a/#"}, "outputs.o.topic is 'a/#'"),
        ({"kind": "mqtt", "host": "h", "qos": 2}, "outputs.o.qos is 2"),
        ({"kind": "mqtt", "host": "h", "ca_file": "a"}, "outputs.o.tls is False; wanted true, as ca_file is given"),
        ({"kind": "mqtt", "host": "h", "password": "hush"}, "outputs.o.username is None; wanted a name"),
        ({"kind": "mqtt", "host": "h", "tls": True, "key_file": "k"}, "outputs.o.cert_file is None; wanted a file"),
    ],
)  # fmt: skip
def test_message_names_the_place(data: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        parse_output(data, "outputs.o")
    assert "hush" not in str(caught.value)


@pytest.mark.parametrize(
    "data",
    [
        {"kind": "webhook", "url": ["http://user:hush@host"]},
        {"kind": "webhook", "url": "http://h", "headers": "Authorization: hush"},
        {"kind": "webhook", "url": "http://h", "headers": {"Authorization": {"hush": 1}}},
        {"kind": "webhook", "url": "http://h", "secret": {"hush": 1}},
        {"kind": "mqtt", "host": "h", "username": "me", "password": ["hush"]},
    ],
)
def test_secret_of_another_type_is_not_quoted(data: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"\(not shown, as it may be secret\); wanted ") as caught:
        parse_output(data, "outputs.o")
    assert "hush" not in str(caught.value)


def test_settings_do_not_show_their_secrets() -> None:
    hook = WebhookSettings(url="http://h/hush", headers={"a": "hush"}, secret="hush")
    bus = MqttSettings(host="h", username="hush", password="hush")
    assert "hush" not in f"{hook!r} {bus!r} {hook} {bus}"
