"""An RTSP camera on 127.0.0.1 whose faults are commands. Run by Debian's /usr/bin/python3, which has GStreamer.

Packages: python3-gi gir1.2-gst-rtsp-server-1.0 gstreamer1.0-plugins-{base,good,bad,ugly} gstreamer1.0-rtsp. The stream
is live: a shared file would be rewound for all by a second client's PLAY. It prints its port once it can be connected
to. Lines on stdin: `size WIDTH HEIGHT` changes the picture, `loss SHARE` drops RTP packets, `quit` or the end of stdin
ends it. Anything worse is done to the process: SIGKILL, SIGSTOP.
"""

from __future__ import annotations

import argparse
import sys
from typing import Any

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer  # noqa: E402

PIPELINE = (
    "( videotestsrc is-live=true pattern=ball ! video/x-raw,framerate={rate}/1"
    " ! videoscale ! capsfilter name=size caps=video/x-raw,width=320,height=240"
    " ! x264enc tune=zerolatency speed-preset=ultrafast threads=1 key-int-max={keys} bitrate={bitrate}"
    " ! rtph264pay name=pay config-interval=1 mtu=400 ! identity name=pay0 drop-probability={loss} )"
)


class Camera:
    """The server, and the media that its clients share."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self._server = GstRtspServer.RTSPServer()
        self._server.set_address("127.0.0.1")
        self._server.set_service(str(arguments.port))
        self._media: Any = None
        self._loop = GLib.MainLoop()
        factory = GstRtspServer.RTSPMediaFactory()
        factory.set_launch(
            PIPELINE.format(rate=arguments.rate, keys=arguments.keys, bitrate=arguments.bitrate, loss=arguments.loss)
        )
        factory.set_shared(True)
        factory.connect("media-configure", self._configured)
        if arguments.user is not None:
            self._ask_for(factory, arguments.user, arguments.password)
        self._server.get_mount_points().add_factory("/cam", factory)

    def run(self) -> None:
        """Serve until stdin ends."""
        self._server.attach(None)
        GLib.io_add_watch(GLib.IOChannel(0), GLib.PRIORITY_DEFAULT, GLib.IO_IN | GLib.IO_HUP, self._command)
        print(self._server.get_bound_port(), flush=True)
        self._loop.run()

    def _ask_for(self, factory: Any, user: str, password: str) -> None:
        """401 without them."""
        auth = GstRtspServer.RTSPAuth()
        token = GstRtspServer.RTSPToken()
        token.set_string(GstRtspServer.RTSP_TOKEN_MEDIA_FACTORY_ROLE, "viewer")
        auth.add_basic(GstRtspServer.RTSPAuth.make_basic(user, password), token)
        self._server.set_auth(auth)
        permissions = GstRtspServer.RTSPPermissions()
        permissions.add_permission_for_role("viewer", GstRtspServer.RTSP_PERM_MEDIA_FACTORY_ACCESS, True)
        permissions.add_permission_for_role("viewer", GstRtspServer.RTSP_PERM_MEDIA_FACTORY_CONSTRUCT, True)
        factory.set_permissions(permissions)

    def _configured(self, factory: Any, media: Any) -> None:
        self._media = media.get_element()

    def _command(self, *_: object) -> bool:
        words = sys.stdin.readline().split()
        if not words or words[0] == "quit":
            self._loop.quit()
            return False
        if self._media is not None and words[0] == "size":
            caps = Gst.Caps.from_string(f"video/x-raw,width={words[1]},height={words[2]}")
            self._media.get_by_name("size").set_property("caps", caps)
        elif self._media is not None and words[0] == "loss":
            self._media.get_by_name("pay0").set_property("drop-probability", float(words[1]))
        print("done", flush=True)
        return True


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--rate", type=int, default=25)
    parser.add_argument("--keys", type=int, default=25)
    parser.add_argument("--bitrate", type=int, default=500)
    parser.add_argument("--loss", type=float, default=0.0)
    parser.add_argument("--user")
    parser.add_argument("--password", default="")
    arguments = parser.parse_args()
    Gst.init(None)
    Camera(arguments).run()


if __name__ == "__main__":
    main()
