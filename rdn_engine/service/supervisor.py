"""What systemd is told, where it started the service as `Type=notify` (sd_notify(3), systemd.service(5))."""

from __future__ import annotations

import contextlib
import os
import socket
import time


class Supervisor:
    """Tells the socket of NOTIFY_SOCKET; without one, nobody."""

    def __init__(self) -> None:
        address = os.environ.get("NOTIFY_SOCKET", "")
        # An address of the abstract name space begins with a zero byte, which no variable can hold.
        self._address = "\0" + address[1:] if address.startswith("@") else address
        microseconds = os.environ.get("WATCHDOG_USEC", "")
        mine = os.environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        self._interval = int(microseconds) / 2e6 if mine and microseconds.isdecimal() else None
        self._next = 0.0

    def ready(self) -> None:
        """The streams were started."""
        self._tell("READY=1")

    def alive(self, healthy: bool) -> None:
        """Call it a few times a second.

        Args:
            healthy: False keeps silent, and the watchdog starts the service again.
        """
        now = time.monotonic()
        if self._interval is not None and healthy and now >= self._next:
            self._next = now + self._interval
            self._tell("WATCHDOG=1")

    def stopping(self) -> None:
        """The service was told to stop."""
        self._tell("STOPPING=1")

    def _tell(self, state: str) -> None:
        if self._address:
            with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told:
                told.setblocking(False)  # one that does not read must not keep the service from its end
                told.sendto(state.encode(), self._address)
