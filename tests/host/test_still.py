"""What counts as still: blocks of a frame against those of the last encoded one."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from rdn_engine.errors import ConfigError
from rdn_engine.frame import Image
from rdn_engine.host.blocks import block_means
from rdn_engine.host.still import BLOCK, StillGate
from rdn_engine.input_config import InputConfig
from tests.fakes import DIALS

SIZE = (96, 128)
GATE = replace(DIALS, still=4.0, still_run=5)


def scene(size: tuple[int, int] = SIZE, seed: int = 0) -> Image:
    """A smooth picture with a darker square in it."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: size[0], : size[1]]
    picture = 90 + 30 * np.sin(x / 17 + rng.uniform(0, 6))[..., None] + 30 * np.cos(y / 23)[..., None] + np.zeros(3)
    picture[20:44, 30:54] -= 40
    return picture.clip(0, 255).astype(np.uint8)


def noisy(picture: Image, sigma: float, seed: int) -> Image:
    rng = np.random.default_rng(seed)
    return (picture + rng.normal(0, sigma, picture.shape)).round().clip(0, 255).astype(np.uint8)


class Watch:
    """A gate, and what a stream does with it."""

    def __init__(self, size: tuple[int, int] = SIZE) -> None:
        self.gate = StillGate(InputConfig(min(size), max(size)))
        self.new = True

    def __call__(self, image: Image, dials: object = GATE) -> bool:
        still = self.gate.look(image, (*image.shape[:2], 1.0), dials, new=self.new)  # type: ignore[arg-type]
        self.gate.done(dials, still=still)  # type: ignore[arg-type]
        self.new = False
        return still


def test_the_same_picture_is_still_and_the_first_is_not() -> None:
    watch = Watch()
    assert [watch(scene()) for _ in range(4)] == [False, True, True, True]


def test_the_noise_of_a_camera_is_still() -> None:
    """Of a standard deviation as large as the threshold, in every pixel of every colour."""
    for seed in range(5):
        watch = Watch()
        assert [watch(noisy(scene(), GATE.still, 10 * seed + t)) for t in range(5)] == [False, True, True, True, True]


def test_an_object_that_moves_is_not_still() -> None:
    watch = Watch()
    picture = scene()
    watch(picture)
    moved = picture.copy()
    moved[20:44, 32:56] = picture[20:44, 30:54]
    assert not watch(moved)


def test_slow_motion_is_seen_when_it_has_come_far_enough() -> None:
    """A square that creeps by a tenth of a pixel a frame, against one encoded again and again."""
    seen = 1 + 1 / 10 * np.arange(60)
    watch, encoded = Watch(), []
    for t, offset in enumerate(seen):
        picture = np.full((*SIZE, 3), 120, np.float64)
        first, part = int(offset), offset % 1
        picture[20:44, 30 + first : 54 + first] = 60
        picture[20:44, 30 + first] += 60 * part
        picture[20:44, 54 + first] -= 60 * part
        if not watch(picture.astype(np.uint8), replace(GATE, still_run=1000)):
            encoded.append(t)
    gaps = np.diff(encoded)
    # 60 levels over a block of 8: a pixel is 7.5, the threshold 4 more than half of one.
    assert len(encoded) > 5
    assert gaps.max() <= 10


def test_light_that_is_switched_is_seen_and_flicker_is_not() -> None:
    watch = Watch()
    assert [watch((scene() + np.uint8(level)).astype(np.uint8)) for level in (0, 2, 0, 3, 20, 22, 19)] == [
        False, True, True, True, False, True, True,
    ]  # fmt: skip


def test_daylight_that_fades_is_seen_in_steps() -> None:
    watch = Watch()
    encoded = [t for t in range(40) if not watch(scene() - np.uint8(t // 2), replace(GATE, still_run=1000))]
    assert encoded == [0, 10, 20, 30]


def test_a_colour_that_changes_at_the_same_brightness_is_seen() -> None:
    watch = Watch()
    red, green = scene(), scene()
    red[20:44, 30:54], green[20:44, 30:54] = (200, 40, 90), (40, 200, 90)
    assert [watch(red), watch(green)] == [False, False]


def test_m_in_a_row_at_most() -> None:
    watch = Watch()
    assert [watch(scene()) for _ in range(14)] == ([False] + [True] * 5) * 2 + [False, True]


def test_blocks_follow_the_network_input() -> None:
    """A frame four times as large has as many blocks, and what covers a pixel of the input is not overlooked."""
    large = np.repeat(np.repeat(scene(), 4, 0), 4, 1)
    small, gate = Watch(), StillGate(InputConfig(*SIZE))
    small(scene())
    gate.look(large, (*large.shape[:2], 1.0), GATE, new=True)
    gate.done(GATE, still=False)
    moved = large.copy()
    moved[80:176, 128:224] = large[80:176, 120:216]
    assert gate.look(large, (*large.shape[:2], 1.0), GATE, new=False)
    assert not gate.look(moved, (*large.shape[:2], 1.0), GATE, new=False)
    assert block_means(large, (4 * BLOCK, 4 * BLOCK)).shape == block_means(scene(), (BLOCK, BLOCK)).shape


def test_frames_smaller_than_a_block_are_one() -> None:
    config = InputConfig(16, 16)
    tiny = np.full((16, 2000, 3), 7, np.uint8)
    gate = StillGate(config)
    assert not gate.look(tiny, (16, 2000, 1.0), GATE, new=True)


def test_a_wrong_run_is_refused_with_its_range_in_whole_numbers() -> None:
    with pytest.raises(ConfigError, match=r"dials\.still_run is 0; wanted 1\.\.1048576$"):
        replace(GATE, still_run=0)
