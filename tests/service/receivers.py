"""An HTTP receiver that behaves as a test says."""

from __future__ import annotations

import contextlib
import gzip
import json
import shutil
import socket
import subprocess
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest

from tests.service.outputs.doubles import WAIT


def certify(folder: Path, name: str) -> Path:
    """A certificate for 127.0.0.1, NAME.pem, which is its own authority; its key is NAME.key."""
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl")
    path = folder / f"{name}.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=test",
         "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", folder / f"{name}.key", "-out", path],
        check=True, capture_output=True, timeout=WAIT,
    )  # fmt: skip
    return path


class Request:
    """What came."""

    def __init__(self, path: str, headers: dict[str, str], body: bytes) -> None:
        self.path, self.headers = path, headers
        self.body = gzip.decompress(body) if headers.get("content-encoding") == "gzip" else body

    @property
    def results(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(self.body)["results"]
        return found


class Receiver(ThreadingHTTPServer):
    """Answers with `answers` in turn, then with 200. A number is a status, with headers a tuple; "torn" ends the
    connection within the body of a 200, "gone" without an answer, "silent" never answers, "drip" sends a byte of an
    answer at a time. What `judge` finds wrong is a 400.
    """

    daemon_threads = True
    block_on_close = False

    def __init__(self, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.answers: deque[Any] = deque()
        self.requests: list[Request] = []
        self.accepted: list[Request] = []
        """Those that were answered with a 2xx"""
        self.judge: Any = lambda request: True
        self.ended = threading.Event()
        self._connections: list[socket.socket] = []

    @property
    def taken(self) -> list[dict[str, Any]]:
        """Results that were answered with a 2xx."""
        return [result for request in self.accepted for result in request.results]

    def get_request(self) -> tuple[socket.socket, Any]:
        connection, address = super().get_request()
        self._connections.append(connection)
        return connection, address

    def cut(self) -> None:
        """End the connections that clients keep, as a process that ends does."""
        for connection in self._connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that has gone is what some tests are about."""


class _Handler(BaseHTTPRequestHandler):
    server: Receiver
    protocol_version = "HTTP/1.1"
    timeout: ClassVar[int] = 60

    def do_POST(self) -> None:
        headers = {name.lower(): value for name, value in self.headers.items()}
        request = Request(self.path, headers, self.rfile.read(int(self.headers["content-length"])))
        self.server.requests.append(request)
        answer = self.server.answers.popleft() if self.server.answers else 200
        status, headers = answer if isinstance(answer, tuple) else (answer, {})
        if status == 200 and not self.server.judge(request):
            status = 400
        if isinstance(status, str):
            self._misbehave(status, request)
            return
        if 200 <= status < 300:
            self.server.accepted.append(request)
        body = b"" if status == 204 else b"answer"
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def _misbehave(self, how: str, request: Request) -> None:
        self.close_connection = True
        if how == "torn":
            self.server.accepted.append(request)
            self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nhalf")
        elif how == "endless":
            self.server.accepted.append(request)
            self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")
            while not self.server.ended.is_set():
                self.wfile.write(bytes(2**16))
        elif how == "silent":
            self.server.ended.wait(60)
        elif how == "drip":
            for byte in b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 1000:
                self.wfile.write(bytes([byte]))
                self.wfile.flush()
                if self.server.ended.wait(0.1):
                    break

    def log_message(self, format: str, *args: Any) -> None:
        pass


@contextmanager
def receiving(port: int = 0) -> Iterator[Receiver]:
    """A receiver on a free port, or on a given one."""
    with Receiver(port) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.ended.set()
            server.shutdown()
            server.cut()
            thread.join()
