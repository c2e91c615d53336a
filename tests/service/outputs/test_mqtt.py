"""Lines to a real MQTT broker, which is killed, frozen, not there yet, or wants a password."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import pytest

from rdn_engine.errors import ConfigError
from rdn_engine.service.outputs import MqttSettings, Output, OutputCounts, open_output
from tests.service.outputs.broker import Broker, Subscriber, free_port
from tests.service.outputs.doubles import QUICK, WAIT, Listener, line, until
from tests.service.receivers import certify


def opened(port: int, listener: Listener | None = None, **options: Any) -> Output:
    given = {**QUICK, "topic": "cameras/{stream}", **options}
    return open_output("bus", MqttSettings(host="127.0.0.1", port=port, **given), listener or Listener())


def send(output: Output, *numbers: int, stream: str = "door") -> None:
    for number in numbers:
        output.put(stream, line(number, stream))


def indices(subscriber: Subscriber, topic: str = "cameras/door") -> list[int]:
    return [json.loads(data)["frame_index"] for name, data in subscriber.messages if name == topic]


@pytest.mark.parametrize("qos", [0, 1])
def test_each_line_is_a_message_of_its_streams_topic(tmp_path: Path, qos: int) -> None:
    with Broker(tmp_path) as broker, Subscriber(broker.port) as subscriber:
        output = opened(broker.port, qos=qos, batch=30)
        send(output, *range(100))
        send(output, 0, stream="hall/1 +#")
        until(lambda: output.totals().written == 101)
        assert output.counts()["door"] == OutputCounts(put=100, written=100)
        until(lambda: len(subscriber.messages) == 101)
        assert output.close(drain=True, deadline_s=WAIT)
        assert indices(subscriber) == list(range(100))
        assert indices(subscriber, "cameras/hall%2F1%20%2B%23") == [0]
        assert json.loads(subscriber.messages[0][1]) in (line(0), line(0, "hall/1 +#"))


def test_retained_message_is_there_for_those_who_come_later(tmp_path: Path) -> None:
    with Broker(tmp_path) as broker:
        output = opened(broker.port, retain=True)
        send(output, 1, 2)
        assert output.close(drain=True, deadline_s=WAIT)
        with Subscriber(broker.port, "cameras/#") as subscriber:
            until(lambda: indices(subscriber) == [2])


def test_broker_that_comes_late_gets_all(tmp_path: Path) -> None:
    listener, broker = Listener(), Broker(tmp_path)
    output = opened(broker.port, listener, timeout=0.5)
    send(output, *range(10))
    listener.wait("failing")
    refused = f"broker 127.0.0.1:{broker.port}: no connection: Connection refused"
    until(lambda: (output.trouble or "").endswith(refused))
    assert output.counts()["door"] == OutputCounts(put=10, waiting=10)
    with broker:
        listener.wait("recovered")
        assert output.close(drain=True, deadline_s=WAIT)
        assert output.counts()["door"] == OutputCounts(put=10, written=10)


def test_broker_that_is_killed_and_comes_back_misses_nothing(tmp_path: Path) -> None:
    listener = Listener()
    with Broker(tmp_path) as broker:
        with Subscriber(broker.port) as before:
            output = opened(broker.port, listener, room=1000, timeout=2)
            send(output, *range(20))
            until(lambda: indices(before) == list(range(20)))
            until(lambda: output.totals().written == 20)
            broker.kill()
        send(output, *range(20, 40))
        listener.wait("failing")
        broker.start()
        # An amqtt that was killed knows no sessions: what comes before somebody subscribes again goes nowhere.
        listener.wait("recovered")
        until(lambda: output.counts()["door"] == OutputCounts(put=40, written=40))
        with Subscriber(broker.port) as after:
            send(output, *range(40, 50))
            until(lambda: indices(after) == list(range(40, 50)))
            assert output.close(drain=True, deadline_s=WAIT)
            assert output.counts()["door"] == OutputCounts(put=50, written=50)


def test_broker_that_is_frozen_acknowledges_nothing_and_gets_each_line(tmp_path: Path) -> None:
    """What it did not acknowledge is not written; what it had already taken is not published a second time."""
    listener = Listener()
    with Broker(tmp_path) as broker, Subscriber(broker.port) as subscriber:
        output = opened(broker.port, listener, timeout=0.5)
        send(output, 0)
        until(lambda: output.totals().written == 1)
        broker.freeze(True)
        send(output, *range(1, 30))
        assert listener.wait("failing").endswith("it did not acknowledge")
        assert output.totals() == OutputCounts(put=30, written=1, waiting=29)
        broker.freeze(False)
        listener.wait("recovered")
        # Before it is closed: amqtt 0.12.1 drops what it has acknowledged when its publisher goes, with Python 3.12
        # (findings/amqtt_drops_acknowledged_messages.sh).
        until(lambda: len(subscriber.messages) >= 30)
        assert output.close(drain=True, deadline_s=WAIT)
        assert output.totals() == OutputCounts(put=30, written=30)
        assert indices(subscriber) == list(range(30))


@pytest.mark.parametrize("state", ["frozen", "absent", "silent"])
@pytest.mark.parametrize("drain", [True, False])
def test_close_ends_whatever_the_broker_does(tmp_path: Path, state: str, drain: bool) -> None:
    with Broker(tmp_path) as broker, socket.create_server(("127.0.0.1", 0)) as silent:
        port = {"frozen": broker.port, "absent": free_port(), "silent": silent.getsockname()[1]}[state]
        output = opened(port, timeout=3000)
        if state == "frozen":
            send(output, 0)
            until(lambda: output.totals().written == 1)
            broker.freeze(True)
        send(output, 1, 2)
        until(lambda: output._current is not None)
        assert not output.close(drain=drain, deadline_s=0.5)
        totals = output.totals()
        assert (totals.waiting, totals.dropped["closed"]) == (0, 2)
        if state == "frozen":
            broker.freeze(False)


def test_password_is_asked_for_and_not_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pwdlib import PasswordHash
    from pwdlib.hashers.argon2 import Argon2Hasher

    (tmp_path / "users").write_text(f"me:{PasswordHash((Argon2Hasher(),)).hash('hush#/?[@')}\n")
    monkeypatch.setenv("MQTT_PASSWORD", "hush#/?[@")
    monkeypatch.setenv("MQTT_WRONG", "hush")
    with Broker(tmp_path) as broker:
        listener = Listener()
        bad = opened(broker.port, listener, username="me", password="env:MQTT_WRONG", timeout=1)
        send(bad, 0)
        until(lambda: "it refused the connection: Not authorized" in (bad.trouble or ""))
        assert "hush" not in f"{bad.trouble} {listener.heard}"
        assert not bad.close(drain=False, deadline_s=WAIT)
        good = opened(broker.port, username="me", password="env:MQTT_PASSWORD")
        send(good, 0)
        assert good.close(drain=True, deadline_s=WAIT)
        assert good.totals() == OutputCounts(put=1, written=1)


def test_certificate_is_checked(tmp_path: Path) -> None:
    certify(tmp_path, "own")
    with Broker(tmp_path) as broker:
        good = opened(broker.port, tls=True, ca_file=str(tmp_path / "own.pem"))
        send(good, 0)
        assert good.close(drain=True, deadline_s=WAIT)
        assert good.totals() == OutputCounts(put=1, written=1)
        bad = opened(broker.port, tls=True, timeout=1)
        send(bad, 0)
        until(lambda: "certificate verify failed" in (bad.trouble or ""))
        assert not bad.close(drain=False, deadline_s=WAIT)
        assert bad.totals().written == 0
    with pytest.raises(ConfigError, match="its certificates cannot be used"):
        opened(1, tls=True, ca_file=str(tmp_path / "none.pem"))


def test_value_that_is_not_there_is_refused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_PASSWORD", raising=False)
    with pytest.raises(ConfigError, match="'NO_PASSWORD' is not set or empty; wanted a password in it"):
        opened(1, username="me", password="env:NO_PASSWORD")
