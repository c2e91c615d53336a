"""resize_normalize against PIL, to the bit."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from rdn_engine.input_config import InputConfig
from rdn_engine.kernels import _C, cpu

pytestmark = pytest.mark.isa

PARITY = Path(__file__).parents[2] / "data" / "parity"
RGB = InputConfig(channel_order="rgb", mean=(0, 0, 0), std=(1, 1, 1))
BGR = replace(RGB, channel_order="bgr")
sides = st.one_of(st.integers(1, 4), st.integers(1, 70))


def by_pil(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """PIL's two passes, rows first. Since version 13 PIL itself begins with columns where a height shrinks far more."""
    rows = Image.fromarray(image).resize((size[1], image.shape[0]), Image.Resampling.BILINEAR)
    return np.asarray(rows.resize((size[1], size[0]), Image.Resampling.BILINEAR)).transpose(2, 0, 1)


@settings(deadline=None, max_examples=150)
@given(st.integers(0, 2**32 - 1), st.tuples(sides, sides), st.tuples(sides, sides), st.booleans())
def test_equals_pil(seed, from_size, to_size, harsh):
    image = np.random.default_rng(seed).integers(0, 256, (*from_size, 3), dtype=np.uint8)
    if harsh:
        image = (image > 127).astype(np.uint8) * 255
    got = cpu.resize_normalize(image, to_size, RGB)
    np.testing.assert_array_equal(got, by_pil(image, to_size))


@pytest.mark.parametrize(("height", "width"), [(1080, 1920), (1920, 1080), (480, 640), (240, 352), (2160, 3840)])
def test_equals_one_call_of_pil_where_the_aspect_is_kept(height, width):
    image = np.random.default_rng(height).integers(0, 256, (height, width, 3), dtype=np.uint8)
    scale = 300 / min(height, width)
    size = int(height * scale), int(width * scale)
    wanted = np.asarray(Image.fromarray(image).resize(size[::-1], Image.Resampling.BILINEAR)).transpose(2, 0, 1)
    np.testing.assert_array_equal(cpu.resize_normalize(image, size, RGB, threads=2), wanted)


def test_equals_the_public_implementation():
    image = np.asarray(Image.open(PARITY / "frames" / "000000.png").convert("RGB"))
    expected = np.load(PARITY / "expected.npz")["input_t0"]
    got = cpu.resize_normalize(image, (160, 240), InputConfig())
    np.testing.assert_array_equal(got, expected)


def test_mean_and_std_follow_the_channel_order():
    image = np.full((2, 2, 3), [10, 20, 30], np.uint8)
    rgb = cpu.resize_normalize(image, (1, 1), replace(RGB, mean=(1, 2, 3), std=(3, 9, 27))).ravel()
    bgr = cpu.resize_normalize(image, (1, 1), replace(BGR, mean=(1, 2, 3), std=(1, 9, 3))).ravel()
    assert rgb.tolist() == [3, 2, 1]
    np.testing.assert_allclose(bgr, [29, 2, 7 / 3], rtol=1e-6)


def test_threads_and_layout_do_not_change_a_bit():
    image = np.random.default_rng(1).integers(0, 256, (2111, 4001, 3), dtype=np.uint8)  # enough to wake threads
    one = cpu.resize_normalize(image[:, ::-2], (1553, 1537), BGR)
    many = cpu.resize_normalize(image[:, ::-2].copy(), (1553, 1537), BGR, threads=4)
    np.testing.assert_array_equal(one, many)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image": np.zeros((4, 4, 4), np.uint8)}, r"uint8 \[4, 4, 4\]"),
        ({"image": np.zeros((4, 4, 3), np.float32)}, r"float32 \[4, 4, 3\]"),
        ({"image": np.zeros((0, 4, 3), np.uint8)}, r"\(0, 4\)"),
        ({"size": (5, 0)}, r"size.*\(5, 0\)"),
        ({"threads": 0}, "threads.*got 0"),
    ],
)
def test_refuses(change, message):
    good = {"image": np.zeros((4, 4, 3), np.uint8), "size": (2, 2), "config": RGB}
    with pytest.raises(ValueError, match=message):
        cpu.resize_normalize(**(good | change))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mean": [1.0, 2.0]}, "mean.*got 2"),
        ({"mean": [1.0, 2.0, float("inf")]}, "mean.*got inf"),
        ({"std": [1.0, 0.0, 1.0]}, "std.*got 0"),
    ],
)
def test_the_module_itself_refuses_what_no_configuration_holds(change, message):
    good = {"image": np.zeros((4, 4, 3), np.uint8), "size": (2, 2), "mean": [0.0] * 3, "std": [1.0] * 3}
    with pytest.raises(ValueError, match=message):
        _C.resize_normalize(*(good | change).values(), False, 1)
