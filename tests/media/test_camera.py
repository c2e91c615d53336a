"""Video devices: what is asked of FFmpeg, and what is said where it fails. No camera is wanted here."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import Any

import av
import pytest

from rdn_engine.errors import ConfigError, VideoError
from rdn_engine.media import camera
from rdn_engine.media.base import SourceOptions
from rdn_engine.media.camera import device_path, is_device
from rdn_engine.media.live import LiveOptions, LiveSource
from rdn_engine.media.source import open_source
from tests.media.clips import encode

WAIT = 60.0


class Devices:
    """In place of `av.open`: every device is a clip, or an error of the system."""

    def __init__(self, clip: Path, *errors: int) -> None:
        self._clip, self._errors = clip, list(errors)
        self.asked: list[tuple[str, dict[str, Any]]] = []

    def __call__(self, path: str, **asked: Any) -> Any:
        self.asked.append((path, asked))
        if self._errors:
            raise OSError(self._errors.pop(0), "as the system says")
        return _open(str(self._clip))


_open = av.open


@pytest.mark.parametrize(
    ("given", "path"),
    [(0, "/dev/video0"), ("0", "/dev/video0"), ("63", "/dev/video63"), (64, None), ("64", None), ("a", None),
     (True, None), (-1, None), ("٣", None), ("", None), ("./0", None)],
)  # fmt: skip
def test_a_plain_number_is_a_device(given: object, path: str | None) -> None:
    assert device_path(given) == path


def test_devices_are_known_by_name() -> None:
    assert is_device("/dev/video12")
    assert is_device("/dev/v4l/by-id/usb-cam-index0")
    assert not is_device("/dev/videos")
    assert not is_device("dev/video0")
    assert not is_device("/dev/null")


def test_a_device_of_another_name_is_known_by_its_kind(tmp_path: Path) -> None:
    try:
        os.mknod(tmp_path / "door", stat.S_IFCHR | 0o600, os.makedev(81, 200))
    except PermissionError:
        pytest.skip("only root makes devices")
    (tmp_path / "link").symlink_to(tmp_path / "door")
    assert is_device(str(tmp_path / "link"))
    assert not is_device(str(tmp_path))
    with pytest.raises(VideoError, match="cannot be opened as a camera"):
        open_source(tmp_path / "link")


def test_what_is_asked_of_a_camera(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    devices = Devices(encode(tmp_path / "a.mp4", frames=5))
    monkeypatch.setattr(camera.av, "open", devices)
    options = SourceOptions(camera_size=(640, 480), camera_fps=30.0, camera_format="mjpeg", timeout=3.0)
    with open_source("/dev/video7", options) as video:
        frames = list(video)
    assert [frame.source_id for frame in frames] == ["/dev/video7"] * 5
    asked = {"video_size": "640x480", "framerate": "30", "input_format": "mjpeg"}
    assert devices.asked == [("/dev/video7", {"mode": "r", "format": "v4l2", "options": asked, "timeout": 3.0})]
    with open_source("/dev/video7") as video:
        assert len(list(video)) == 5
    assert devices.asked[1][1]["options"] == {}


def test_a_camera_that_is_unplugged_is_live_and_comes_back(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    devices = Devices(encode(tmp_path / "a.mp4", frames=5), errno.ENOENT, errno.EBUSY)
    monkeypatch.setattr(camera.av, "open", devices)
    live = LiveSource(2, LiveOptions("wait", first_delay=0.01, longest_delay=0.01))
    assert live.source_id == "/dev/video2"
    live.start()
    frames = [live.get(WAIT) for _ in range(12)]
    assert [frame.index for frame in frames if frame is not None] == list(range(12))
    assert live.close(WAIT)
    assert live.sessions >= 3
    assert live.failures >= 4


@pytest.mark.parametrize(
    ("number", "said"),
    [(errno.ENOENT, "no such device"), (errno.EBUSY, "another program"), (errno.ENODEV, "captures no video"),
     (errno.EACCES, "group `video`"), (errno.ENOTTY, "no video device"), (errno.EINVAL, "does not take these settings"),
     (errno.EIO, "as the system says")],
)  # fmt: skip
def test_a_camera_that_cannot_be_opened_says_why(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, number: int, said: str
) -> None:
    monkeypatch.setattr(camera.av, "open", Devices(tmp_path, number))
    with pytest.raises(VideoError, match=rf"^/dev/video0 cannot be opened as a camera: .*{said}"):
        open_source("/dev/video0")


def test_ffmpeg_s_own_errors_are_told_apart(tmp_path: Path) -> None:
    """Its demuxer is asked, about what is no device."""
    with pytest.raises(VideoError, match="no such device"):
        open_source("/dev/video63000")
    with pytest.raises(VideoError, match="no video device"):
        camera.open_camera(str(encode(tmp_path / "a.mp4")), SourceOptions())


def test_a_number_elsewhere_is_a_file() -> None:
    with pytest.raises(VideoError, match=r"^0 does not exist; .*; a camera is /dev/video0$"):
        open_source("0")


@pytest.mark.parametrize(
    "wrong", [{"camera_size": (0, 480)}, {"camera_size": (640,)}, {"camera_fps": 0.0}, {"camera_format": 3}]
)
def test_settings_have_ranges(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=f"options.{next(iter(wrong))} is"):
        SourceOptions(**wrong)
