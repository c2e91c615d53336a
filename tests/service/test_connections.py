"""Clients that hold connections: others are answered all the same, and descriptors are left for cameras."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator

import httpx2
import pytest
import uvicorn

from rdn_engine.service.connections import bounded_protocol
from rdn_engine.service.service import Service
from tests.serve.doubles import WAIT, watched_detector
from tests.service.doubles import service, until


async def answer(scope: object, receive: object, send: object) -> None:
    """An application that says one word."""
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})  # type: ignore[operator]
    await send({"type": "http.response.body", "body": b"ok"})  # type: ignore[operator]


@contextlib.contextmanager
def serving(most: int = 4, seconds: float = WAIT) -> Iterator[tuple[uvicorn.Server, int]]:
    listening = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(
        answer,  # type: ignore[arg-type]
        http=bounded_protocol(most, seconds), lifespan="off", log_config=None, timeout_graceful_shutdown=1,
    )  # fmt: skip
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, args=([listening],), daemon=True)
    thread.start()
    try:
        yield server, listening.getsockname()[1]
    finally:
        server.should_exit = True
        thread.join(WAIT)
        listening.close()
        assert not thread.is_alive()


def test_connections_that_say_nothing_make_room() -> None:
    with serving(most=4) as (server, port), contextlib.ExitStack() as stack:
        idle = [stack.enter_context(socket.create_connection(("127.0.0.1", port))) for _ in range(40)]
        until(lambda: len(server.server_state.connections) == 4)
        assert httpx2.get(f"http://127.0.0.1:{port}/", timeout=WAIT).text == "ok"
        idle[0].settimeout(WAIT)
        with contextlib.suppress(ConnectionResetError):
            assert idle[0].recv(1) == b""


@pytest.mark.parametrize("sent", [b"", b"GET / HT", b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"])
def test_connection_that_goes_no_further_is_cut_off(sent: bytes) -> None:
    with (
        serving(seconds=0.3) as (server, port),
        socket.create_connection(("127.0.0.1", port), timeout=WAIT) as slow,
    ):
        slow.sendall(sent)
        got = b""
        with contextlib.suppress(ConnectionResetError):
            while part := slow.recv(1000):
                got += part
        assert got.endswith(b"ok" if sent.endswith(b"\r\n\r\n") else b"")
        until(lambda: not server.server_state.connections)


def test_those_who_look_are_answered_while_changes_wait_for_a_stuck_stage() -> None:
    """More requests than the server has threads wait for a worker."""
    from rdn_engine.service.config import HttpSettings
    from rdn_engine.service.http import CHANGES, HttpServer

    asked, free = threading.Semaphore(0), threading.Event()

    def wait(self: Service, name: str, given: object) -> bool:
        asked.release()
        return free.wait(WAIT)

    with service({}, watched_detector()[0]) as running, pytest.MonkeyPatch.context() as patched:
        patched.setattr(Service, "set_dials", wait)
        server = HttpServer(running, HttpSettings(port=0))
        try:
            patches = [
                threading.Thread(
                    target=httpx2.patch, args=(f"{server.address}streams/a",),
                    kwargs={"json": {"dials": {}}, "timeout": WAIT}, daemon=True,
                )
                for _ in range(45)
            ]  # fmt: skip
            for one in patches:
                one.start()
            for _ in range(CHANGES):
                assert asked.acquire(timeout=WAIT)
            assert httpx2.get(f"{server.address}healthz", timeout=WAIT / 2).json() == {"healthy": True}
            assert httpx2.get(f"{server.address}streams", timeout=WAIT / 2).json()["streams"] == []
        finally:
            free.set()
            for one in patches:
                one.join(WAIT)
            server.close(WAIT)
