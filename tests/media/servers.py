"""Small servers on 127.0.0.1 that tests start and end themselves."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress


class Server:
    """Accepts connections, answers each in a thread, and holds it open until the test is over."""

    def __init__(self, answer: Callable[[socket.socket], None]) -> None:
        self._answer = answer
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._connections: list[socket.socket] = []
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def connections(self) -> int:
        """How many were made so far."""
        return len(self._connections)

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:  # closed
                return
            self._connections.append(connection)
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with suppress(OSError):  # the other side has gone
            self._answer(connection)

    def close(self) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes the thread that waits for connections
        for one in (self._listener, *self._connections):
            one.close()


@contextmanager
def serving(answer: Callable[[socket.socket], None]) -> Iterator[Server]:
    """A server for a while; `answer` talks to one connection, which stays open when it returns."""
    server = Server(answer)
    try:
        yield server
    finally:
        server.close()


def http(
    body: bytes, kind: str = "video/mp2t", *, length: int | None = None, closes: bool = False
) -> Callable[[socket.socket], None]:
    """Answer a request with a body, after a header that promises `length` bytes, or none in particular."""

    def answer(connection: socket.socket) -> None:
        connection.recv(65536)
        promise = f"Content-Length: {length}\r\n" if length is not None else ""
        connection.sendall(f"HTTP/1.0 200 OK\r\nContent-Type: {kind}\r\n{promise}\r\n".encode() + body)
        if closes:
            connection.close()

    return answer
