"""Cameras in processes of their own, which tests kill, stop and command."""

from __future__ import annotations

import functools
import signal
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import IO, Self

import pytest

HERE = Path(__file__).parent
SYSTEM_PYTHON = "/usr/bin/python3"
_CHECK = """
import gi
gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import Gst, GstRtspServer
Gst.init(None)
wanted = ("videotestsrc", "videoscale", "x264enc", "rtph264pay", "identity", "capsfilter")
raise SystemExit(not all(Gst.ElementFactory.find(name) for name in wanted))
"""


@functools.cache
def has_rtsp() -> bool:
    """Whether this machine has GStreamer's RTSP server (scripts/test_servers.sh installs it)."""
    if not Path(SYSTEM_PYTHON).exists():
        return False
    done = subprocess.run([SYSTEM_PYTHON, "-c", _CHECK], capture_output=True, timeout=120, check=False)
    return done.returncode == 0


def needs_rtsp() -> None:
    """Skip a test where there is no RTSP server."""
    if not has_rtsp():
        pytest.skip("no RTSP server here; scripts/test_servers.sh installs one on Debian and Ubuntu")


class CameraProcess:
    """A server that listens, until the context ends."""

    def __init__(self, command: list[str], scheme: str, options: dict[str, object]) -> None:
        """Start it, and wait until it can be connected to.

        Args:
            command: without its options.
            scheme: of its address.
            options: of the command, by name; a port of 0 is any free one, the same again after `restart`.
        """
        self._command, self._scheme, self._options = command, scheme, {"port": 0} | options
        self._process = self._start()

    def address(self, path: str, user: str = "") -> str:
        """What a client connects to.

        Args:
            path: after the slash.
            user: and password, as they stand before the `@`.
        """
        return f"{self._scheme}://{user}{'@' if user else ''}127.0.0.1:{self._options['port']}/{path}"

    def tell(self, command: str) -> None:
        """Have it do something, and wait until it has.

        Args:
            command: as its docstring says.
        """
        assert self._process.stdin is not None
        print(command, file=self._process.stdin, flush=True)
        assert self._line() == "done"

    def kill(self) -> None:
        """SIGKILL: its connections break."""
        self._process.kill()
        self._process.wait(60)
        self._close_pipes()

    def stop(self) -> None:
        """SIGSTOP: it says nothing more, and its connections stay."""
        self._process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """SIGCONT."""
        self._process.send_signal(signal.SIGCONT)

    def restart(self) -> None:
        """Start it again on the same port, after `kill`."""
        self._process = self._start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process.poll() is None:
            self.kill()

    def _start(self) -> subprocess.Popen[str]:
        options = [f"--{name}={value}" for name, value in self._options.items()]
        pipe = subprocess.PIPE
        process = subprocess.Popen([*self._command, *options], stdin=pipe, stdout=pipe, text=True)
        self._process = process
        self._options["port"] = int(self._line())
        return process

    def _line(self) -> str:
        file: IO[str] | None = self._process.stdout
        assert file is not None
        line = file.readline().strip()
        assert line, f"{self._command} ended with {self._process.wait(60)}"
        return line

    def _close_pipes(self) -> None:
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()


def rtsp_camera(**options: object) -> CameraProcess:
    """As `rtsp_server.py` says, at `rtsp://.../cam`.

    Args:
        options: rate, keys, bitrate, loss, user, password.
    """
    return CameraProcess([SYSTEM_PYTHON, str(HERE / "rtsp_server.py")], "rtsp", options)


def http_camera(**options: object) -> CameraProcess:
    """As `http_server.py` says, at `http://.../cam.mjpg` and `http://.../cam.ts`.

    Args:
        options: rate.
    """
    return CameraProcess([sys.executable, str(HERE / "http_server.py")], "http", options)
