"""A server that answers what a test says, behind the real page."""

from __future__ import annotations

import io
import json
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import quote, unquote, urlsplit

import numpy as np
from PIL import Image, ImageDraw

from rdn_engine.serve.account import DROP_REASONS
from rdn_engine.service.page import HEADERS, INDEX, assets


def stream(name: str, **changes: Any) -> dict[str, Any]:
    """A stream that does well, as `GET /streams` tells of it."""
    return {
        "name": name, "source": f"rtsp://camera.local/{name}", "state": "running", "end_reason": None, "error": None,
        "source_error": None,
        "trouble": [], "frames_in": 100, "frames_out": 98, "dropped": dict.fromkeys(DROP_REASONS, 0), "waiting": 1,
        "inside": 1, "doubtful": 0, "damaged": 0, "sessions": 1, "failures": 0, "epochs": 1, "lowered": 0,
        "nbytes": 4 << 20, "age_seconds": {"last": 0.1, "p50": 0.1, "p99": 0.2}, "last_result_time": time.time(),
        "flags": [], "dials": {"window": 18, "look_ahead": 2}, "outputs": {},
        "picture": f"/streams/{quote(name, safe='')}/picture.jpg",
    } | changes  # fmt: skip


class PageDouble:
    """What the server says next. Streams get frames and results while `live`."""

    def __init__(self) -> None:
        self.streams: list[dict[str, Any]] = []
        self.ended: list[dict[str, Any]] = []
        self.healthy = True
        self.live = True
        self.status = 200
        self.token: str | None = None
        """That everything wants but the page itself"""
        self.change_token: str | None = None
        """That changes want"""
        self.accepted: list[str] = []
        """Streams whose view was accepted"""
        self.no_picture: set[str] = set()
        self.asked: Counter[str] = Counter()
        """Requests by path"""
        self.tokens: Counter[str | None] = Counter()
        """Requests by what they authorised themselves with"""
        self._began = time.monotonic()
        self.going_on = threading.Event()
        """Cleared, the server takes requests and does not answer"""
        self.going_on.set()
        self._port = 0
        self.open()
        self.address = f"http://127.0.0.1:{self._port}/"

    def open(self) -> None:
        """Take connections."""
        self._server = ThreadingHTTPServer(("127.0.0.1", self._port), _handler(self))
        self._port = self._server.server_port
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Refuse connections from now on."""
        self.going_on.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def answer(self) -> dict[str, Any]:
        """The body of `GET /streams`."""
        streams = self.streams
        if self.live:
            more = int(10 * (time.monotonic() - self._began))
            fresh = {"last_result_time": time.time()}
            streams = [
                {**one, "frames_in": one["frames_in"] + more, "frames_out": one["frames_out"] + more}
                | (fresh if one.get("last_result_time", 0) is not None and "still" not in one else {})
                for one in streams
            ]
        process = {
            "streams": len(streams), "ended": len(self.ended), "workers": 2, "admitted_bytes": 96 << 20,
            "byte_budget": 2 << 30, "resident_bytes": 310 << 20, "events_lost": 0,
        }  # fmt: skip
        return {
            "healthy": self.healthy, "time": time.time(), "process": process, "streams": streams, "ended": self.ended
        }  # fmt: skip

    def picture(self, name: str) -> bytes:
        """A picture that differs from second to second."""
        rng = np.random.default_rng(sum(name.encode()))
        shades = np.linspace(70, 150, 180)[:, None, None] * rng.uniform(0.5, 1.2, 3)
        image = Image.fromarray(np.broadcast_to(shades, (180, 320, 3)).clip(0, 255).astype(np.uint8))
        draw = ImageDraw.Draw(image)
        x = int(40 * (time.monotonic() - self._began)) % 240
        draw.rectangle((x, 70, x + 60, 160), fill=(60, 60, 70), outline=(255, 180, 60), width=2)
        draw.text((x + 3, 58), "person 0.93", fill=(255, 180, 60))
        buffer = io.BytesIO()
        image.save(buffer, "JPEG")
        return buffer.getvalue()


@contextmanager
def serving() -> Iterator[PageDouble]:
    """A double that is closed at the end."""
    double = PageDouble()
    try:
        yield double
    finally:
        double.close()


def _handler(double: PageDouble) -> type[BaseHTTPRequestHandler]:
    files = assets()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            raw = urlsplit(self.path).path
            path = unquote(raw)
            double.asked[path] += 1
            double.going_on.wait(60)
            name = path.removeprefix("/") or INDEX
            if name in files:
                self._send(200, files[name].content_type, files[name].body, HEADERS)
                return
            given = self.headers.get("Authorization")
            double.tokens[given] += 1
            if double.token is not None and given != f"Bearer {double.token}":
                self._send(401, "text/plain", b"a token is wanted")
            elif path == "/streams":
                self._send(double.status, "application/json", json.dumps(double.answer()).encode())
            elif path.endswith("/picture.jpg") and (camera := unquote(raw.split("/")[2])) not in double.no_picture:
                self._send(200, "image/jpeg", double.picture(camera))
            else:
                self._send(204, "text/plain", b"")

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            raw = urlsplit(self.path).path
            if self.headers.get("Authorization") != f"Bearer {double.change_token}":
                self._send(401, "application/json", b'{"error": "a token is wanted"}')
            elif raw.endswith("/accept_view") and self.headers["Content-Type"] == "application/json":
                double.accepted.append(unquote(raw.split("/")[2]))
                self._send(200, "application/json", b"{}")
            else:
                self._send(404, "application/json", b'{"error": "no such thing"}')

        def _send(self, status: int, kind: str, body: bytes, headers: dict[str, str] | None = None) -> None:
            self.send_response(status)
            for header, value in {"Content-Type": kind, "Content-Length": str(len(body)), **(headers or {})}.items():
                self.send_header(header, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    return Handler
