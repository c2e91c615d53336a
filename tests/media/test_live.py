"""Live sources: sessions, failures and counts, on sources that tests play and on real servers."""

from __future__ import annotations

import gc
import logging
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from rdn_engine.errors import ConfigError, VideoError
from rdn_engine.frame import Frame
from rdn_engine.media.base import SourceOptions, VideoSource
from rdn_engine.media.live import LiveOptions, LiveSource
from rdn_engine.media.source import open_source
from tests.media.clips import encode
from tests.media.servers import http, serving

IMAGE = np.zeros((16, 16, 3), np.uint8)
AT_ONCE = LiveOptions(policy="wait", first_delay=0.01, longest_delay=0.01)
Plan = Callable[[], Iterator[int]]


class Played(VideoSource):
    """A connection whose frames a test plays; True of a plan's numbers is a frame before which data was lost."""

    def __init__(self, numbers: Iterator[int], skipped: int = 0) -> None:
        super().__init__("cam", None, None)
        self._numbers = numbers
        self.skipped = skipped

    def _frames(self) -> Iterator[Frame]:
        for number in self._numbers:
            self.doubtful += number < 0
            yield Frame(IMAGE, abs(number), None, "cam")


class Camera:
    """Opens one connection after another; a string is an attempt that fails."""

    def __init__(self, *connections: list[int] | str) -> None:
        self._connections = list(connections)
        self.closed: list[Played] = []

    def __call__(self, address: str | Path, options: SourceOptions) -> VideoSource:
        if not self._connections:
            raise VideoError("the camera is gone")
        connection = self._connections.pop(0)
        if isinstance(connection, str):
            raise VideoError(connection)
        played = Played(iter(connection), skipped=1)
        self.closed.append(played)
        return played


def source(camera: Camera, options: LiveOptions = AT_ONCE) -> LiveSource:
    return LiveSource("rtsp://user:secret@cam/1", options, opener=camera)


def take(live: LiveSource, count: int) -> list[Frame]:
    frames = [live.get(10) for _ in range(count)]
    assert None not in frames
    return [frame for frame in frames if frame is not None]


def test_a_connection_that_ends_is_a_failure_and_the_next_one_another_session() -> None:
    live = source(Camera([0, 1, 2], "refused", [0, 1]))
    live.start()
    frames = take(live, 5)
    assert live.close()
    assert [frame.index for frame in frames] == [0, 1, 2, 3, 4]
    assert [frame.capture.session for frame in frames if frame.capture] == [0, 0, 0, 1, 1]
    assert (live.captured, live.taken, live.dropped, live.sessions) == (5, 5, 0, 2)
    assert live.damaged >= 1
    assert live.failures >= 2
    assert live.source_id == "rtsp://cam/1"


def test_arrival_is_told_by_both_clocks() -> None:
    live = source(Camera([0, 1, 2]))
    live.start()
    captures = [frame.capture for frame in take(live, 3)]
    live.close()
    clocks = [capture.clock for capture in captures if capture is not None and capture.clock is not None]
    assert clocks == sorted(clocks)
    assert len(clocks) == 3


def test_frames_after_lost_data_are_marked() -> None:
    live = source(Camera([0, -1, -2, 3]))
    live.start()
    frames = take(live, 4)
    live.close()
    assert [frame.capture.doubtful for frame in frames if frame.capture] == [False, True, True, False]
    assert live.doubtful == 2


@pytest.mark.parametrize("policy", ["drop_oldest", "drop_latest"])
def test_a_slow_reader_loses_frames_and_knows_how_many(policy: str) -> None:
    played = threading.Event()

    class Once(Camera):
        def __call__(self, address: str | Path, options: SourceOptions) -> VideoSource:
            if not self._connections:
                played.set()
            return super().__call__(address, options)

    options = LiveOptions(policy=policy, room=3, first_delay=0.01, longest_delay=0.01)  # type: ignore[arg-type]
    live = source(Once(list(range(40))), options)
    live.start()
    assert played.wait(10)  # all 40 were captured when the next connection is asked for
    frames = take(live, 3)
    live.close()
    assert [frame.index for frame in frames] == ([37, 38, 39] if policy == "drop_oldest" else [0, 1, 2])
    assert (live.captured, live.taken, live.dropped) == (40, 3, 37)


def test_a_file_ends_once_and_what_waits_can_still_be_taken(tmp_path: Path) -> None:
    changes: list[None] = []
    options = LiveOptions(policy="wait", room=100, real_time=False)
    live = LiveSource(encode(tmp_path / "a.mp4"), options, on_change=lambda: changes.append(None))
    live.start()
    frames = []
    while (frame := live.get(10)) is not None:
        frames.append(frame)
    assert [frame.index for frame in frames] == list(range(20))
    assert live.ended
    assert live.error is None
    assert len(changes) == 21
    assert live.close()


def test_a_file_that_is_none_ends_with_its_error(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"hello " * 100)
    live = LiveSource(tmp_path / "a.mp4")
    live.start()
    assert live.get(10) is None
    assert live.ended
    assert "cannot be opened as video" in str(live.error)


def test_a_connection_that_failed_keeps_no_decoder(tmp_path: Path) -> None:
    """Without a collection of cycles: nothing else calls one in time."""
    path, videos = encode(tmp_path / "a.ts", frames=5), []

    def opener(address: str | Path, options: SourceOptions) -> VideoSource:
        if videos:
            raise VideoError("gone")
        video = open_source(path)
        videos.append(weakref.ref(video))
        return video

    gc.disable()
    try:
        live = LiveSource("rtsp://cam/1", AT_ONCE, opener=opener)
        live.start()
        take(live, 5)
        while live.failures < 3:
            live.get(0.01)
        assert videos[0]() is None
    finally:
        gc.enable()
        assert live.close(10)


def test_an_unexpected_error_ends_no_thread_without_a_word() -> None:
    calls = []

    def opener(address: str | Path, options: SourceOptions) -> VideoSource:
        calls.append(address)
        if len(calls) == 1:
            raise MemoryError("no room")
        return Played(iter([0]))

    live = LiveSource("rtsp://cam/1", AT_ONCE, opener=opener)
    live.start()
    assert len(take(live, 1)) == 1
    live.close()
    assert live.failures >= 1


def test_a_listener_that_raises_stops_no_reader() -> None:
    def listen() -> None:
        raise RuntimeError("not now")

    live = LiveSource("rtsp://cam/1", AT_ONCE, on_change=listen, opener=Camera([0, 1, 2]))
    live.start()
    assert [frame.index for frame in take(live, 3)] == [0, 1, 2]
    assert live.close(10)


def test_delays_double_up_to_the_limit_and_vary() -> None:
    live = LiveSource("rtsp://cam/1", LiveOptions(first_delay=1.0, longest_delay=10.0))
    for attempt, longest in ((1, 1.0), (2, 2.0), (3, 4.0), (4, 8.0), (5, 10.0), (4000, 10.0)):
        delays = {live._delay(attempt) for _ in range(200)}
        assert longest / 2 <= min(delays) < max(delays) <= longest
        assert len(delays) > 100


def test_a_failure_that_lasts_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    reasons = iter(["refused", "refused", "refused", "401", "refused"])
    over = threading.Event()

    def fail(address: object, options: SourceOptions) -> VideoSource:
        reason = next(reasons, None)
        if reason is None:
            over.set()
        raise VideoError(f"cam: {reason}")

    live = LiveSource("rtsp://cam/1", AT_ONCE, opener=fail)
    with caplog.at_level(logging.WARNING, "rdn_engine.media"):
        live.start()
        assert over.wait(30)
        assert live.close(30)
    said = [record.getMessage().partition(";")[0] for record in caplog.records]
    assert said[:3] == ["cam: refused", "cam: 401", "cam: refused"]
    assert len(said) <= 4, "and the one that goes on for ever"


def test_close_waits_no_longer_than_it_is_told() -> None:
    """A reader that hangs in a read, as one of FFmpeg may."""
    hang, closed = threading.Event(), []

    class Hanging(Played):
        def _frames(self) -> Iterator[Frame]:
            yield Frame(IMAGE, 0, None, "cam")
            hang.wait(30)

        def close(self) -> None:
            closed.append(self)
            super().close()

    live = LiveSource("rtsp://cam/1", AT_ONCE, opener=lambda address, options: Hanging(iter(())))
    live.start()
    take(live, 1)
    assert not live.close(0.05)
    assert not closed
    hang.set()
    assert live.close(10)
    assert set(closed) == {closed[0]}


def test_a_server_that_comes_back_is_another_session(tmp_path: Path) -> None:
    data = encode(tmp_path / "a.ts", frames=10).read_bytes()
    options = LiveOptions("wait", first_delay=0.01, longest_delay=0.01, source=SourceOptions(timeout=5.0))
    with serving(http(data, length=len(data), closes=True)) as server:
        live = LiveSource(f"http://127.0.0.1:{server.port}/a.ts", options)
        live.start()
        frames = take(live, 25)
        assert live.close(10)
    assert [frame.index for frame in frames] == list(range(25))
    assert [frame.capture.session for frame in frames if frame.capture] == [0] * 10 + [1] * 10 + [2] * 5


@pytest.mark.parametrize(
    ("field", "value"), [("policy", "drop"), ("room", 0), ("first_delay", -1.0), ("longest_delay", "x")]
)
def test_options_out_of_range_are_refused(field: str, value: object) -> None:
    with pytest.raises(ConfigError, match=rf"live\.{field} is {value!r}; wanted"):
        LiveOptions(**{field: value})  # type: ignore[arg-type]


LEFT_OPEN = """
import socket, sys
from rdn_engine import LiveOptions, LiveSource, SourceOptions

silent = socket.create_server(("127.0.0.1", 0))
options = LiveOptions(source=SourceOptions(timeout=0.5))
live = LiveSource(f"http://127.0.0.1:{silent.getsockname()[1]}/a.ts", options)
live.start()
connection, _ = silent.accept()
connection.recv(1000)
print("reading")
"""


def test_a_source_that_is_left_open_does_not_outlive_the_interpreter() -> None:
    """Its reader waits in FFmpeg, which asks Python whether to go on."""
    done = subprocess.run([sys.executable, "-c", LEFT_OPEN], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (0, "reading\n"), done.stderr
