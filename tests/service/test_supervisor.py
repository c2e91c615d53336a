"""What systemd is told."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from rdn_engine.service.supervisor import Supervisor
from tests.serve.doubles import WAIT


@pytest.fixture
def told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path / "notify"))
        listening.setblocking(False)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        yield listening


def heard(listening: socket.socket) -> list[bytes]:
    messages = []
    while True:
        try:
            messages.append(listening.recv(100))
        except BlockingIOError:
            return messages


def test_life_of_a_service(told: socket.socket) -> None:
    supervisor = Supervisor()
    supervisor.ready()
    supervisor.alive(True)
    supervisor.stopping()
    assert heard(told) == [b"READY=1", b"STOPPING=1"], "without a watchdog nothing between"


def test_watchdog_hears_of_a_healthy_service_alone(told: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "2")
    supervisor = Supervisor()
    supervisor.alive(False)
    assert heard(told) == []
    supervisor.alive(True)
    assert heard(told) == [b"WATCHDOG=1"]


def test_watchdog_is_told_no_oftener_than_it_asks(told: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "3600000000")
    supervisor = Supervisor()
    for _ in range(3):
        supervisor.alive(True)
    assert heard(told) == [b"WATCHDOG=1"]


def test_watchdog_of_another_process_is_left_alone(told: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "2")
    monkeypatch.setenv("WATCHDOG_PID", str(os.getpid() + 1))
    Supervisor().alive(True)
    assert heard(told) == []


def test_one_that_does_not_read_is_not_waited_for(told: socket.socket) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as filling:
        filling.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                filling.sendto(b"x", told.getsockname())
    teller = threading.Thread(target=Supervisor().stopping, daemon=True)
    teller.start()
    teller.join(WAIT)
    assert not teller.is_alive()


def test_nobody_listens(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    Supervisor().ready()
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "gone"))
    Supervisor().ready()


def test_abstract_address(monkeypatch: pytest.MonkeyPatch) -> None:
    name = f"rdn-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(f"\0{name}")
        listening.setblocking(False)
        monkeypatch.setenv("NOTIFY_SOCKET", f"@{name}")
        Supervisor().ready()
        assert heard(listening) == [b"READY=1"]
