"""Nothing secret of an address is ever printed."""

from __future__ import annotations

import string
import traceback

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rdn_engine.errors import VideoError
from rdn_engine.media.address import hide_addresses, without_credentials
from rdn_engine.media.source import open_source

PLAIN = {
    "rtsp://cam:554/live/1": "rtsp://cam:554/live/1",
    "rtsp://[fe80::1%25eth0]:8554/a": "rtsp://[fe80::1%25eth0]:8554/a",
    "http://key.example.com/keynote/user/pass.mp4": "http://key.example.com/keynote/user/pass.mp4",
    "file:///tmp/a b.mp4": "file:///tmp/a b.mp4",
    "srt://cam:9000": "srt://cam:9000",
}

SECRET = {
    "rtsp://admin:hush@cam:554/live/1": "rtsp://cam:554/live/1",
    "rtsp://admin:hu@sh@cam/1": "rtsp://cam/1",
    "rtsp://admin:hu#sh@cam/1": "rtsp://cam/1",
    "rtsp://admin:hu/s?h@cam/1": "rtsp://cam/1",
    "rtsp://admin:[hush@[::1]:554/1": "rtsp://[::1]:554/1",
    "rtsp://admin:hush]@cam/1": "rtsp://cam/1",
    "rtsp://admin:h u\\s%h@cam/1": "rtsp://cam/1",
    "rtsp://cam/1?user=admin&pwd=hush": "rtsp://cam/1",
    "rtsp://cam/1?auth=aHVzaA==#hush": "rtsp://cam/1",
    "rtsp://cam/cam/realmonitor?channel=1&subtype=0&password=hush": "rtsp://cam/cam/realmonitor",
    "http://cam/videostream.cgi?loginuse=admin&loginpas=hush": "http://cam/videostream.cgi",
    "rtsp://cam:554/user=admin_password=hush_channel=1_stream=0.sdp?real_stream": "rtsp://cam:554/...",
    "rtsp://cam:554//user=admin&password=hush&channel=1": "rtsp://cam:554//...",
    "rtsp://cam/live/USER%3Dadmin%26PWD%3Dhush/1": "rtsp://cam/live/...",
    "rtsp://cam/live;pwd=hush/1": "rtsp://cam/live",
    "srt://cam:9000?passphrase=hush": "srt://cam:9000",
    "rtsp://admin:hush": "rtsp://...",
    "rtsp://admin:hush cam/1": "rtsp://...",
    "://admin:hush@cam": "...://cam",
}


@pytest.mark.parametrize("address", PLAIN)
def test_what_is_no_secret_stays(address: str) -> None:
    assert without_credentials(address) == PLAIN[address]


@pytest.mark.parametrize("address", SECRET)
def test_credentials_go_wherever_they_stand(address: str) -> None:
    assert without_credentials(address) == SECRET[address]
    assert "hush" not in hide_addresses(f"No such command '{address}'.")


@given(st.text(string.printable + "\udcff€", max_size=30), st.sampled_from(["cam", "cam:554", "[::1]:8"]))
def test_password_may_hold_any_character(password: str, host: str) -> None:
    found = without_credentials(f"rtsp://admin:{password}@{host}/live?x=1")
    assert found == f"rtsp://{host}/live"


@pytest.mark.parametrize("address", SECRET)
def test_neither_error_nor_traceback_of_a_source_names_them(address: str) -> None:
    bad = address.replace("rtsp:", "nonsense:").replace("http:", "nonsense:").replace("srt:", "nonsense:")
    with pytest.raises(VideoError) as caught:
        open_source(bad)
    assert "hush" not in "".join(traceback.format_exception(caught.value))


def test_other_text_is_left_alone() -> None:
    assert hide_addresses("got 3; wanted a/b: c") == "got 3; wanted a/b: c"
    assert hide_addresses("first\nrtsp://u:p@h/1\nlast") == "first\nrtsp://h/1\nlast"
