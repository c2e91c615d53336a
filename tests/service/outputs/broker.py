"""A real MQTT broker in a process of its own: `python -m tests.service.outputs.broker PORT FOLDER`."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion

from tests.service.outputs.doubles import WAIT

ROOT = Path(__file__).parents[3]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


class Broker:
    """Runs until it is killed, and again on the same port. With a folder it wants a password (`users`), and speaks TLS
    (`own.pem`, `own.key`), where these files are in it.
    """

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with (self._folder / "broker.log").open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.service.outputs.broker", str(self.port), str(self._folder)],
                cwd=ROOT, stdout=subprocess.PIPE, stderr=log,
            )  # fmt: skip
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == b"ready\n", (self._folder / "broker.log").read_text()

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait(WAIT)
            assert self._process.stdout is not None
            self._process.stdout.close()
            self._process = None

    def freeze(self, frozen: bool) -> None:
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGSTOP if frozen else signal.SIGCONT)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()


class Subscriber:
    """Keeps every message of a broker; subscribes anew whenever it is connected."""

    def __init__(self, port: int, topics: str = "#", *, user: tuple[str, str] | None = None) -> None:
        self.messages: list[tuple[str, bytes]] = []
        self._topics = topics
        self._ready = threading.Event()
        self._client = Client(CallbackAPIVersion.VERSION2)
        if user is not None:
            self._client.username_pw_set(*user)
        self._client.reconnect_delay_set(1, 1)
        self._client.on_connect = lambda client, *_: client.subscribe(self._topics, 1)
        self._client.on_subscribe = lambda *_: self._ready.set()
        self._client.on_disconnect = lambda *_: self._ready.clear()
        self._client.on_message = lambda client, data, message: self.messages.append((message.topic, message.payload))
        self._client.connect_async("127.0.0.1", port)
        self._client.loop_start()

    def wait(self) -> None:
        assert self._ready.wait(WAIT)

    def __enter__(self) -> Self:
        self.wait()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.disconnect()
        self._client.loop_stop()


async def _serve(port: int, folder: Path) -> None:
    from amqtt.broker import Broker as Amqtt

    listener: dict[str, Any] = {"type": "tcp", "bind": f"127.0.0.1:{port}"}
    if (folder / "own.pem").exists():
        listener |= {"ssl": True, "certfile": str(folder / "own.pem"), "keyfile": str(folder / "own.key")}
    plugins: dict[str, Any] = {"amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}}
    if (folder / "users").exists():
        plugins = {"amqtt.plugins.authentication.FileAuthPlugin": {"password_file": str(folder / "users")}}
    broker = Amqtt({"listeners": {"default": listener}, "plugins": plugins})
    await broker.start()
    print("ready", flush=True)
    parent = os.getppid()
    while os.getppid() == parent:  # whoever started it has not gone
        await asyncio.sleep(1)


if __name__ == "__main__":
    asyncio.run(_serve(int(sys.argv[1]), Path(sys.argv[2])))
