"""Images as a source: formats, orientations, animations, damage."""

from __future__ import annotations

import io
import os
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from rdn_engine.errors import VideoError
from rdn_engine.media.source import open_source
from tests.media.clips import LOSSY, picture, read, save_images
from tests.media.servers import http, serving


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tiff"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_photo_orientation_is_applied(tmp_path: Path, suffix: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(picture(0)).save(path, exif=exif)
    frames, _ = read(tmp_path)
    with Image.open(path) as file:
        wanted = np.asarray(ImageOps.exif_transpose(file).convert("RGB"))
    assert frames[0].image.shape == wanted.shape
    assert np.abs(frames[0].image.astype(int) - wanted).mean() < LOSSY


@pytest.mark.parametrize("name", ["a.png", "a.webp", "a.tiff"])
def test_every_picture_of_an_animation_is_a_frame(tmp_path: Path, name: str) -> None:
    pictures = [Image.fromarray(picture(t)) for t in range(0, 20, 4)]
    options = {"lossless": True} if name == "a.webp" else {}
    pictures[0].save(tmp_path / name, save_all=True, append_images=pictures[1:], **options)
    Image.fromarray(picture(0)).save(tmp_path / "b.png")
    frames, skipped = read(tmp_path)
    assert skipped == 0
    assert [Path(f.source_id).name for f in frames] == [name] * 5 + ["b.png"]
    assert [f.index for f in frames] == list(range(6))
    assert all(np.array_equal(f.image, picture(t)) for f, t in zip(frames, range(0, 20, 4), strict=False))


@pytest.mark.parametrize("name", ["a.png", "a.webp"])
def test_an_animation_alone_has_its_times(tmp_path: Path, name: str) -> None:
    pictures = [Image.fromarray(picture(t)) for t in range(0, 20, 4)]
    pictures[0].save(tmp_path / name, save_all=True, append_images=pictures[1:], duration=[100, 200, 100, 100, 100])
    frames, _ = read(tmp_path / name)
    assert [f.pts for f in frames] == pytest.approx([0, 0.1, 0.3, 0.4, 0.5])


@pytest.mark.parametrize("name", ["noname", "photo.jfif", "photo.mp4", ".hidden.jpg"])
def test_a_photo_is_one_whatever_it_is_called(tmp_path: Path, name: str) -> None:
    wanted = mirrored_photo(tmp_path / name)
    frames, skipped = read(tmp_path / name)
    assert ([f.pts for f in frames], skipped) == ([None], 0)
    assert np.abs(frames[0].image.astype(int) - wanted).mean() < LOSSY
    with open_source(tmp_path / name) as images:
        assert images.files == (tmp_path / name,)


def test_a_photo_behind_an_address_or_in_a_pipe_is_turned_too(tmp_path: Path) -> None:
    wanted = mirrored_photo(tmp_path / "a.jpg")
    data = (tmp_path / "a.jpg").read_bytes()
    with serving(http(data, "image/jpeg", length=len(data), closes=True)) as server:
        frames, _ = read(f"http://127.0.0.1:{server.port}/snapshot")
    from_pipe, _ = read(piped(tmp_path / "a.jpg"))
    for found in (frames, from_pipe):
        assert [f.pts for f in found] == [None]
        assert np.abs(found[0].image.astype(int) - wanted).mean() < LOSSY


def piped(path: Path) -> Path:
    """A named pipe that a file is written into."""
    pipe = path.with_suffix(".pipe")
    os.mkfifo(pipe)
    threading.Thread(target=pipe.write_bytes, args=(path.read_bytes(),), daemon=True).start()
    return pipe


@pytest.mark.parametrize("name", ["a.png", "a.webp"])
def test_every_picture_of_an_animation_comes_out_of_a_pipe(tmp_path: Path, name: str) -> None:
    pictures = [Image.fromarray(picture(t)) for t in range(0, 20, 4)]
    pictures[0].save(tmp_path / name, save_all=True, append_images=pictures[1:], duration=100)
    frames, skipped = read(piped(tmp_path / name))
    assert ([f.index for f in frames], skipped) == (list(range(5)), 0)
    assert [f.pts for f in frames] == pytest.approx([t / 10 for t in range(5)])


def test_images_that_ffmpeg_cannot_read_from_a_pipe_are_said(tmp_path: Path) -> None:
    Image.fromarray(picture(0)).save(tmp_path / "a.tiff")
    with pytest.raises(VideoError, match="tiff cannot be read from a pipe or an address; wanted a file"):
        read(piped(tmp_path / "a.tiff"))


def mirrored_photo(path: Path) -> np.ndarray:
    """A JPEG of orientation 5; returns it as it is to be seen."""
    exif = Image.Exif()
    exif[0x0112] = 5
    Image.fromarray(picture(0)).save(path, "JPEG", exif=exif)
    return picture(0).transpose(1, 0, 2)


def test_pages_of_16_bits_become_8(tmp_path: Path) -> None:
    grey = picture(0)[..., 0]
    pages = [Image.fromarray(grey.astype(np.uint16) * 257), Image.fromarray((255 - grey).astype(np.uint16) * 257)]
    pages[0].save(tmp_path / "a.tiff", save_all=True, append_images=pages[1:])
    frames, _ = read(tmp_path)
    assert np.array_equal(frames[0].image, np.repeat(grey[..., None], 3, axis=2))
    assert np.array_equal(frames[1].image, np.repeat(255 - grey[..., None], 3, axis=2))


@pytest.mark.parametrize("name", ["a.png", "a.tiff"])
def test_an_animation_that_is_cut_short_is_damaged_once(tmp_path: Path, name: str) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (6, 64, 64, 3), dtype=np.uint8)
    pictures = [Image.fromarray(one) for one in noise]
    pictures[0].save(tmp_path / name, save_all=True, append_images=pictures[1:])
    data = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(data[: len(data) * 2 // 3])
    Image.fromarray(picture(0)).save(tmp_path / "b.png")
    frames, skipped = read(tmp_path)
    assert skipped == 1
    assert np.array_equal(frames[-1].image, picture(0))
    assert all(np.array_equal(f.image, one) for f, one in zip(frames[:-1], noise, strict=False))


def test_hidden_files_are_no_images(tmp_path: Path) -> None:
    save_images(tmp_path, ["1.png", "2.png"])
    for name in ("._1.png", ".hidden.png"):
        (tmp_path / name).write_bytes(b"\0\5\x16\7 the resource fork that macOS keeps beside a file")
    for source in (tmp_path, str(tmp_path / "*.png")):
        frames, skipped = read(source)
        assert (len(frames), skipped) == (2, 0)


def test_what_is_skipped_is_named(tmp_path: Path) -> None:
    save_images(tmp_path, ["1.png", "2.png"])
    (tmp_path / "1.png").write_bytes(b"nothing")
    with open_source(tmp_path) as images:
        assert len(list(images)) == 1
        assert images.warnings == [f"{tmp_path / '1.png'} is damaged and skipped"]


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


def test_image_bytes_are_not_trusted_by_their_suffix(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    Image.fromarray(picture(0)).save(buffer, format="PNG")
    (tmp_path / "a.jpg").write_bytes(buffer.getvalue())
    frames, _ = read(tmp_path / "a.jpg")
    assert np.array_equal(frames[0].image, picture(0))
