"""Files that a source reads without their names being given."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from rdn_engine.media.playlist import file_key, files_read
from tests.media.clips import encode

PLAYLISTS = {
    "a.m3u8": "#EXTM3U\n#EXTINF:1,\n{0}\n#EXT-X-ENDLIST\n",
    "b.m3u8": "#EXTM3U\r\n#EXTINF:1,\r\n{0} \r\n",
    "absolute.m3u8": "#EXTM3U\n#EXTINF:1,\n{1}/{0}\n",
    "file.m3u8": "#EXTM3U\n#EXTINF:1,\nfile:{0}\n",
    "address.m3u8": "#EXTM3U\n#EXTINF:1,\nfile://{1}/{0}\n",
    "parts.m3u8": '#EXTM3U\n#EXT-X-MAP:URI="{0}",BYTERANGE="9@0"\n#EXTINF:1,\nnone.ts\n',
    "keys.m3u8": '#EXTM3U\n#EXT-X-KEY:METHOD=AES-128,URI="{0}",IV=0x1\nnone.ts\n',
    "a.txt": "ffconcat version 1.0\nfile '{0}'\n",
    "b.txt": "ffconcat version 1.0\n  file  '../{2}/{0}'\nduration 2\n",
}
"""{0} is a name beside them, {1} their folder, {2} its name"""


def write(folder: Path, playlist: str, name: str) -> Path:
    path = folder / playlist
    path.write_bytes(os.fsencode(PLAYLISTS[playlist].format(name, folder, folder.name)))
    return path


@pytest.mark.parametrize("name", ["s.ts", "a b.ts", "ü,=.ts", "\udcff.ts", "-"])
@pytest.mark.parametrize("playlist", PLAYLISTS)
def test_files_that_a_playlist_names_are_found(tmp_path: Path, playlist: str, name: str) -> None:
    path = write(tmp_path, playlist, name)
    (tmp_path / name).write_bytes(b"\0")
    (tmp_path / "other.ts").write_bytes(b"\0")
    wanted = {file_key(path), file_key(tmp_path / name)}
    for source in ("-", str(path), f"cache://{path}"):
        assert {file_key(file) for file in files_read(source, [path])} == wanted
    assert {file_key(file) for file in files_read(f"cache://{path}", [])} == wanted


@pytest.mark.parametrize("line", [r"file a\ b\'c.ts", r"file 'a b'\''c.ts'", r"file a' b'\'c.ts"])
def test_quotes_of_ffconcat_are_read(tmp_path: Path, line: str) -> None:
    (tmp_path / "list").write_text(f"ffconcat version 1.0\n{line}\n")
    (tmp_path / "a b'c.ts").write_bytes(b"\0")
    assert files_read("", [tmp_path / "list"]) == [tmp_path / "list", tmp_path / "a b'c.ts"]


def test_playlists_that_playlists_name_are_read_from_their_own_folder(tmp_path: Path) -> None:
    folder = tmp_path / "low"
    folder.mkdir()
    top, below = tmp_path / "top.m3u8", write(folder, "a.m3u8", "s.ts")
    top.write_text('#EXTM3U\n#EXT-X-MEDIA:TYPE=VIDEO,GROUP-ID="a",URI="low/a.m3u8"\ntop.m3u8\n')
    (folder / "s.ts").write_bytes(b"\0")
    assert set(files_read(str(top), [top])) == {top, below, folder / "s.ts"}


@pytest.mark.parametrize(
    "address", ["concat://{}|/none", "concat:///none|{}", "cache://{}", "subfile,,start,0,end,0,,://{}", "file://{}"]
)
def test_addresses_of_files_are_known(tmp_path: Path, address: str) -> None:
    (tmp_path / "s.ts").write_bytes(b"\0")
    (file,) = files_read(address.format(tmp_path / "s.ts"), [])
    assert file_key(file) == file_key(tmp_path / "s.ts")


def test_a_part_of_a_name_or_of_a_query_is_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("s.ts").write_bytes(b"\0")
    for source in ("my s.ts", "http://h/v?file=s.ts", "http://h/s.ts", "http://h/a,s.ts"):
        assert files_read(source, []) == []


def test_a_video_and_what_is_no_file_name_nothing(tmp_path: Path) -> None:
    video, pipe = encode(tmp_path / "a.ts"), tmp_path / "pipe"
    os.mkfifo(pipe)
    (tmp_path / "s.ts").write_bytes(b"\0")
    with video.open("ab") as file:
        file.write(b"\ns.ts\n")
    assert files_read(str(video), [video]) == [video]
    for name in (str(pipe), str(tmp_path), "a\0b", "n" * 5000, "rtsp://u:p@h/1", ""):
        assert files_read(name, [Path(name)]) == []


def test_links_are_the_same_file(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"")
    (tmp_path / "hard").hardlink_to(path)
    (tmp_path / "soft").symlink_to(path)
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    assert file_key(path) == file_key(tmp_path / "hard") == file_key(tmp_path / "soft") is not None
    assert file_key(tmp_path / "loop") is file_key(tmp_path) is None
