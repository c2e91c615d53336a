"""What is quoted of what a user typed: no password, wherever it stands."""

from __future__ import annotations

import http.server
import re
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from rdn_engine.cli.exits import BAD_INPUT, USAGE
from tests.cli.commands import finish, lines, run, start, write_video
from tests.media.clips import encode

SECRET = "hush"


@pytest.mark.usefixtures("fake")
def test_predict_takes_a_source_from_a_file(tmp_path: Path) -> None:
    video, out = write_video(tmp_path / "a.mp4"), tmp_path / "o.jsonl"
    (tmp_path / "source").write_text(f"{video}\n")
    assert run("predict", f"@{tmp_path}/source", "--engines", tmp_path, "--output", out).exit_code == 0
    assert {d["source_id"] for d in lines(out)} == {str(video)}
    result = run("predict", f"@{tmp_path}/none", "--engines", tmp_path)
    assert (result.exit_code, result.stderr) == (1, f"rdn-engine: {tmp_path}/none: No such file or directory\n")


@pytest.mark.parametrize("address", ["rtsp://u:hush@h", "u:hush@h/1", "rtsp:/u:hush@h/a", "cam/1?pwd=hush"])
def test_predict_quotes_no_address_in_the_place_of_a_name(address: str) -> None:
    for prefix in ("env:", "@"):
        result = run("predict", f"{prefix}{address}", "--engines", ".")
        assert result.exit_code in (1, USAGE)
        assert SECRET not in result.output


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        (("rtsp://admin:hush@cam/1",), "rtsp://cam/1"),
        (("rtsp:/admin:hush@cam/1",), "Nosuchcommand'..."),
        (("rtsp://admin:hu", "hush@cam/1"), "rtsp://..."),
        (("predict", "clip.mp4", "rtsp://admin:hush@cam/1", "--engines", "."), "extraargument"),
        (("predict", "clip.mp4", "--sampling", "rtsp://admin:hu'\nhush@cam/1", "--engines", "."), "rtsp://cam/1"),
        (("predict", "clip.mp4", "--sampling=rtsp://admin:hush@cam/1", "--engines", "."), "rtsp://cam/1"),
        (("predict", "http://h/a?x=1", "token=hush", "--engines", "."), "extraargument"),
        (("predict", "rtsp://admin:hu", "hush@cam/1", "hush", "--engines", "."), "extraargument"),
        (("predict", "rtsp:/admin:hu@sh", "hush", "--engines", "."), "extraargument"),
        (("info", ".", "rtsp://admin:hu/sh\nhush hush@cam/1"), "extraargument"),
        (("--rtsp://admin:hush@cam=1",), "Nosuchoption"),
    ],
)
def test_wrong_usage_quotes_no_password(arguments: tuple[str, ...], shown: str) -> None:
    result = run(*arguments)
    assert result.exit_code == USAGE
    words = re.sub(r"[\s│]+", "", result.output)  # which a frame is drawn around, and lines are broken
    assert shown in words
    assert SECRET not in words


@pytest.mark.parametrize("names", [("1.png", "2.png"), ("1.png", "2.png", "3.png")])
def test_glob_without_quotes_is_told_to_have_them(names: tuple[str, ...]) -> None:
    result = run("predict", *names, "--engines", ".")
    assert result.exit_code == USAGE
    words = re.sub(r"[\s│]+", " ", result.output)
    assert "2.png" in words
    assert "wanted one source, a glob in quotes: 'images/*.png'" in words
    assert "in quotes" not in run("info", "a", "b").output


@pytest.mark.parametrize("line", [("a.mp4", "--link", "boxes"), ("--link", "boxes", "a.mp4")])
def test_link_with_a_value_is_told_the_option_that_takes_it(line: tuple[str, ...]) -> None:
    result = run("predict", *line, "--engines", ".")
    assert result.exit_code == USAGE
    words = re.sub(r"[\s│]+", " ", result.output)
    assert "wanted --link --link-by boxes" in words
    assert "one source" not in words


@pytest.fixture
def server(tmp_path: Path) -> Iterator[int]:
    """Port of a server on this machine that gives `clip.ts`, a playlist of it, and a playlist of what is not there."""
    folder = tmp_path / "served"
    folder.mkdir()
    encode(folder / "clip.ts")
    playlist = "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:0.8,\n{}\n#EXTINF:0.8,\n{}\n#EXT-X-ENDLIST\n"
    (folder / "good.m3u8").write_text(playlist.format("clip.ts", "clip.ts"))
    (folder / "bad.m3u8").write_text(playlist.format("clip.ts", "none.ts"))

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments: object) -> None:
            super().__init__(*arguments, directory=str(folder))  # type: ignore[arg-type]

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        thread = threading.Thread(target=listening.serve_forever, daemon=True)
        thread.start()
        yield listening.server_address[1]
        listening.shutdown()


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("clip.ts", 0),
        ("clip.ts?user=admin&pwd=hush", 0),
        ("good.m3u8", 0),
        ("bad.m3u8", 0),
        ("none.ts", BAD_INPUT),
        ("user=admin_password=hush_channel=1_stream=0.sdp", BAD_INPUT),
    ],
)
def test_password_is_nowhere_in_what_a_run_leaves(tmp_path: Path, server: int, path: str, code: int) -> None:
    out = tmp_path / "o.jsonl"
    source = f"http://admin:hush@127.0.0.1:{server}/{path}"
    found, stdout, stderr = finish(start("predict", source, "--engines", ".", "--output", out, "--json"))
    assert found == code, stderr
    assert SECRET not in stdout + stderr
    if code == 0:
        text = out.read_text()
        assert SECRET not in text
        assert f'"source_id": "http://127.0.0.1:{server}/{path.partition("?")[0]}"' in text
