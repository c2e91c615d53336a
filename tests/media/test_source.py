"""Sources of every kind, on small videos and images made here."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import av
import numpy as np
import pytest

from rdn_engine.errors import VideoError
from rdn_engine.frame import Frame
from rdn_engine.media.base import SourceOptions, VideoSource
from rdn_engine.media.source import open_source
from tests.media.clips import encode, read, save_images

PATIENCE = 30.0
"""Seconds"""


def _audio(path: Path) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
    return path


def _write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


BAD: dict[str, tuple[Callable[[Path], object], str]] = {
    "number": (lambda d: 5, "source is 5; wanted a path"),
    "nothing": (lambda d: None, "source is None; wanted a path"),
    "empty string": (lambda d: "", "empty string"),
    "missing": (lambda d: d / "no.mp4", "does not exist"),
    "empty file": (lambda d: _write(d / "a.mp4", b""), "0 bytes"),
    "text": (lambda d: _write(d / "a.mp4", b"hello " * 100), "cannot be opened"),
    "no index": (lambda d: _write(d / "a.mp4", encode(d / "b.mp4").read_bytes()[:400]), "cannot be opened"),
    "audio": (lambda d: _audio(d / "a.wav"), "holds no video, only audio"),
    "empty folder": (lambda d: d, "holds no image"),
    "glob": (lambda d: str(d / "*.png"), "holds no image"),
    "empty list": (lambda d: [], "holds no image"),
    "bytes": (lambda d: b"a.png", "source is b'a.png'; wanted a path"),
    "list of numbers": (lambda d: [5], "5 is not an image file"),
    "list of videos": (lambda d: [encode(d / "a.mp4", frames=2)], "is not an image"),
    "list with a missing image": (lambda d: [d / "a.png"], "does not exist"),
    "zero-byte image": (lambda d: _write(d / "a.png", b""), "no frame could be decoded"),
    "text as image": (lambda d: _write(d / "a.jpg", b"hello"), "no frame could be decoded"),
    "no such protocol": (lambda d: "nonsense://x/y", "cannot be opened"),
}


@pytest.mark.parametrize("what", BAD)
def test_bad_source_is_a_video_error(tmp_path: Path, what: str) -> None:
    make, message = BAD[what]
    source = make(tmp_path)
    with pytest.raises(VideoError, match=message):
        read(source)


def test_error_for_an_address_hides_its_password() -> None:
    with pytest.raises(VideoError) as caught:
        open_source("nonsense://user:secret@host/path?token=secret")
    assert "secret" not in str(caught.value)
    assert "nonsense://host/path" in str(caught.value)


def test_a_password_that_ffmpeg_cannot_read_is_explained() -> None:
    with pytest.raises(VideoError, match=r"^http://\.\.\. cannot be opened .*; in a password .* %2F %3F %23") as raised:
        open_source("http://user:p#/?[@s@127.0.0.1:1/cam", SourceOptions(timeout=5.0))
    assert "p#" not in str(raised.value)


def test_videos_beside_images_are_passed_over_with_a_warning(tmp_path: Path) -> None:
    save_images(tmp_path, ["cover.png"])
    for source in (tmp_path, str(tmp_path / "*")):
        assert open_source(source).warnings == []
    (tmp_path / "notes.txt").write_text("")
    encode(tmp_path / "a.mp4", frames=2)
    for source in (tmp_path, str(tmp_path / "*")):
        with open_source(source) as images:
            assert len(list(images)) == 1
            (warning,) = images.warnings
        assert warning.startswith("a video is passed over, because there are images too; videos want a glob")
    (tmp_path / "b.MKV").write_bytes(b"")
    (tmp_path / "._b.mp4").write_bytes(b"")
    with open_source(tmp_path) as images:
        assert images.warnings[0].startswith("2 videos are passed over")


def test_glob_list_and_single_image_agree(tmp_path: Path) -> None:
    images = save_images(tmp_path, ["1.png", "2.png", "x.png"])
    by_glob, _ = read(str(tmp_path / "[0-9].png"))
    by_list, _ = read([str(tmp_path / "2.png"), tmp_path / "1.png"])
    single, _ = read(tmp_path / "x.png")
    assert [np.array_equal(f.image, i) for f, i in zip(by_glob, images[:2], strict=True)] == [True, True]
    assert [np.array_equal(f.image, i) for f, i in zip(by_list, images[1::-1], strict=True)] == [True, True]
    assert np.array_equal(single[0].image, images[2])


def test_names_are_taken_literally(tmp_path: Path) -> None:
    save_images(tmp_path, ["frame%03d.png", "a[1].png"])
    encode(tmp_path / "clip:one.mp4", frames=2)
    assert len(read(tmp_path / "frame%03d.png")[0]) == 1
    assert len(read(str(tmp_path / "a[1].png"))[0]) == 1
    assert len(read(str(tmp_path / "clip:one.mp4"))[0]) == 2


def test_source_is_read_once_and_closes(tmp_path: Path) -> None:
    video = open_source(encode(tmp_path / "a.mp4", frames=3))
    iterator = iter(video)
    next(iterator)
    video.close()
    video.close()
    with pytest.raises(VideoError, match="open it again"):
        iter(video)


def test_files_are_what_the_source_reads(tmp_path: Path) -> None:
    save_images(tmp_path, ["1.png", "2.png"])
    one, two, video = tmp_path / "1.png", tmp_path / "2.png", encode(tmp_path / "a.mp4", frames=1)
    for source, files in (
        (tmp_path, (one, two)),
        (str(tmp_path / "*.png"), (one, two)),
        ([two, str(one)], (two, one)),
        (one, (one,)),
        (video, (video,)),
        (f"file://{video}", (video,)),
    ):
        with open_source(source) as opened:  # type: ignore[arg-type]
            assert opened.files == files


def _feed(pipe: Path, data: bytes) -> threading.Thread:
    """Somebody who writes into a named pipe, once, and goes."""
    writer = threading.Thread(target=pipe.write_bytes, args=(data,), daemon=True)
    writer.start()
    return writer


@pytest.mark.parametrize("name", ["a.ts", "a.mkv"])
def test_named_pipe_is_read_once_like_its_file(tmp_path: Path, name: str) -> None:
    path = encode(tmp_path / name)
    wanted, _ = read(path)
    os.mkfifo(tmp_path / "pipe")
    writer = _feed(tmp_path / "pipe", path.read_bytes())
    frames, skipped = read(tmp_path / "pipe")
    writer.join()
    assert skipped == 0
    assert [f.pts for f in frames] == [f.pts for f in wanted]
    assert all(np.array_equal(f.image, w.image) for f, w in zip(frames, wanted, strict=True))


@pytest.mark.parametrize("data", [b"", b"hello " * 100])
def test_named_pipe_without_a_video_is_an_error(tmp_path: Path, data: bytes) -> None:
    os.mkfifo(tmp_path / "pipe")
    _feed(tmp_path / "pipe", data)
    with pytest.raises(VideoError, match="cannot be opened as video"):
        read(tmp_path / "pipe")


def test_name_that_is_not_utf8(tmp_path: Path) -> None:
    path = encode(tmp_path / os.fsdecode(b"\xff\xe9.mp4"), frames=2)
    frames, _ = read(path)
    assert [os.fsencode(f.source_id) for f in frames] == [os.fsencode(path)] * 2
    with pytest.raises(VideoError, match="does not exist"):
        read(tmp_path / os.fsdecode(b"\xfe.mp4"))


@pytest.mark.parametrize("kind", ["video", "folder"])
def test_a_source_that_was_closed_gives_no_more(tmp_path: Path, kind: str) -> None:
    """PyAV 18.1.0 and 19.0.2 would end the process: what demultiplexes a container goes on with one that is closed."""
    if kind == "video":
        source = open_source(encode(tmp_path / "a.mp4"))
    else:
        save_images(tmp_path, ["a.png", "b.png"])
        source = open_source(tmp_path)
    frames = iter(source)
    next(frames)
    source.close()
    with pytest.raises(VideoError, match=r"was closed after 1 frames; wanted an open source"):
        next(frames)
    assert next(frames, None) is None
    with pytest.raises(VideoError, match="was read or closed already"):
        iter(source)


class Slow(VideoSource):
    """Frames that wait to be let through."""

    def __init__(self) -> None:
        super().__init__("slow", None, None)
        self.asked, self.go_on, self.released = threading.Semaphore(0), threading.Semaphore(0), 0

    def _frames(self) -> Iterator[Frame]:
        while True:
            self.asked.release()
            assert self.go_on.acquire(timeout=PATIENCE)
            assert not self.released
            yield Frame(np.zeros((16, 16, 3), np.uint8), 0, None, "slow")

    def _release(self) -> None:
        self.released += 1


def test_a_source_that_is_closed_between_two_frames_is_released_at_once() -> None:
    source = Slow()
    source.go_on.release()
    frames = iter(source)
    next(frames)
    source.close()
    assert source.released == 1
    with pytest.raises(VideoError, match="slow was closed after 1 frames"):
        next(frames)
    assert source.released == 1


def test_a_source_that_is_closed_while_another_thread_reads_is_released_behind_that() -> None:
    source, found = Slow(), list[Frame | VideoError]()

    def read_on() -> None:
        try:
            found.extend(source)
        except VideoError as error:
            found.append(error)

    reader = threading.Thread(target=read_on)
    reader.start()
    source.go_on.release()
    for _ in range(2):
        assert source.asked.acquire(timeout=PATIENCE)
    source.close()  # at once, though no frame comes
    source.close()
    assert source.released == 0
    source.go_on.release()
    reader.join(PATIENCE)
    assert source.released == 1
    assert [type(one) for one in found] == [Frame, Frame, VideoError]
    source.close()
    assert source.released == 1
