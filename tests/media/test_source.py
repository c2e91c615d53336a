"""Sources of every kind, on small videos and images made here."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from rdn_engine.errors import VideoError
from rdn_engine.media.source import open_source
from tests.media.clips import FPS, LOSSY, coded_picture, damage, encode, picture, read, save_images


@pytest.mark.parametrize(("codec", "name"), [("libx264", "a.mp4"), ("mpeg4", "a.mp4"), ("mjpeg", "a.avi")])
def test_video_gives_every_frame_with_index_time_and_colour(tmp_path: Path, codec: str, name: str) -> None:
    path = encode(tmp_path / name, codec)
    with open_source(path) as video:
        assert video.fps == FPS
        assert video.frames_hint == 20
        frames = list(video)
    assert [f.index for f in frames] == list(range(20))
    assert [f.pts for f in frames] == pytest.approx([t / FPS for t in range(20)])
    assert video.skipped == 0
    for t, frame in enumerate(frames):
        assert frame.source_id == str(path)
        assert frame.image.dtype == np.uint8
        assert np.abs(frame.image.astype(int) - picture(t)).mean() < LOSSY


@pytest.mark.parametrize("turns", [0, 1, 2, 3])
def test_rotation_metadata_is_applied(tmp_path: Path, turns: int) -> None:
    frames, _ = read(encode(tmp_path / "a.mp4", frames=2, rotation=90.0 * turns))
    wanted = np.rot90(picture(0), turns)
    assert frames[0].image.shape == wanted.shape
    assert np.abs(frames[0].image.astype(int) - wanted).mean() < LOSSY


@pytest.mark.parametrize(("orientation", "turns"), [(1, 0), (3, 2), (6, 3), (8, 1)])
def test_photo_orientation_is_applied(tmp_path: Path, orientation: int, turns: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(picture(0)).save(tmp_path / "a.jpg", exif=exif)
    frames, _ = read(tmp_path)
    wanted = np.rot90(picture(0), turns)
    assert frames[0].image.shape == wanted.shape
    assert np.abs(frames[0].image.astype(int) - wanted).mean() < LOSSY


VLC = {"coder": "vlc"}
"""Of H.264's two entropy coders the one in which a decoder notices noise; in the other only headers can be checked."""


@pytest.mark.parametrize(
    ("codec", "name", "keep", "options"),
    [
        ("libx264", "a.mp4", 0, {"bf": "0", "g": "250"}),
        ("libx264", "a.mp4", 0, {"bf": "2", "b-adapt": "0", "g": "10"}),
        ("libx264", "a.mp4", 40, {"bf": "0", "g": "250", **VLC}),
        ("libx264", "a.mp4", 40, {"bf": "2", "b-adapt": "0", "g": "10", **VLC}),
        ("mjpeg", "a.avi", 0, {}),
        ("mjpeg", "a.avi", 700, {}),
        ("mpeg4", "a.mp4", 0, {}),
        ("mpeg4", "a.mp4", 40, {}),
        ("mpeg4", "a.avi", 40, {}),
    ],
)
@pytest.mark.parametrize("nth", [7, 8, 9, 10])
def test_damaged_frame_is_skipped_and_counted_and_decoding_goes_on(
    tmp_path: Path, codec: str, name: str, keep: int, options: dict[str, str], nth: int
) -> None:
    path = encode(tmp_path / name, codec, grain=60, **options)
    whole, _ = read(path)
    damage(path, nth, keep)
    frames, skipped = read(path)
    assert skipped >= 1
    assert len(frames) + skipped == 20
    # Numbers follow the time, so that the skipped ones leave their gaps.
    assert [f.index for f in frames] == [round(f.pts * FPS) for f in frames if f.pts is not None]
    assert frames[-1].index == 19
    # What was coded before the damage is untouched.
    assert all(np.array_equal(f.image, whole[f.index].image) for f in frames if f.index < 5)


def test_several_damaged_frames(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.avi", "mjpeg")
    for nth in (0, 7, 8, 19):
        damage(path, nth)
    frames, skipped = read(path)
    assert skipped == 4
    assert [f.index for f in frames] == [t for t in range(20) if t not in (0, 7, 8, 19)]


def test_all_frames_damaged_is_an_error(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.avi", "mjpeg", frames=3)
    for nth in range(3):
        damage(path, nth)
    with pytest.raises(VideoError, match=r"no frame could be decoded \(3 damaged\)"):
        read(path)


def test_cut_short_video_gives_what_is_there(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.avi", "mjpeg")
    start, size = coded_picture(path, 12)
    path.write_bytes(path.read_bytes()[: start + size // 2])
    frames, skipped = read(path)
    assert [f.index for f in frames] == list(range(12))
    assert skipped == 1


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
    "empty string": (lambda d: "", "empty string"),
    "missing": (lambda d: d / "no.mp4", "does not exist"),
    "empty file": (lambda d: _write(d / "a.mp4", b""), "0 bytes"),
    "text": (lambda d: _write(d / "a.mp4", b"hello " * 100), "cannot be opened"),
    "no index": (lambda d: _write(d / "a.mp4", encode(d / "b.mp4").read_bytes()[:400]), "cannot be opened"),
    "audio": (lambda d: _audio(d / "a.wav"), "holds no video, only audio"),
    "empty folder": (lambda d: d, "holds no image"),
    "glob": (lambda d: str(d / "*.png"), "holds no image"),
    "empty list": (lambda d: [], "holds no image"),
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


def test_file_cannot_name_further_inputs_on_the_network(tmp_path: Path) -> None:
    playlist = "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nhttp://127.0.0.1:9/a.ts\n#EXT-X-ENDLIST\n"
    with pytest.raises(VideoError):
        read(_write(tmp_path / "a.m3u8", playlist.encode()))


def test_folder_is_read_in_natural_order_whatever_the_sizes(tmp_path: Path) -> None:
    for name, size in (("f10.png", (16, 20)), ("f9.png", (30, 18)), ("f1.JPEG", (20, 20))):
        Image.fromarray(picture(0, *size)).save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("not an image")
    frames, skipped = read(str(tmp_path))
    assert [Path(f.source_id).name for f in frames] == ["f1.JPEG", "f9.png", "f10.png"]
    assert [f.image.shape[:2] for f in frames] == [(20, 20), (30, 18), (16, 20)]
    assert [f.pts for f in frames] == [None] * 3
    assert [f.index for f in frames] == [0, 1, 2]
    assert skipped == 0


def test_damaged_image_is_skipped_and_leaves_a_gap(tmp_path: Path) -> None:
    images = save_images(tmp_path, ["0.png", "1.png", "2.png", "3.png"])
    data = (tmp_path / "1.png").read_bytes()
    (tmp_path / "1.png").write_bytes(data[: len(data) // 2])
    frames, skipped = read(tmp_path)
    assert skipped == 1
    assert [f.index for f in frames] == [0, 2, 3]
    assert all(np.array_equal(f.image, images[f.index]) for f in frames)


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "bmp"])
def test_cut_short_image_is_damaged_not_half_grey(tmp_path: Path, suffix: str) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / f"a.{suffix}")
    Image.fromarray(noise).save(tmp_path / f"b.{suffix}")
    data = (tmp_path / f"a.{suffix}").read_bytes()
    (tmp_path / f"a.{suffix}").write_bytes(data[: len(data) // 2])
    frames, skipped = read(tmp_path)
    assert (len(frames), skipped) == (1, 1)


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


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "1", "I;16"])
def test_other_pixel_formats_become_rgb(tmp_path: Path, mode: str) -> None:
    grey = picture(0)[..., 0]
    wanted = np.repeat(grey[..., None], 3, axis=2)
    if mode == "I;16":
        image = Image.fromarray(grey.astype(np.uint16) * 257)
    else:
        image = Image.fromarray(wanted).convert(mode)
        wanted = np.asarray(image.convert("RGB"))
    image.save(tmp_path / "a.png")
    frames, _ = read(tmp_path)
    assert frames[0].image.shape == wanted.shape
    assert np.abs(frames[0].image.astype(int) - wanted).max() <= 1


def test_source_is_read_once_and_closes(tmp_path: Path) -> None:
    video = open_source(encode(tmp_path / "a.mp4", frames=3))
    iterator = iter(video)
    next(iterator)
    video.close()
    video.close()
    with pytest.raises(VideoError, match="open it again"):
        iter(video)


def test_early_end_of_iteration_closes_the_file(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.mp4", frames=10)
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(5):
        with open_source(path) as video:
            for _frame in video:
                break
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_files_are_what_the_source_reads(tmp_path: Path) -> None:
    save_images(tmp_path, ["1.png", "2.png"])
    one, two, video = tmp_path / "1.png", tmp_path / "2.png", encode(tmp_path / "a.mp4", frames=1)
    for source, files in (
        (tmp_path, (one, two)),
        (str(tmp_path / "*.png"), (one, two)),
        ([two, str(one)], (two, one)),
        (one, (one,)),
        (video, (video,)),
        (f"file://{video}", ()),
    ):
        with open_source(source) as opened:  # type: ignore[arg-type]
            assert opened.files == files


def test_image_bytes_are_not_trusted_by_their_suffix(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    Image.fromarray(picture(0)).save(buffer, format="PNG")
    frames, _ = read(_write(tmp_path / "a.jpg", buffer.getvalue()))
    assert np.array_equal(frames[0].image, picture(0))
