"""A camera over HTTP on 127.0.0.1 whose faults are commands: /cam.mjpg (multipart JPEG) and /cam.ts (MPEG-TS).

Every client has pictures of its own, from its connection on. It prints its port once it can be connected to. Lines on
stdin: `damage SHARE` spoils that share of the pieces sent, `size WIDTH HEIGHT` changes the pictures of /cam.mjpg,
`restart` has the clock of /cam.ts begin at 0 again, `answer STATUS` refuses new clients (200 takes them), `silence`
sends nothing more, `quit` or the end of stdin ends it. Anything worse is done to the process: SIGKILL, SIGSTOP.
"""

from __future__ import annotations

import argparse
import io
import random
import sys
import threading
import time
from collections.abc import Iterator
from fractions import Fraction
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

import av
import numpy as np
from PIL import Image


class Faults:
    """What the commands have set."""

    damage = 0.0
    size = (320, 240)
    restarts = 0
    status = 200
    silent = threading.Event()


def pictures(rate: float) -> Iterator[np.ndarray]:
    """A square that moves over grey, in real time."""
    begin, noise = time.monotonic(), np.random.default_rng(0)
    number = 0
    while True:
        width, height = Faults.size
        picture = noise.integers(90, 110, (height, width, 3), dtype=np.uint8)
        left = (7 * number) % (width - 40)
        picture[height // 3 : height // 3 + 40, left : left + 40] = (220, 60, 40)
        yield picture
        number += 1
        time.sleep(max(begin + number / rate - time.monotonic(), 0.0))
        while Faults.silent.is_set():
            time.sleep(0.05)


def spoiled(data: bytes) -> bytes:
    """A piece of what is sent, or what a bad line makes of it."""
    if random.random() >= Faults.damage:
        return data
    broken = bytearray(data)
    for _ in range(3):
        broken[random.randrange(len(broken) // 2, len(broken))] ^= 1 << random.randrange(8)
    return bytes(broken)


class Connection(BaseHTTPRequestHandler):
    """One client."""

    rate: ClassVar[float] = 25.0

    def do_GET(self) -> None:
        """Send pictures until the client goes."""
        if Faults.status != 200 or self.path not in ("/cam.mjpg", "/cam.ts"):
            self.send_error(404 if Faults.status == 200 else Faults.status)
            return
        self.send_response(200)
        try:
            if self.path == "/cam.ts":
                self._transport_stream()
            else:
                self._jpegs()
        except OSError:  # the client has gone
            self.close_connection = True

    def log_message(self, *arguments: object) -> None:
        """Nobody reads it."""

    def _jpegs(self) -> None:
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
        self.end_headers()
        for picture in pictures(self.rate):
            file = io.BytesIO()
            Image.fromarray(picture).save(file, "JPEG", quality=70)
            data = spoiled(file.getvalue())
            head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(data)}\r\n\r\n"
            self.wfile.write(head.encode() + data + b"\r\n")

    def _transport_stream(self) -> None:
        self.send_header("Content-Type", "video/mp2t")
        self.end_headers()
        source = pictures(self.rate)
        while True:
            self._until_restart(source)

    def _until_restart(self, source: Iterator[np.ndarray]) -> None:
        restarts = Faults.restarts
        wire = Wire(self.wfile)
        with av.open(wire, "w", format="mpegts", options={"flush_packets": "1"}) as container:
            stream = container.add_stream("libx264", rate=Fraction(self.rate).limit_denominator(1000))
            stream.width, stream.height, stream.pix_fmt = 320, 240, "yuv420p"
            stream.options = {"preset": "ultrafast", "tune": "zerolatency", "g": "25", "threads": "1"}
            for number, picture in enumerate(source):
                if Faults.restarts > restarts or wire.closed:
                    break
                frame = av.VideoFrame.from_ndarray(picture[:240, :320], format="rgb24")
                frame.pts = number
                frame.time_base = 1 / Fraction(self.rate).limit_denominator(1000)
                container.mux(stream.encode(frame))
        if wire.closed:
            raise OSError("the client has gone")


class Wire:
    """What PyAV writes to: the way to the client, with its faults."""

    def __init__(self, file: io.BufferedIOBase) -> None:
        self._file = file
        self.closed = False

    def write(self, data: bytes) -> int:
        """Send; what goes wrong is noted, because PyAV is not to end by it."""
        try:
            self._file.write(spoiled(bytes(data)))
            self._file.flush()
        except OSError:
            self.closed = True
        return len(data)


def obey(server: ThreadingHTTPServer) -> None:
    """Commands, until stdin ends."""
    for line in sys.stdin:
        words = line.split()
        if words[0] == "quit":
            break
        if words[0] == "damage":
            Faults.damage = float(words[1])
        elif words[0] == "size":
            Faults.size = (int(words[1]), int(words[2]))
        elif words[0] == "restart":
            Faults.restarts += 1
        elif words[0] == "answer":
            Faults.status = int(words[1])
        elif words[0] == "silence":
            Faults.silent.set()
        print("done", flush=True)
    server.shutdown()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--rate", type=float, default=25.0)
    arguments = parser.parse_args()
    Connection.rate = arguments.rate
    ThreadingHTTPServer.daemon_threads = True
    server = ThreadingHTTPServer(("127.0.0.1", arguments.port), Connection)
    print(server.server_port, flush=True)
    threading.Thread(target=obey, args=(server,), daemon=True).start()
    server.serve_forever()


if __name__ == "__main__":
    main()
