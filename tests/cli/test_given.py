"""Sources that are named elsewhere, and what is quoted of what a user typed."""

from __future__ import annotations

import http.server
import os
import re
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from rdn_engine.cli.exits import BAD_INPUT, USAGE
from rdn_engine.cli.given import given_source
from rdn_engine.errors import ConfigError
from tests.cli.commands import finish, lines, run, start, write_video
from tests.media.clips import encode

SECRET = "hush"


def test_source_of_a_variable_or_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    address = "rtsp://admin:hush hush@cam/1"
    monkeypatch.setenv("CAMERA", f" {address}\n")
    (tmp_path / "camera").write_text(f"\n{address}\r\n")
    assert given_source("env:CAMERA") == given_source(f"@{tmp_path}/camera") == address
    for plain in ("clip.mp4", address, "./@camera", "a@b", "environment:x", "-"):
        assert given_source(plain) == plain


def test_name_in_a_file_need_not_be_utf8(tmp_path: Path) -> None:
    (tmp_path / "list").write_bytes(b"\xff.mp4\n")
    assert os.fsencode(given_source(f"@{tmp_path}/list")) == b"\xff.mp4"


@pytest.mark.parametrize("content", [b"", b"\n \n", b"rtsp://admin:hush@cam/1\nrtsp://admin:hush@cam/2\n"])
def test_file_without_one_source_is_refused_and_not_quoted(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "camera").write_bytes(content)
    with pytest.raises(ConfigError, match="wanted one, a source") as caught:
        given_source(f"@{tmp_path}/camera")
    assert SECRET not in str(caught.value)


def test_variable_that_is_missing_or_empty_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAMERA", " ")
    monkeypatch.delenv("NO_CAMERA", raising=False)
    for name in ("CAMERA", "NO_CAMERA", ""):
        with pytest.raises(ConfigError, match=f"'{name}' is not set or empty"):
            given_source(f"env:{name}")


@pytest.mark.usefixtures("fake")
def test_predict_takes_a_source_from_a_file(tmp_path: Path) -> None:
    video, out = write_video(tmp_path / "a.mp4"), tmp_path / "o.jsonl"
    (tmp_path / "source").write_text(f"{video}\n")
    assert run("predict", f"@{tmp_path}/source", "--engines", tmp_path, "--output", out).exit_code == 0
    assert {d["source_id"] for d in lines(out)} == {str(video)}
    result = run("predict", f"@{tmp_path}/none", "--engines", tmp_path)
    assert (result.exit_code, result.stderr) == (1, f"rdn-engine: {tmp_path}/none: No such file or directory\n")


@pytest.mark.parametrize(
    "arguments",
    [
        ("rtsp://admin:hush@cam/1",),
        ("predict", "clip.mp4", "rtsp://admin:hush@cam/1", "--engines", "."),
        ("predict", "clip.mp4", "--sampling", "rtsp://admin:hush@cam/1", "--engines", "."),
        ("info", ".", "rtsp://admin:hu/sh hush@cam/1"),
    ],
)
def test_wrong_usage_quotes_no_password(arguments: tuple[str, ...]) -> None:
    result = run(*arguments)
    assert result.exit_code == USAGE
    words = re.sub(r"[\s│]+", "", result.output)  # which a frame is drawn around, and lines are broken
    assert "rtsp://cam/1" in words
    assert SECRET not in words


@pytest.mark.parametrize("names", [("1.png", "2.png"), ("1.png", "2.png", "3.png")])
def test_glob_without_quotes_is_told_to_have_them(names: tuple[str, ...]) -> None:
    result = run("predict", *names, "--engines", ".")
    assert result.exit_code == USAGE
    words = re.sub(r"[\s│]+", " ", result.output)
    assert "2.png" in words
    assert "wanted one source, a glob in quotes: 'images/*.png'" in words
    assert "in quotes" not in run("info", "a", "b").output


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
