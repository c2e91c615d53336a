"""What makes a camera dark, frozen or shifted, and what does not."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from typing import NamedTuple

import av
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from rdn_engine.errors import ConfigError
from rdn_engine.kernels.cpu.arrays import Float
from rdn_engine.service.camera import SIDE, CameraChecks, CameraFlag, CheckOptions, small_grey

HEIGHT, WIDTH = 180, 320
RATE = 4  # frames a second
OPTIONS = CheckOptions(frozen_seconds=15)
ENDS = 60.0  # seconds of a clip
WHEN = 25.0  # seconds: when something happens

Scene = Callable[[float], Float]
"""[HEIGHT, WIDTH, 3] levels, without noise, at a second"""


def room(seed: int, height: int = 2 * HEIGHT, width: int = 2 * WIDTH) -> Float:
    """Furniture: boxes and lines of all contrasts."""
    rng = np.random.default_rng(seed)
    canvas = Image.new("RGB", (width, height), tuple(int(v) for v in rng.integers(90, 180, 3)))
    draw = ImageDraw.Draw(canvas)
    for _ in range(50):
        x, y, across, down = (int(v) for v in rng.integers(0, (width, height, width // 6, height // 5)))
        draw.rectangle((x, y, x + across, y + down), fill=tuple(int(v) for v in rng.integers(20, 240, 3)))
    for _ in range(40):
        line = [tuple(int(v) for v in rng.integers(0, (width, height))) for _ in range(2)]
        draw.line(line, fill=tuple(int(v) for v in rng.integers(0, 255, 3)), width=int(rng.integers(1, 4)))
    return np.asarray(canvas).astype(np.float32)


ROOM = room(1)


def look(across: float = 0, down: float = 0, scene: Float = ROOM) -> Float:
    """What a camera sees that is turned by so many pixels."""
    y, x = int(60 + down), int(100 + across)
    return scene[y : y + HEIGHT, x : x + WIDTH].copy()


def filmed(scene: Scene, noise: float = 2.0, seconds: float = ENDS) -> Iterator[tuple[float, NDArray[np.uint8]]]:
    rng = np.random.default_rng(0)
    for i in range(int(seconds * RATE)):
        grain = rng.normal(0, noise, (HEIGHT, WIDTH, 3)) if noise else 0.0
        yield i / RATE, (scene(i / RATE) + grain).clip(0, 255).astype(np.uint8)


def coded(frames: Iterator[tuple[float, NDArray[np.uint8]]], crf: int) -> Iterator[tuple[float, NDArray[np.uint8]]]:
    """The same through H.264, as cameras send it."""
    buffer, times = io.BytesIO(), []
    with av.open(buffer, "w", format="matroska") as container:
        video = container.add_stream("libx264", rate=RATE)
        video.height, video.width, video.pix_fmt = HEIGHT, WIDTH, "yuv420p"
        video.options = {"tune": "zerolatency", "preset": "veryfast", "crf": str(crf), "g": str(4 * RATE)}
        for seconds, image in frames:
            times.append(seconds)
            container.mux(video.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(video.encode())
    buffer.seek(0)
    with av.open(buffer) as container:
        for seconds, frame in zip(times, container.decode(video=0), strict=True):
            yield seconds, frame.to_ndarray(format="rgb24").astype(np.uint8)


class Change(NamedTuple):
    seconds: float
    flags: tuple[CameraFlag, ...]


def changes(
    frames: Iterator[tuple[float, NDArray[np.uint8]]], options: CheckOptions = OPTIONS, every: int = 2
) -> list[Change]:
    """When the flags changed, and to which."""
    checks, found = CameraChecks(options), [Change(0.0, ())]
    for i, (seconds, image) in enumerate(frames):
        if i % every == 0:
            checks.see(small_grey(image), seconds)
            if checks.flags != found[-1].flags:
                found.append(Change(seconds, checks.flags))
    return found[1:]


def walkers(count: int, scene: Float | None = None) -> Scene:
    """People as tall as half the picture, who walk through at different speeds."""
    rng = np.random.default_rng(count)
    starts, speeds = rng.uniform(0, 1, count), rng.uniform(0.02, 0.12, count) * rng.choice([-1, 1], count)
    people = list(
        zip(starts, speeds, rng.integers(20, 55, count).tolist(), rng.integers(0, 255, (count, 3)), strict=True)
    )

    def seen_at(t: float) -> Float:
        seen = look() if scene is None else scene.copy()
        for start, speed, wide, shade in people:
            x = int(((start + speed * t) % 1.3 - 0.15) * WIDTH)
            seen[60 : 80 + 2 * wide, max(0, x - wide // 2) : max(0, x + wide // 2)] = shade
        return seen

    return seen_at


def after(before: Float, then: Float, until: float = ENDS) -> Scene:
    return lambda t: then if WHEN < t < until else before


SIDE_LIGHT = np.linspace(0.2, 1.3, WIDTH, dtype=np.float32)[None, :, None]
FENCE = np.full((HEIGHT, WIDTH, 3), 120, np.float32)
FENCE[:, ::12], FENCE[20::40] = 60, 200
PARKED = np.concatenate([np.full_like(look()[:, :140], 120), look()[:, 140:]], 1)
VIBRATION = np.random.default_rng(5).integers(-2, 3, (int(ENDS * RATE), 2))


@pytest.mark.parametrize(
    ("scene", "noise"),
    [
        pytest.param(lambda t: look(), 1.0, id="nothing happens"),
        pytest.param(lambda t: look(), 20.0, id="noise"),
        pytest.param(walkers(3), 2.0, id="people"),
        pytest.param(walkers(10), 2.0, id="many people"),
        pytest.param(walkers(6, FENCE), 2.0, id="people before a fence"),
        pytest.param(after(look(), look() * 0.3), 2.0, id="light goes out"),
        pytest.param(after(look(), look() * SIDE_LIGHT), 2.0, id="light from the side"),
        pytest.param(after(look(), (255 - look()) * 0.8), 2.0, id="infrared"),
        pytest.param(lambda t: look() * (1 - 0.012 * t), 4.0, id="dusk"),
        pytest.param(after(look(), PARKED), 2.0, id="a lorry parks"),
        pytest.param(lambda t: look(*VIBRATION[int(t * RATE)]), 2.0, id="vibration"),
        pytest.param(after(look(), look(2, 1)), 2.0, id="a push of less than a hundredth"),
    ],
)  # fmt: skip
def test_what_happens_before_a_good_camera_raises_no_flag(scene: Scene, noise: float) -> None:
    assert changes(filmed(scene, noise)) == []


@pytest.mark.parametrize("crf", [23, 38])
def test_a_camera_whose_pictures_are_compressed_raises_no_flag(crf: int) -> None:
    assert changes(coded(filmed(walkers(2), 2.0, 45), crf)) == []
    assert changes(coded(filmed(lambda t: look(), 2.0, 45), crf)) == []


@pytest.mark.parametrize(
    "turned",
    [
        pytest.param(look(8), id="by a fortieth to the side"),
        pytest.param(look(0, 20), id="up"),
        pytest.param(look(80, 30), id="by a quarter"),
        pytest.param(look(scene=room(2)), id="to another room"),
        pytest.param(look(scene=room(3)), id="to a third room"),
        pytest.param(look(8) * 0.5, id="and dimmed"),
    ],
)
def test_a_camera_that_was_turned_is_shifted_until_it_is_back(turned: Float) -> None:
    [raised, gone] = changes(filmed(after(look(), turned, until=40)))
    assert raised.flags == ("shifted",)
    assert WHEN + 5 <= raised.seconds <= WHEN + 11
    assert gone.flags == ()
    assert 42 <= gone.seconds <= 48


def test_people_do_not_hide_that_a_camera_was_turned() -> None:
    people = walkers(4)
    [raised] = changes(filmed(lambda t: people(t) if t < WHEN else np.roll(people(t), 30, 1)))
    assert raised.flags == ("shifted",)
    assert raised.seconds <= WHEN + 12


def test_who_stood_there_while_the_view_was_learned_may_leave() -> None:
    """A large figure on black is much of what there is to see."""

    def scene(t: float) -> Float:
        seen = np.full((HEIGHT, WIDTH, 3), 8, np.float32)
        seen[10:170:12, 10:20], seen[10:170:12, 280:310] = 60, 90
        seen[20:26, 10:300:24], seen[164:170, 10:300:24] = 60, 60
        x = 60 if t < 20 else int(60 + 4 * (t - 20))
        seen[60:150, x : x + 60] = 160
        return seen

    assert changes(filmed(scene, 1.0)) == []


def test_a_view_that_is_accepted_is_the_right_one() -> None:
    checks = CameraChecks(OPTIONS)
    for seconds, image in filmed(after(look(), look(30))):
        checks.see(small_grey(image), seconds)
    assert checks.flags == ("shifted",)
    checks.accept_view()
    for seconds, image in filmed(lambda t: look(30) if t < WHEN else look()):
        checks.see(small_grey(image), ENDS + seconds)
        if seconds < WHEN:
            assert checks.flags == ()
    assert checks.flags == ("shifted",), "the old view is another one now"


def test_a_camera_that_pans_all_the_time_is_not_judged() -> None:
    assert changes(filmed(lambda t: look(90 * np.sin(t), 40 * np.cos(t)))) == []


COVERED = np.full((HEIGHT, WIDTH, 3), 90, np.float32)


@pytest.mark.parametrize(
    "covered",
    [
        pytest.param(look() * 0.03, id="night"),
        pytest.param(COVERED, id="a bag over it"),
        pytest.param(COVERED + np.linspace(0, 4, WIDTH, dtype=np.float32)[None, :, None], id="a hand"),
    ],
)
def test_a_picture_that_shows_nothing_is_dark(covered: Float) -> None:
    [raised, gone] = changes(filmed(after(look(), covered, until=45), 4.0))
    assert (raised.flags, gone.flags) == (("dark",), ())
    assert WHEN + 5 <= raised.seconds <= WHEN + 8
    assert 47 <= gone.seconds <= 50


def test_time_and_name_written_into_a_picture_do_not_lighten_it() -> None:
    covered = COVERED * 0
    covered[4:14, 10:120], covered[-14:-4, 200:310] = 230, 230
    assert [one.flags for one in changes(filmed(after(look(), covered)))] == [("dark",)]


def test_something_small_and_lit_on_black_is_seen() -> None:
    seen = COVERED * 0
    seen[80:100, 150:168] = 200  # less than a hundredth
    assert changes(filmed(lambda t: seen)) == []


def test_a_flash_or_a_short_cover_is_nothing() -> None:
    assert changes(filmed(after(look(), COVERED * 0, until=WHEN + 4))) == []


def test_the_same_picture_again_and_again_is_frozen() -> None:
    stuck = [frame for _, frame in filmed(lambda t: look())]

    def frames() -> Iterator[tuple[float, NDArray[np.uint8]]]:
        for i, frame in enumerate(stuck):
            yield i / RATE, stuck[int(WHEN * RATE)] if WHEN <= i / RATE < 50 else frame

    [raised, gone] = changes(frames())
    assert (raised.flags, gone.flags) == (("frozen",), ())
    assert WHEN + 15 <= raised.seconds <= WHEN + 16
    assert 50 <= gone.seconds <= 51


def test_a_camera_that_is_stuck_is_found_out_behind_its_encoder() -> None:
    """What comes out of the encoder differs from picture to picture, until all of them have been there."""
    live = list(filmed(lambda t: look(), seconds=130))
    stuck = [(t, image if t < WHEN else live[int(WHEN * RATE)][1]) for t, image in live]
    [raised] = changes(coded(iter(stuck), 23), every=1)
    assert raised.flags == ("frozen",)
    assert raised.seconds > WHEN + 15


def test_a_short_loop_is_frozen_and_a_long_one_is_not() -> None:
    film = [image for _, image in filmed(lambda t: look(), seconds=50)]
    assert [one.flags for one in changes((i / RATE, film[i % 40]) for i in range(240))] == [("frozen",)]
    assert changes(((i / RATE, film[i % 200]) for i in range(480)), every=1) == []


def test_a_drawn_scene_is_frozen_only_after_its_time_and_never_without_one() -> None:
    assert changes(filmed(lambda t: look(), 0.0, 14)) == []
    assert [one.flags for one in changes(filmed(lambda t: look(), 0.0, 20))] == [("frozen",)]
    assert changes(filmed(lambda t: look(), 0.0, 59), CheckOptions()) == [], "a minute, by default"
    assert changes(filmed(lambda t: look(), 0.0), CheckOptions(frozen_seconds=None)) == []


def test_a_clock_in_the_picture_shows_that_it_is_not_frozen() -> None:
    def scene(t: float) -> Float:
        seen = look()
        for bit in range(7):
            seen[4:12, 200 + 12 * bit : 210 + 12 * bit] = 250 * (int(t) >> bit & 1)
        return seen

    assert changes(filmed(scene, 0.0)) == []


def test_every_check_can_be_switched_off() -> None:
    off = CheckOptions(dark_seconds=None, frozen_seconds=None, shifted_seconds=None)
    assert changes(filmed(after(look(), COVERED * 0), 0.0), off) == []
    assert changes(filmed(after(look(), look(80))), off) == []


@pytest.mark.parametrize("gap", [1.0, 20.0])
def test_slow_cameras_are_judged_by_several_pictures(gap: float) -> None:
    checks = CameraChecks(OPTIONS)
    flags = []
    for i in range(8):
        checks.see(np.zeros((SIDE, SIDE), np.uint8), i * gap)
        flags.append("dark" in checks.flags)
    assert not any(flags[:3]), "three pictures are too few, however far apart"
    assert flags[-1]


@pytest.mark.parametrize("shape", [(16, 16), (16, 4000), (4000, 16), (1080, 1920), (361, 719), (1, 1)])
def test_frames_of_every_shape_become_small(shape: tuple[int, int]) -> None:
    image = np.zeros((*shape, 3), np.uint8)
    image[:, shape[1] // 2 :] = 200
    small = small_grey(image)
    assert (small.shape, small.dtype) == ((SIDE, SIDE), np.uint8)
    assert small[:, -1].min() == 200
    assert shape[1] == 1 or small[:, 0].max() == 0


@pytest.mark.parametrize(
    "field", ["dark_seconds", "frozen_seconds", "shifted_seconds", "learn_seconds", "adapt_seconds"]
)
def test_seconds_out_of_range_are_refused(field: str) -> None:
    with pytest.raises(ConfigError, match=f"checks.{field} is -1"):
        CheckOptions(**{field: -1})
