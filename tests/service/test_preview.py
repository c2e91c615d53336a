"""Small pictures of results: those that somebody looks at, with the boxes where they belong."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from rdn_engine.errors import ConfigError
from rdn_engine.frame import Frame
from rdn_engine.media.draw import colour
from rdn_engine.results import Detections
from rdn_engine.service.camera import CheckOptions
from rdn_engine.service.preview import Preview, PreviewOptions, draw, shrink

OPTIONS = PreviewOptions(side=64, pictures_per_second=4, interest_seconds=10, room=3)
SIZES = (40, 80)


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def picture(level: int, height: int = SIZES[0], width: int = SIZES[1]) -> NDArray[np.uint8]:
    return np.full((height, width, 3), level, np.uint8)


def result(
    index: int, boxes: Any = (), height: int = SIZES[0], width: int = SIZES[1], confidence: Any = 0.9
) -> Detections:
    xyxy = np.asarray(boxes, np.float32).reshape(-1, 4)
    n = len(xyxy)
    return Detections(
        class_names=("cat", "dog"), frame_index=index, pts=None, source_id="door", height=height, width=width,
        pool_fill=1, lookahead=0, epoch=0, xyxy=xyxy, confidence=np.broadcast_to(np.float32(confidence), n),
        class_id=np.zeros(n, np.int64), tracker_id=None,
    )  # fmt: skip


def decoded(jpeg: bytes | None) -> NDArray[np.uint8]:
    assert jpeg is not None
    return np.asarray(Image.open(io.BytesIO(jpeg)))


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def preview(clock: Clock) -> Preview:
    return Preview("door", clock=clock, options=OPTIONS)


def test_while_nobody_looks_there_is_a_picture_now_and_then(preview: Preview, clock: Clock) -> None:
    """So that a camera that goes dark has a last one."""
    assert preview.jpeg() is None
    clock.now += 11
    for i in range(12):
        preview.see(Frame(picture(50 + 10 * i), i, None, "door"))
        preview.show(result(i))
        clock.now += 1
    image = decoded(preview.jpeg())
    assert image.shape == (32, 64, 3)
    assert abs(int(image.mean()) - 150) <= 2, "the first and every fifth after it"


def test_whoever_looks_gets_the_next_picture(preview: Preview, clock: Clock) -> None:
    preview.see(Frame(picture(90), 0, None, "door"))
    preview.show(result(0))
    clock.now += 0.1
    preview.jpeg()
    preview.see(Frame(picture(150), 1, None, "door"))
    preview.show(result(1))
    assert abs(int(decoded(preview.jpeg()).mean()) - 150) <= 2


def test_a_result_gets_the_picture_of_its_own_frame(preview: Preview, clock: Clock) -> None:
    preview.jpeg()
    for i in range(3):
        preview.see(Frame(picture(50 + 50 * i), i, None, "door"))
        clock.now += 0.25
    for i in range(3):
        preview.show(result(i))
        assert abs(int(decoded(preview.jpeg()).mean()) - 50 - 50 * i) <= 2


def test_frames_between_two_pictures_are_passed_over(preview: Preview, clock: Clock) -> None:
    preview.jpeg()
    for i in range(9):
        preview.see(Frame(picture(20 * i), i, None, "door"))
        clock.now += 0.0625
    for i in range(4):
        preview.show(result(i))
    assert int(decoded(preview.jpeg()).mean()) <= 2, "frames 1 to 3 came within a quarter of a second"
    for i in range(4, 8):
        preview.show(result(i))
    assert abs(int(decoded(preview.jpeg()).mean()) - 80) <= 2


def test_a_frame_without_a_result_does_not_hold_up_those_after_it(preview: Preview, clock: Clock) -> None:
    preview.jpeg()
    for i in range(3):
        preview.see(Frame(picture(50 + 50 * i), i, None, "door"))
        clock.now += 0.25
    preview.show(result(2))
    assert abs(int(decoded(preview.jpeg()).mean()) - 150) <= 2


def test_results_that_come_late_find_their_pictures(preview: Preview, clock: Clock) -> None:
    """More frames than there is room for: the oldest stays, or no picture would ever meet its result."""
    preview.jpeg()
    for i in range(10):
        preview.see(Frame(picture(20 + 20 * i), i, None, "door"))
        clock.now += 0.25
    preview.show(result(0))
    assert abs(int(decoded(preview.jpeg()).mean()) - 20) <= 2


def test_a_source_that_counts_anew_gets_pictures_again(preview: Preview, clock: Clock) -> None:
    preview.jpeg()
    for i in (70, 71, 72):
        preview.see(Frame(picture(10), i, None, "door"))
        clock.now += 0.25
    preview.see(Frame(picture(200), 0, None, "door"))
    preview.show(result(0))
    assert abs(int(decoded(preview.jpeg()).mean()) - 200) <= 2


def test_an_old_picture_is_not_shown_beside_new_results(preview: Preview, clock: Clock) -> None:
    preview.jpeg()
    preview.see(Frame(picture(90), 0, None, "door"))
    preview.show(result(0))
    clock.now += 11
    assert preview.jpeg() is not None, "no newer result has come"
    preview.show(result(1))
    assert preview.jpeg() is None, "of frame 1 there is none"


def test_the_picture_does_not_change_with_the_frame_it_was_made_of(preview: Preview) -> None:
    small = picture(90, 32, 64)
    preview.jpeg()
    preview.see(Frame(small, 0, None, "door"))
    small[:] = 0
    preview.show(result(0, height=32, width=64))
    assert abs(int(decoded(preview.jpeg()).mean()) - 90) <= 2


@pytest.mark.parametrize(
    ("height", "width", "aspect", "shown"),
    [
        (100, 200, 1.0, (32, 64)),
        (200, 100, 1.0, (64, 32)),
        (100, 200, 0.5, (64, 64)),
        (100, 100, 16 / 9, (36, 64)),
        (30, 50, 1.0, (30, 50)),
        (16, 3000, 1.0, (1, 64)),
    ],
)
def test_pictures_are_small_and_have_square_pixels(
    height: int, width: int, aspect: float, shown: tuple[int, int]
) -> None:
    assert shrink(picture(9, height, width), aspect, 64).shape == (*shown, 3)


@pytest.mark.parametrize("aspect", [0.5, 1.0, 1.5])
def test_boxes_lie_where_the_object_is(aspect: float) -> None:
    """A white object on black, shown at another size and shape: the box's line runs along its edge."""
    frame = picture(0, 200, 300)
    frame[80:160, 60:180] = 255
    small = shrink(frame, aspect, 150)
    drawn = draw(small, result(0, [60, 80, 180, 160], 200, 300), 0.5)
    line = (drawn == colour(0)).all(2)
    rows, columns = np.nonzero(line)
    object_rows, object_columns = np.nonzero(small[..., 0] > 127)
    assert abs(columns.min() - object_columns.min()) <= 1
    assert abs(rows.max() - object_rows.max()) <= 1
    assert abs(np.nonzero(line[object_rows.mean().astype(int)])[0].max() - object_columns.max()) <= 1


def test_boxes_of_little_confidence_are_not_drawn() -> None:
    small = picture(0)
    found = result(0, [[4, 20, 30, 38], [40, 20, 70, 38]], confidence=[0.9, 0.3])
    bottom_right = np.s_[34:, 45:]
    assert draw(small, found, 0.5)[bottom_right].max() == 0
    assert draw(small, found, 0.2)[bottom_right].max() > 0


def test_a_tile_gets_a_picture_of_about_its_size(preview: Preview) -> None:
    preview.jpeg()
    preview.see(Frame(picture(90), 0, None, "door"))
    preview.show(result(0))
    widths = [decoded(preview.jpeg(side)).shape[1] for side in (None, 1000, 64, 33, 32, 17, 16, 1)]
    assert widths == [64, 64, 64, 64, 32, 32, 16, 16]
    assert preview.jpeg(20) is preview.jpeg(30), "drawn once"


@pytest.mark.parametrize(
    "frame",
    [
        Frame(np.zeros((40, 80), np.uint8), 0, None, "door"),
        Frame(np.zeros((4, 4, 3), np.uint8), 0, None, "door"),
        Frame("no image", 0, None, "door"),  # type: ignore[arg-type]
        Frame(picture(9), -1, None, "door"),
        Frame(picture(9), 0, None, "door", pixel_aspect=float("nan")),
    ],
)
def test_what_the_stream_will_refuse_is_passed_over(preview: Preview, frame: Frame) -> None:
    preview.jpeg()
    preview.see(frame)
    preview.show(result(0))
    assert preview.jpeg() is None


def test_flags_are_those_of_the_frames_and_a_view_can_be_accepted(clock: Clock) -> None:
    options = PreviewOptions(checks=CheckOptions(dark_seconds=2, shifted_seconds=2, learn_seconds=3))
    preview = Preview("door", clock=clock, options=options)
    noise = np.random.default_rng(0)
    view = np.kron(noise.integers(30, 220, (40, 60)), np.ones((8, 8))).astype(np.float64)

    def see(seconds: float, across: int, gain: float = 1.0) -> None:
        for _ in range(int(seconds * 10)):
            grey = np.roll(view, across, 1) * gain + noise.normal(0, 2, view.shape)
            image = np.repeat(grey.clip(0, 255).astype(np.uint8)[..., None], 3, 2)
            preview.see(Frame(image, 0, None, "door"))
            clock.now += 0.1

    see(20, 0)
    assert preview.flags == ()
    see(10, 40)
    assert preview.flags == ("shifted",)
    preview.accept_view()
    assert preview.flags == ()
    see(20, 40)
    assert preview.flags == ()
    see(5, 40, 0.05)
    assert preview.flags == ("dark",)


@pytest.mark.parametrize("options", [{"side": 0}, {"quality": 100}, {"room": 0}, {"checks": {"dark_seconds": -1}}])
def test_options_out_of_range_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"preview|checks"):
        PreviewOptions(**options)
