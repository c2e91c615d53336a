"""Opening: what is refused, and what is said of it."""

from __future__ import annotations

import itertools
import re
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from rdn_engine.errors import ConfigError, VideoError
from rdn_engine.frame import Frame
from rdn_engine.media.base import SourceOptions
from rdn_engine.media.source import open_source
from tests.media.clips import encode, read
from tests.media.servers import http, serving

SHORT = SourceOptions(timeout=0.4)


def silent(connection: socket.socket) -> None:
    """takes the request and never answers"""


def test_file_cannot_name_further_inputs_on_the_network(tmp_path: Path) -> None:
    playlist = "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nhttp://127.0.0.1:9/a.ts\n#EXT-X-ENDLIST\n"
    (tmp_path / "a.m3u8").write_text(playlist)
    with pytest.raises(VideoError):
        read(tmp_path / "a.m3u8")


@pytest.mark.parametrize("protocol", ["http", "tcp", "rtsp"])
def test_a_server_that_never_answers_is_silent(protocol: str) -> None:
    with serving(silent) as server:
        address = f"{protocol}://127.0.0.1:{server.port}/a.ts"
        with pytest.raises(VideoError, match=rf"{re.escape(address)} cannot be opened .*: it was silent for 0\.4 s"):
            open_source(address, SHORT)
        assert server.connections == 1


def test_a_server_that_stops_is_silent_after_what_came(tmp_path: Path) -> None:
    data = encode(tmp_path / "a.ts", frames=60, grain=60).read_bytes()
    frames: list[Frame] = []
    with serving(http(data[: len(data) // 2])) as server:
        with open_source(f"http://127.0.0.1:{server.port}/a.ts", SHORT) as video, pytest.raises(VideoError) as caught:
            frames.extend(video)
        assert f"reading stopped after {len(frames)} frames: it was silent for 0.4 s" in str(caught.value)
        assert server.connections == 1
    assert len(frames) > 10


def test_a_server_that_refuses_says_so() -> None:
    with serving(silent) as server:
        port = server.port
    with pytest.raises(VideoError, match="Connection refused"):
        open_source(f"http://127.0.0.1:{port}/a.ts", SHORT)


LIMITED = """
import os, resource, sys
from rdn_engine import VideoError, open_source

with open_source(sys.argv[1]) as video:
    print(len(list(video)))
if os.getuid() == 0:  # whom the limit does not hold
    os.setgid(64123)
    os.setuid(64123)
resource.setrlimit(resource.RLIMIT_NPROC, (1, 1))
try:
    open_source(sys.argv[1])
except VideoError as error:
    print(error)
"""


def test_a_system_that_refuses_threads_damages_no_frame() -> None:
    """In a process of its own, which takes the limit on its user's threads."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)  # for another user, where this one is root
        path = encode(Path(folder) / "a.mp4")
        command = [sys.executable, "-c", LIMITED, str(path)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "20",
        f"{path} cannot be decoded: h264 is refused its threads by the system; "
        "wanted a higher limit (ulimit -u, a container's pids limit)",
    ]


@pytest.mark.parametrize("name", ["a.mp4", "a.mov"])
def test_a_recording_without_its_index_says_so(tmp_path: Path, name: str) -> None:
    path = encode(tmp_path / name, grain=60)
    data = path.read_bytes()
    path.write_bytes(data[: data.rindex(b"moov") - 4])
    with pytest.raises(VideoError, match=r"no index \(moov box\)"):
        open_source(path)


def test_what_is_no_mp4_is_not_said_to_lack_an_index(tmp_path: Path) -> None:
    absurd = b"\0\0\0\x01ftyp" + b"\xff" * 8 + b"x" * 100
    for data in (b"hello " * 100, bytes(1000), absurd, b"\0\0\0\x18ftypisom" + bytes(3)):
        (tmp_path / "a.mp4").write_bytes(data)
        with pytest.raises(VideoError) as caught:
            open_source(tmp_path / "a.mp4")
        assert ("moov" in str(caught.value)) == data.startswith(b"\0\0\0\x18ftyp")


def test_no_error_keeps_the_address_that_failed() -> None:
    with serving(silent) as server:
        port = server.port
    with pytest.raises(VideoError) as caught:
        open_source(f"http://user:secret@127.0.0.1:{port}/a.ts", SHORT)
    error: BaseException | None = caught.value
    while error is not None:
        assert "secret" not in repr(error) + str(error.args)
        error = error.__cause__ or error.__context__


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("timeout", 0.0),
        ("timeout", -1.0),
        ("timeout", float("inf")),
        ("timeout", "x"),
        ("video_stream", -1),
        ("video_stream", "a"),
        ("deinterlace", "yes"),
        ("square_pixels", 1),
    ],
)
def test_options_of_another_type_or_out_of_range_are_refused(field: str, value: object) -> None:
    with pytest.raises(ConfigError, match=rf"options\.{field} is {value!r}; wanted"):
        SourceOptions(**{field: value})  # type: ignore[arg-type]


def test_pictures_of_a_live_stream_without_times_have_their_time_of_arrival(tmp_path: Path) -> None:
    jpeg = encode(tmp_path / "a.jpg", "mjpeg", 1, container_options={"update": "1"}).read_bytes()
    part = b"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n%s\r\n" % (len(jpeg), jpeg)
    body = part * 8 + b"--frame--\r\n"
    kind = "multipart/x-mixed-replace;boundary=frame"
    frames: list[Frame] = []
    with (
        serving(http(body, kind)) as server,
        open_source(f"http://127.0.0.1:{server.port}/", SHORT) as video,
        pytest.raises(VideoError, match="silent"),
    ):
        frames.extend(video)
    times = [frame.pts or 0.0 for frame in frames]
    assert len(times) >= 7
    assert times[0] == 0.0
    # All were sent at once, so that made-up times of 25 frames per second would be far apart.
    assert all(later >= earlier for earlier, later in itertools.pairwise(times))
    assert times[-1] != pytest.approx((len(times) - 1) / 25, abs=1e-6)
