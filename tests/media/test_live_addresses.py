"""Real servers as live sources: every protocol that cameras speak, and what goes wrong with each."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import quote

import av
import pytest

from rdn_engine.frame import Frame
from rdn_engine.media.base import SourceOptions
from rdn_engine.media.live import LiveOptions, LiveSource
from tests.cameras.processes import http_camera, needs_rtsp, rtsp_camera
from tests.media.clips import picture

WAIT = 60.0
PASSWORD = "p#/?[@s"


@contextmanager
def reading(address: str, **source: object) -> Iterator[LiveSource]:
    options = LiveOptions(
        "drop_oldest", room=50, first_delay=0.1, longest_delay=0.2,
        source=SourceOptions(**{"timeout": 5.0} | source),  # type: ignore[arg-type]
    )  # fmt: skip
    live = LiveSource(address, options)
    live.start()
    try:
        yield live
    finally:
        assert live.close(WAIT)
    assert live.captured == live.taken + live.dropped


def next_frame(live: LiveSource, wanted: Callable[[Frame], bool] = lambda frame: True) -> Frame:
    """The first frame that is as wanted."""
    end = time.monotonic() + WAIT
    while time.monotonic() < end:
        frame = live.get(WAIT)
        if frame is not None and wanted(frame):
            return frame
    raise AssertionError(f"no such frame: {live.error}")


def session(number: int) -> Callable[[Frame], bool]:
    return lambda frame: frame.capture is not None and frame.capture.session >= number


def until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + WAIT
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.mark.parametrize("over", ["tcp", "udp"])
def test_rtsp_comes_back_after_its_server_was_killed(over: str) -> None:
    needs_rtsp()
    with rtsp_camera() as camera, reading(camera.address("cam"), rtsp_over=over) as live:
        frame = next_frame(live)
        assert frame.image.shape == (240, 320, 3)
        assert frame.source_id == camera.address("cam")
        camera.kill()
        until(lambda: live.error is not None)
        camera.restart()
        assert next_frame(live, session(1)).index > frame.index
        assert (live.sessions, live.error) == (2, None)
        assert over == "udp" or live.lost_packets == 0


def test_rtsp_that_hangs_is_given_up_and_comes_back() -> None:
    needs_rtsp()
    with rtsp_camera() as camera, reading(camera.address("cam"), timeout=3.0) as live:
        next_frame(live)
        camera.stop()
        until(lambda: live.error is not None)
        assert "silent for 3 s" in str(live.error)
        camera.go_on()
        next_frame(live, session(1))


def test_rtp_losses_are_counted_and_frames_since_are_doubtful() -> None:
    needs_rtsp()
    with rtsp_camera(bitrate=2000) as camera, reading(camera.address("cam"), rtsp_over="udp") as live:
        clean = next_frame(live, lambda frame: frame.capture is not None and not frame.capture.doubtful)
        camera.tell("loss 0.05")
        until(lambda: live.lost_packets > 0)
        doubtful = next_frame(live, lambda frame: frame.capture is not None and frame.capture.doubtful)
        assert doubtful.index > clean.index
        camera.tell("loss 0")
        next_frame(live, lambda frame: frame.capture is not None and not frame.capture.doubtful)
        assert live.lost_packets > 0


def test_rtsp_of_another_size() -> None:
    needs_rtsp()
    with rtsp_camera(keys=10) as camera, reading(camera.address("cam")) as live:
        next_frame(live, lambda frame: frame.image.shape == (240, 320, 3))
        camera.tell("size 192 144")
        next_frame(live, lambda frame: frame.image.shape == (144, 192, 3))


def test_rtsp_wants_the_right_password_and_path_and_shows_neither() -> None:
    needs_rtsp()
    right = f"viewer:{quote(PASSWORD, safe='')}"
    with rtsp_camera(user="viewer", password=PASSWORD) as camera:
        with reading(camera.address("cam", right)) as live:
            assert next_frame(live).source_id == camera.address("cam")
        for user, path, said in (("viewer:wrong#1", "cam", ""), ("", "cam", "401"), (right, "none", "404")):
            with reading(camera.address(path, user)) as live:
                until(lambda live=live: live.failures > 1)  # type: ignore[misc]
                assert said in str(live.error)
                assert "wrong" not in str(live.error)
                assert quote(PASSWORD, safe="") not in str(live.error)
                assert live.captured == 0


def test_motion_jpeg_whose_size_changes_and_whose_bytes_are_damaged() -> None:
    with http_camera() as camera, reading(camera.address("cam.mjpg")) as live:
        next_frame(live, lambda frame: frame.image.shape == (240, 320, 3))
        camera.tell("size 160 120")
        next_frame(live, lambda frame: frame.image.shape == (120, 160, 3))
        camera.tell("damage 0.5")
        until(lambda: live.damaged > 0)
        camera.tell("damage 0")
        damaged = next_frame(live).index
        next_frame(live, lambda frame: frame.index > damaged)


def test_a_transport_stream_over_http_that_is_refused_and_comes_back() -> None:
    with http_camera() as camera, reading(camera.address("cam.ts"), timeout=3.0) as live:
        next_frame(live)
        camera.tell("answer 503")
        camera.tell("silence")
        until(lambda: live.failures > 1)
        camera.kill()
        until(lambda: "refused" in str(live.error).lower())
        camera.restart()
        next_frame(live, session(1))


def test_a_transport_stream_over_udp() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    ends = threading.Event()

    def send() -> None:
        """Key frames often: who comes late sees nothing before the next."""
        options = {"preset": "ultrafast", "tune": "zerolatency", "g": "5", "threads": "1"}
        with av.open(f"udp://127.0.0.1:{port}?pkt_size=1316", "w", format="mpegts") as container:
            stream = container.add_stream("libx264", rate=25, options=options)
            stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
            for number in range(25 * 600):
                if ends.wait(0.04):
                    return
                frame = av.VideoFrame.from_ndarray(picture(number % 40, 48, 64), format="rgb24")
                frame.pts, frame.time_base = number, Fraction(1, 25)
                container.mux(stream.encode(frame))

    with reading(f"udp://127.0.0.1:{port}", timeout=3.0) as live:
        for sender in (threading.Thread(target=send), threading.Thread(target=send)):
            ends.clear()
            failures, sessions = live.failures, live.sessions
            sender.start()
            assert next_frame(live, session(sessions)).image.shape == (48, 64, 3)
            ends.set()
            sender.join(WAIT)
            until(lambda failures=failures: live.failures > failures)  # type: ignore[misc]
        assert live.sessions >= 2


def test_hls_over_http_that_goes_on_and_ends(tmp_path: Path) -> None:
    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *arguments: object) -> None:
            """Nobody reads it."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    ends = threading.Event()

    def write() -> None:
        options = {"hls_time": "0.4", "hls_list_size": "5", "hls_flags": "omit_endlist+temp_file"}
        with av.open(str(tmp_path / "a.m3u8"), "w", format="hls", options=options) as container:
            stream = container.add_stream(
                "libx264", rate=25, options={"preset": "ultrafast", "g": "10", "threads": "1"}
            )
            stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
            for number in range(25 * 600):
                if ends.wait(0.04):
                    return
                frame = av.VideoFrame.from_ndarray(picture(number % 40, 48, 64), format="rgb24")
                frame.pts, frame.time_base = number, Fraction(1, 25)
                container.mux(stream.encode(frame))

    writer = threading.Thread(target=write)
    writer.start()
    try:
        with reading(f"http://127.0.0.1:{server.server_port}/a.m3u8") as live:
            first = next_frame(live)
            later = next_frame(live, lambda frame: frame.index >= first.index + 30)
            assert later.pts is not None
            assert first.pts is not None
            assert later.pts > first.pts
            assert (live.sessions, live.damaged) == (1, 0)
            server.shutdown()
            server.server_close()
            until(lambda: live.error is not None)
    finally:
        ends.set()
        writer.join(WAIT)
        server.server_close()
