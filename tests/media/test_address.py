"""Nothing secret of an address is ever printed."""

from __future__ import annotations

import string
import traceback

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rdn_engine.errors import VideoError
from rdn_engine.media.address import hide_sources, without_credentials
from rdn_engine.media.source import open_source

PLAIN = {
    "rtsp://cam:554/live/1": "rtsp://cam:554/live/1",
    "rtsp://[fe80::1%25eth0]:8554/a": "rtsp://[fe80::1%25eth0]:8554/a",
    "http://key.example.com/keynote/user/pass.mp4": "http://key.example.com/keynote/user/pass.mp4",
    "file:///tmp/a b.mp4": "file:///tmp/a b.mp4",
    "srt://cam:9000": "srt://cam:9000",
    "file:///tmp/a@b?c.mp4": "file:///tmp/a@b?c.mp4",
    "cam@home/lr=0.1/12:30.mp4": "cam@home/lr=0.1/12:30.mp4",
    "lr=0.1/[0-9]?.png": "lr=0.1/[0-9]?.png",
}

SECRET = {
    "rtsp://admin:hush@cam:554/live/1": "rtsp://cam:554/live/1",
    "rtsp://admin:hu@sh@cam/1": "rtsp://cam/1",
    "rtsp://admin:hu#sh@cam/1": "rtsp://...",
    "rtsp://admin:hu/s?h@cam/1": "rtsp://...",
    "rtsp://1/hush:2@cam/1": "rtsp://...",
    "rtsp://admin:p@hush/2@cam/1": "rtsp://...",
    "rtsp://admin:2/3@cam/1?pwd=p@hush": "rtsp://...",
    "rtsp://cam:554/a?user=admin&pwd=p@hush": "rtsp://...",
    "rtsp://fe80::1/a?user=admin&pwd=p@hush": "rtsp://...",
    "rtsp://cam:/a;user=admin;pwd=p@hush": "rtsp://...",
    "rtsp://cam;pwd=hush/1": "rtsp://...",
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
    "rtsp://cam/live/pw=a/hush/1": "rtsp://cam/live/...",
    "rtsp://cam/cred=hush": "rtsp://cam/...",
    "rtsp://cam/kennwort%253dhush": "rtsp://cam/...",
    "rtsp://admin:hu\nsh@cam/1": "rtsp://cam/1",
    "srt://cam:9000?passphrase=hush": "srt://cam:9000",
    "rtsp://admin:hush": "rtsp://...",
    "rtsp://admin:hush cam/1": "rtsp://...",
    "://admin:hush@cam": "...://cam",
}


NOTHING = "... (not shown, as it may hold a password)"

MISTYPED = (
    "rtsp:/admin:hush@cam/1",
    "rtsp//admin:hush@cam/1",
    "rtsp:\\\\admin:hush@cam/1",
    "admin:hush@cam/1",
    "admin%3Ahush@cam/1",
    ":hush@cam",
    "rtsp:/cam/1?user=admin&pwd=hush",
    "rtsp:/cam/user=admin_password=hush_channel=1_stream=0.sdp",
    "rtsp//cam/a.sdp%3Fpwd%3Dhush",
    "cam/1?user=admin&pwd=hush",
    "file:/admin:hush@cam/1",
)
"""What has no `://` and was meant as an address"""


@pytest.mark.parametrize("address", PLAIN)
def test_what_is_no_secret_stays(address: str) -> None:
    assert without_credentials(address) == PLAIN[address]


@pytest.mark.parametrize("address", SECRET)
def test_credentials_go_wherever_they_stand(address: str) -> None:
    assert without_credentials(address) == SECRET[address]


@pytest.mark.parametrize("address", MISTYPED)
def test_of_a_mistyped_address_nothing_is_left(address: str) -> None:
    assert without_credentials(address) == NOTHING
    assert "hush" not in without_credentials(f"file://{address}")


MARK = "S3cret"
PLACES = (
    "rtsp://{}:x@cam/live",
    "rtsp://x:{}@cam:554/live",
    "rtsp://{}@cam:554/live",
    "rtsp://x:{}@[::1]:8/live?a=1",
    "rtsp://x:y@cam/live?user=x&pwd={}&channel=1",
    "rtsp://cam/live?pwd={}",
    "rtsp://cam:554/pwd={}/1",
    "rtsp://cam/a&user=x&pw={}",
    "rtsp://fe80::1/a?pwd={}",
    "rtsp://cam:/a#auth={}",
    "rtsp:/x:{}@cam/1",
    "rtsp//x:{}@cam/1",
    "x:{}@cam/1",
    "rtsp:/cam/1?pwd={}",
    "file://x:{}@cam/1",
)
"""Where an address holds a secret"""
TEXT = st.text(string.printable + "\udcff€", max_size=8)


def said(error: BaseException | None) -> str:
    """All that an error and those before it hold."""
    return "" if error is None else f"{error} {error!r} {error.args!r}" + said(error.__context__ or error.__cause__)


@settings(deadline=None, max_examples=300)
@given(st.sampled_from(PLACES), TEXT, TEXT)
def test_a_secret_may_hold_any_character(place: str, before: str, behind: str) -> None:
    address = place.format(f"{before}{MARK}{behind}")
    assert MARK not in without_credentials(address)
    # No protocol that FFmpeg knows: nothing is asked for.
    with pytest.raises(VideoError) as caught:
        open_source(address.replace("rtsp", "nonsense"))
    assert MARK not in said(caught.value)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("character", string.printable)
def test_every_character_beside_a_secret_and_inside(place: str, character: str) -> None:
    for secret in (character + MARK, MARK + character, f"a{character}{MARK}{character}b", character * 2 + MARK):
        assert MARK not in without_credentials(place.format(secret))


@pytest.mark.parametrize("host", ["cam", "cam:554", "[::1]:8"])
@given(password=st.text(sorted({*string.printable, "\udcff", "€"} - {*"/?#"}), max_size=30))
def test_host_and_path_stay_beside_a_usual_password(host: str, password: str) -> None:
    assert without_credentials(f"rtsp://admin:{password}@{host}/live?x=1") == f"rtsp://{host}/live"


@pytest.mark.parametrize("address", SECRET)
def test_neither_error_nor_traceback_of_a_source_names_them(address: str) -> None:
    bad = address.replace("rtsp:", "nonsense:").replace("http:", "nonsense:").replace("srt:", "nonsense:")
    with pytest.raises(VideoError) as caught:
        open_source(bad)
    assert "hush" not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("address", MISTYPED)
def test_neither_does_the_error_of_a_source_that_does_not_exist(address: str) -> None:
    for source in (address, [address], [address.encode()], address.encode(), {address: 1}):
        with pytest.raises(VideoError) as caught:
            open_source(source)  # type: ignore[arg-type]
        assert "hush" not in said(caught.value), source


def test_message_hides_what_was_typed_and_nothing_else() -> None:
    typed = ["info", "rtsp://u:p'a\n@h/1", "rtsp://u:p'a\n@h/1/2", "--x=u:hush@h", "--y", "a@b:c"]
    message = f"No {typed[1]!r} in 'info' or {typed[2]} with 'u:hush@h'; wanted a/b: c --y a@b:c"
    assert hide_sources(message, typed) == (
        f"No \"rtsp://h/1\" in 'info' or rtsp://h/1/2 with '{NOTHING}'; wanted a/b: c --y a@b:c"
    )
