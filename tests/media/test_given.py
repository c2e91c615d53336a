"""Values that are named elsewhere."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from rdn_engine.errors import ConfigError
from rdn_engine.media.given import given_value

SECRET = "hush"


def test_source_of_a_variable_or_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    address = "rtsp://admin:hush hush@cam/1"
    monkeypatch.setenv("CAMERA", f" {address}\n")
    (tmp_path / "camera").write_text(f"\n{address}\r\n")
    assert given_value("env:CAMERA") == given_value(f"@{tmp_path}/camera") == address
    for plain in ("clip.mp4", address, "./@camera", "a@b", "environment:x", "-"):
        assert given_value(plain) == plain


def test_name_in_a_file_need_not_be_utf8(tmp_path: Path) -> None:
    (tmp_path / "list").write_bytes(b"\xff.mp4\n")
    assert os.fsencode(given_value(f"@{tmp_path}/list")) == b"\xff.mp4"


@pytest.mark.parametrize("content", [b"", b"\n \n", b"rtsp://admin:hush@cam/1\nrtsp://admin:hush@cam/2\n"])
def test_file_without_one_source_is_refused_and_not_quoted(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "camera").write_bytes(content)
    with pytest.raises(ConfigError, match="wanted one, a source") as caught:
        given_value(f"@{tmp_path}/camera")
    assert SECRET not in str(caught.value)


def test_variable_that_is_missing_or_empty_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAMERA", " ")
    monkeypatch.delenv("NO_CAMERA", raising=False)
    for name in ("CAMERA", "NO_CAMERA", ""):
        with pytest.raises(ConfigError, match=f"'{name}' is not set or empty"):
            given_value(f"env:{name}")


@pytest.mark.parametrize("address", ["rtsp://u:hush@h", "u:hush@h/1", "rtsp:/u:hush@h/a", "cam/1?pwd=hush"])
def test_address_in_the_place_of_a_name_is_not_quoted(address: str) -> None:
    with pytest.raises(ConfigError, match="is not set or empty") as missing:
        given_value(f"env:{address}")
    with pytest.raises(OSError, match="No such file") as unread:
        given_value(f"@{address}")
    for error in (missing.value, unread.value, missing.value.__context__, unread.value.__context__):
        assert SECRET not in f"{error} {error!r} {getattr(error, 'filename', None)}"
