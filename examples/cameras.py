"""Cameras to try `rdn-engine run` on, without torch: rendered clips as endless MJPEG over HTTP.

python examples/cameras.py door yard [--port 8091] [--rate 10]
"""

import argparse
import contextlib
import io
import sys
import tempfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from PIL import Image

# The renderer belongs to the training set and is not part of the installed package.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from rdn_engine.media.source import open_source
from training.data.synthetic import write_clip


def render(index: int) -> list[bytes]:
    """JPEGs of a clip, forwards and back again, so that nothing jumps where it begins anew."""
    with tempfile.TemporaryDirectory() as folder:
        clip = Path(folder) / "clip.mp4"
        write_clip(clip, index=index, magnify=3)
        with open_source(clip) as video:
            pictures = [Image.fromarray(frame.image) for frame in video]
    coded = []
    for picture in pictures:
        buffer = io.BytesIO()
        picture.save(buffer, "JPEG", quality=90)
        coded.append(buffer.getvalue())
    return coded + coded[-2:0:-1]


def serve(names: list[str], port: int, rate: float) -> ThreadingHTTPServer:
    """A server, not running yet, that has http://127.0.0.1:PORT/NAME.mjpg for each name."""
    cameras = {f"/{name}.mjpg": render(index) for index, name in enumerate(names, 7)}
    over = threading.Event()

    class Camera(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            pictures = cameras.get(self.path)
            if pictures is None:
                self.send_error(404)
                return
            self.send_response(200)
            self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=picture")
            self.end_headers()
            position = 0
            try:
                while not over.wait(1 / rate):
                    picture = pictures[position % len(pictures)]
                    head = f"--picture\r\nContent-Type: image/jpeg\r\nContent-Length: {len(picture)}\r\n\r\n"
                    self.wfile.write(head.encode() + picture + b"\r\n")
                    position += 1
            except OSError:
                return  # whoever watched has gone

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def server_close(self) -> None:
            over.set()
            super().server_close()

    return Server(("127.0.0.1", port), Camera)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("names", nargs="+", help="of the cameras")
    parser.add_argument("--port", type=int, default=8091, help="0 takes one that is free")
    parser.add_argument("--rate", type=float, default=10.0, help="pictures a second")
    arguments = parser.parse_args()
    with serve(arguments.names, arguments.port, arguments.rate) as server:
        for name in arguments.names:
            print(f"http://127.0.0.1:{server.server_address[1]}/{name}.mjpg", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            server.serve_forever()


if __name__ == "__main__":
    main()
