"""Orientation and colour of decoded pictures."""

from __future__ import annotations

import gc
from pathlib import Path

import av
import numpy as np
import pytest
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter
from PIL import Image, ImageOps

from rdn_engine.media.picture import EXIF, UPRIGHT, Orientation, orientation, rgb, video_rgb
from tests.media.clips import LOSSY, encode, picture, read

MATRICES = {
    1: (1, 0, 0, 1),
    2: (-1, 0, 0, 1),
    3: (-1, 0, 0, -1),
    4: (1, 0, 0, -1),
    5: (0, 1, 1, 0),
    6: (0, 1, -1, 0),
    7: (0, -1, -1, 0),
    8: (0, -1, 1, 0),
}
"""a, b, c, d of ISO/IEC 14496-12, section 6.2.2, for what Exif calls orientation 1 to 8."""

COEFFICIENTS = {1: (0.2126, 0.0722), 5: (0.299, 0.114), 6: (0.299, 0.114), 9: (0.2627, 0.0593)}
"""Matrix of ISO/IEC 23091-2 -> its K_R and K_B: BT.709, BT.601 in 625 and 525 lines, BT.2020."""


def exif_transposed(number: int) -> np.ndarray:
    """[H, W, 3]: the picture of these tests, turned by Pillow."""
    image = Image.fromarray(picture(0))
    image.getexif()[0x0112] = number
    return np.asarray(ImageOps.exif_transpose(image))


@pytest.mark.parametrize("number", EXIF)
def test_orientations_are_those_of_exif(number: int) -> None:
    assert np.array_equal(EXIF[number].apply(picture(0)), exif_transposed(number))


@pytest.mark.parametrize("number", MATRICES)
def test_a_display_matrix_turns_and_mirrors(tmp_path: Path, number: int) -> None:
    a, b, c, d = (value << 16 for value in MATRICES[number])
    path = encode(tmp_path / "a.mp4", frames=2, matrix=(a, b, 0, c, d, 0, 0, 0, 1 << 30))
    frames, _ = read(path)
    wanted = exif_transposed(number)
    assert frames[0].image.shape == wanted.shape
    assert np.abs(frames[0].image.astype(int) - wanted).mean() < LOSSY


@pytest.mark.parametrize("turns", [0, 1, 2, 3])
def test_rotation_metadata_is_applied(tmp_path: Path, turns: int) -> None:
    frames, _ = read(encode(tmp_path / "a.mp4", frames=2, rotation=90.0 * turns))
    wanted = np.rot90(picture(0), turns)
    assert frames[0].image.shape == wanted.shape
    assert np.abs(frames[0].image.astype(int) - wanted).mean() < LOSSY


def test_an_odd_angle_is_the_nearest_quarter(tmp_path: Path) -> None:
    assert read(encode(tmp_path / "a.mp4", frames=1, rotation=80.0))[0][0].image.shape == (96, 64, 3)
    assert read(encode(tmp_path / "b.mp4", frames=1, rotation=10.0))[0][0].image.shape == (64, 96, 3)


def frame_of(luma: int, u: int, v: int, size: tuple[int, int] = (64, 64)) -> av.VideoFrame:
    height, width = size
    planes = np.full((height * 3 // 2, width), luma, np.uint8)
    planes[height : height * 5 // 4] = u
    planes[height * 5 // 4 :] = v
    return av.VideoFrame.from_ndarray(planes, format="yuv420p")


def defined_rgb(luma: int, u: int, v: int, matrix: int, full: bool) -> np.ndarray:
    """ITU-R BT.709, section 3 (and BT.601, BT.2020 with their coefficients), 0..255."""
    kr, kb = COEFFICIENTS[matrix]
    y, cb, cr = (luma / 255, (u - 128) / 255, (v - 128) / 255) if full else (
        (luma - 16) / 219, (u - 128) / 224, (v - 128) / 224)  # fmt: skip
    red, blue = y + 2 * (1 - kr) * cr, y + 2 * (1 - kb) * cb
    return np.clip([red, (y - kr * red - kb * blue) / (1 - kr - kb), blue], 0, 1) * 255


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("matrix", COEFFICIENTS)
def test_named_colours_are_read_as_named(matrix: int, full: bool) -> None:
    for luma, u, v in ((120, 90, 200), (60, 160, 110), (180, 128, 128), (90, 120, 60)):
        frame = frame_of(luma, u, v)
        frame.colorspace, frame.color_range = matrix, 2 if full else 1
        # FFmpeg cuts where the definition rounds, once for each of three products.
        assert np.abs(rgb(frame)[0, 0] - defined_rgb(luma, u, v, matrix, full)).max() < 2.5


@pytest.mark.parametrize(
    ("size", "matrix"), [((720, 1280), 1), ((1280, 720), 1), ((1080, 1920), 1), ((576, 720), 6), ((480, 854), 6)]
)
def test_a_video_in_hd_without_a_name_for_its_colours_is_bt_709(size: tuple[int, int], matrix: int) -> None:
    frame = frame_of(120, 90, 200, size)
    assert frame.colorspace == 2
    assert np.abs(video_rgb(frame, VideoReformatter())[0, 0] - defined_rgb(120, 90, 200, matrix, False)).max() < 2.5


def test_a_named_matrix_is_kept_in_hd() -> None:
    frame = frame_of(120, 90, 200, (720, 1280))
    frame.colorspace = 6
    assert np.abs(video_rgb(frame, VideoReformatter())[0, 0] - defined_rgb(120, 90, 200, 6, False)).max() < 2.5


def test_turning_gives_contiguous_pictures() -> None:
    for turn in (UPRIGHT, Orientation(True, True, False)):
        assert turn.apply(picture(0)).flags.c_contiguous


def test_a_picture_that_was_looked_at_is_freed_at_once() -> None:
    """PyAV's own `side_data` keeps it until Python looks for circles (findings/pyav_side_data_keeps_frames.sh)."""
    gc.collect()
    before = sum(isinstance(one, VideoFrame) for one in gc.get_objects())
    gc.disable()
    try:
        for _ in range(5):
            orientation(VideoFrame(64, 64, "yuv420p"))
        assert sum(isinstance(one, VideoFrame) for one in gc.get_objects()) == before
    finally:
        gc.enable()
