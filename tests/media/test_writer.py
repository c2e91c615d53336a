"""The annotated video, written and read back."""

from __future__ import annotations

import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from rdn_engine.errors import VideoError, VideoWriteError
from rdn_engine.media.writer import CONTAINERS, VideoWriter
from tests.media.clips import HEIGHT, LOSSY, WIDTH, picture, read

MATRICES = {(480, 640): (6, 0.299, 0.114), (720, 1280): (1, 0.2126, 0.0722), (360, 1280): (1, 0.2126, 0.0722)}
"""Size -> matrix coefficients of ITU-T H.273: number, Kr, Kb"""

MILLISECOND = 1e-3  # Matroska's clock


@pytest.mark.parametrize("size", [(64, 96), (33, 47)])
def test_writer_round_trip(tmp_path: Path, size: tuple[int, int]) -> None:
    path = tmp_path / "out.mp4"
    times = [0.0, 0.04, 0.12, 0.5]
    with VideoWriter(path, fps=25.0) as writer:
        for t, seconds in enumerate(times):
            writer.write(picture(t, *size), seconds)
    frames, skipped = read(path)
    assert skipped == 0
    assert [f.pts for f in frames] == pytest.approx(times, abs=1e-4)
    for t, frame in enumerate(frames):
        assert frame.image.shape == (size[0] + size[0] % 2, size[1] + size[1] % 2, 3)
        assert np.abs(frame.image[: size[0], : size[1]].astype(int) - picture(t, *size)).mean() < LOSSY


@pytest.mark.parametrize("frames", [0, 3])
def test_a_video_that_was_closed_takes_no_more_frames(tmp_path: Path, frames: int) -> None:
    """PyAV 18.1.0 takes the first frame of a video that was closed without one, and writes it nowhere."""
    writer = VideoWriter(tmp_path / "a.mp4")
    for t in range(frames):
        writer.write(picture(t))
    writer.close()
    with pytest.raises(VideoWriteError, match=r"a\.mp4 cannot be written: it was closed; wanted an open one"):
        writer.write(picture(frames))
    writer.close()
    if frames:
        assert len(read(tmp_path / "a.mp4")[0]) == frames


def test_writer_without_times_and_with_repeated_times(tmp_path: Path) -> None:
    with VideoWriter(tmp_path / "a.mp4", fps=10.0) as writer:
        for t in range(3):
            writer.write(picture(t))
    assert [f.pts for f in read(tmp_path / "a.mp4")[0]] == pytest.approx([0, 0.1, 0.2], abs=1e-4)
    with VideoWriter(tmp_path / "b.mp4") as writer:
        for t in range(3):
            writer.write(picture(t), 1.0 - t)
    assert len(read(tmp_path / "b.mp4")[0]) == 3


CLOCKS = {
    "starts late": [[36_000 + t / 25 for t in range(10)]],
    "negative": [[-5 + t / 25 for t in range(10)]],
    "restarts": [[t / 25 for t in range(10)]] * 3,
    "wraps": [[95_443.7 + t / 25 for t in range(10)], [t / 25 for t in range(10)]],
    "jumps": [[t / 25 for t in range(10)], [3600 + t / 25 for t in range(10)]],
    "has none, then one": [[None] * 10, [7 + t / 25 for t in range(10)]],
}
"""Times of the frames of each epoch, seconds, 25 frames a second"""


@pytest.mark.parametrize("suffix", CONTAINERS)
@pytest.mark.parametrize("clock", CLOCKS)
def test_video_starts_at_0_and_epochs_follow_each_other(tmp_path: Path, clock: str, suffix: str) -> None:
    path, count = tmp_path / f"a{suffix}", 0
    with VideoWriter(path, fps=25.0) as writer:
        for epoch, times in enumerate(CLOCKS[clock]):
            for t, seconds in enumerate(times):
                writer.write(picture(t), seconds, epoch)
                count += 1
    assert [f.pts for f in read(path)[0]] == pytest.approx([t / 25 for t in range(count)], abs=MILLISECOND)
    with av.open(str(path)) as container:
        assert container.duration is not None
        assert container.duration / av.time_base == pytest.approx(count / 25, abs=2 * MILLISECOND)


def test_gap_within_an_epoch_is_kept(tmp_path: Path) -> None:
    with VideoWriter(tmp_path / "a.mp4", fps=25.0) as writer:
        for t, seconds in enumerate([100.0, 100.04, 101.5, 101.54]):
            writer.write(picture(t), seconds)
    assert [f.pts for f in read(tmp_path / "a.mp4")[0]] == pytest.approx([0, 0.04, 1.5, 1.54], abs=1e-4)


@pytest.mark.parametrize("suffix", CONTAINERS)
def test_gap_above_an_hour_within_an_epoch_is_one_spacing(tmp_path: Path, suffix: str) -> None:
    """Of one kept, two that MP4 could not hold, and one that no clock has; what follows them keeps its time."""
    times = [0.0, 0.5, 3599.0, 3599.5, 43_200.0, 43_200.5, 3e14, 1e308, 1e308, None]
    with VideoWriter(tmp_path / f"a{suffix}", fps=25.0) as writer:
        for t, seconds in enumerate(times):
            writer.write(picture(t), seconds)
    found = [f.pts for f in read(tmp_path / f"a{suffix}")[0]]
    assert found[:6] == pytest.approx([0, 0.5, 3599, 3599.5, 3599.54, 3600.04], abs=MILLISECOND)
    assert found[6:8] == pytest.approx([3600.08, 3600.12], abs=MILLISECOND)
    assert len(found) == len(times)
    assert sorted(set(found)) == found  # type: ignore[type-var]


@pytest.mark.parametrize("suffix", CONTAINERS)
@pytest.mark.parametrize("fps", [5e-324, 1 / 36_000, 1 / 3600, 0.5, 24_000 / 1001, 59.94, 1000, 10**6, 1e308])
def test_every_rate_is_written(tmp_path: Path, suffix: str, fps: float) -> None:
    path, spacing = tmp_path / f"a{suffix}", min(1 / fps if fps > 1e-300 else np.inf, 3600)
    with VideoWriter(path, fps=fps) as writer:
        for t in range(5):
            writer.write(picture(t))
    found = [f.pts for f in read(path)[0]]
    assert found == pytest.approx([t * max(spacing, MILLISECOND) for t in range(5)], abs=1.1 * MILLISECOND)
    assert len(set(found)) == 5


@pytest.mark.parametrize("fps", [0, 0.0, -25.0, float("nan"), float("inf"), 10**400, "25", True])
def test_what_is_no_rate_is_refused(tmp_path: Path, fps: float) -> None:
    with pytest.raises(VideoWriteError, match=r"fps is .*; wanted a finite number above 0"):
        VideoWriter(tmp_path / "a.mp4", fps=fps)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("suffix", CONTAINERS)
def test_frames_of_one_time_are_told_apart(tmp_path: Path, suffix: str) -> None:
    """Times that stand still, step back, or are nearer than Matroska's clock can tell."""
    times = [5.0, 5.0, 5.0, 4.0, 5.0, 5.0001, 5.0002, 5.0003, 5.0004, 6.0]
    with VideoWriter(tmp_path / f"a{suffix}", fps=25.0) as writer:
        for t, seconds in enumerate(times):
            writer.write(picture(t), seconds)
    found = [f.pts for f in read(tmp_path / f"a{suffix}")[0]]
    assert np.diff(found).min() == pytest.approx(MILLISECOND)  # type: ignore[arg-type]
    assert found[-1] == pytest.approx(1.0, abs=MILLISECOND)


FRAMES = {
    "nothing": None,
    "a list": [[[0, 0, 0]]],
    "floats": np.zeros((4, 4, 3), np.float32),
    "grey": np.zeros((4, 4), np.uint8),
    "four channels": np.zeros((4, 4, 4), np.uint8),
    "planes first": np.zeros((3, 4, 4), np.uint8),
    "no rows": np.zeros((0, 4, 3), np.uint8),
    "no pixels": np.zeros((0, 0, 3), np.uint8),
    "too wide": np.broadcast_to(np.zeros(3, np.uint8), (1, 2**31, 3)),
}


@pytest.mark.parametrize("frames_before", [0, 2])
@pytest.mark.parametrize("what", FRAMES)
def test_what_is_no_frame_is_refused_and_the_video_goes_on(tmp_path: Path, what: str, frames_before: int) -> None:
    with VideoWriter(tmp_path / "a.mp4") as writer:
        for t in range(frames_before):
            writer.write(picture(t))
        with pytest.raises(VideoWriteError, match=r"a\.mp4 cannot be written: a frame is .*; wanted uint8 \[H, W, 3\]"):
            writer.write(FRAMES[what])  # type: ignore[arg-type]
        writer.write(picture(0))
    assert len(read(tmp_path / "a.mp4")[0]) == frames_before + 1


@pytest.mark.parametrize("pts", [float("nan"), float("inf"), -float("inf"), 10**400, "0:01", True])
def test_what_is_no_time_is_refused(tmp_path: Path, pts: float) -> None:
    with VideoWriter(tmp_path / "a.mp4") as writer:
        with pytest.raises(VideoWriteError, match=r"pts is .*; wanted finite seconds"):
            writer.write(picture(0), pts)
        writer.write(picture(0), np.float32(1))  # type: ignore[arg-type]
    assert len(read(tmp_path / "a.mp4")[0]) == 1


ASPECTS = [0, -1, 1.5, float("nan"), None, Fraction(2**31), Fraction(1, 2**31), Fraction(10**30 + 1, 10**30)]


@pytest.mark.parametrize("aspect", ASPECTS)
def test_what_is_no_shape_of_pixels_is_refused(tmp_path: Path, aspect: Fraction) -> None:
    with VideoWriter(tmp_path / "a.mp4") as writer:
        with pytest.raises(VideoWriteError, match=r"pixel_aspect is .*; wanted a Fraction"):
            writer.write(picture(0), pixel_aspect=aspect)
        writer.write(picture(0), pixel_aspect=Fraction(2**31 - 1, 3))
    assert len(read(tmp_path / "a.mp4")[0]) == 1


@pytest.mark.parametrize("size", [(1, 1), (1, 16_384), (16_384, 1)])
def test_the_smallest_and_the_longest_are_frames(tmp_path: Path, size: tuple[int, int]) -> None:
    with VideoWriter(tmp_path / "a.mp4") as writer:
        writer.write(picture(0, *size))
        writer.write(picture(1, *size[::-1]))
    assert [f.image.shape[:2] for f in read(tmp_path / "a.mp4")[0]] == [tuple(side + side % 2 for side in size)] * 2


@pytest.mark.parametrize("suffix", CONTAINERS)
@pytest.mark.parametrize("aspect", [Fraction(64, 45), Fraction(8, 9), Fraction(1)])
def test_shape_of_pixels_is_written(tmp_path: Path, suffix: str, aspect: Fraction) -> None:
    path = tmp_path / f"a{suffix}"
    with VideoWriter(path) as writer:
        writer.write(picture(0, 72, 90), pixel_aspect=aspect)
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert (stream.width, stream.height) == (90, 72)
        assert stream.sample_aspect_ratio in ((aspect, None) if aspect == 1 else (aspect,))


@pytest.mark.parametrize("suffix", CONTAINERS)
@pytest.mark.parametrize("size", MATRICES)
def test_colours_are_converted_by_the_matrix_that_is_tagged(tmp_path: Path, size: tuple[int, int], suffix: str) -> None:
    colours = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (0, 0, 0), (200, 120, 40)]
    path, (tag, kr, kb) = tmp_path / f"a{suffix}", MATRICES[size]
    with VideoWriter(path) as writer:
        for colour in colours:
            writer.write(np.full((*size, 3), colour, np.uint8))
    with av.open(str(path)) as container:
        frames = list(container.decode(video=0))
    for colour, frame in zip(colours, frames, strict=True):
        assert (frame.colorspace, frame.color_range, frame.color_primaries, frame.color_trc) == (tag, 1, 1, 1)
        red, green, blue = (c / 255 for c in colour)
        luma = kr * red + (1 - kr - kb) * green + kb * blue
        wanted = (
            16 + 219 * luma,
            128 + 112 * (blue - luma) / (1 - kb),
            128 + 112 * (red - luma) / (1 - kr),
        )  # BT.601 and BT.709, limited range
        height = size[0]
        stored = frame.to_ndarray()
        planes = stored[:height], stored[height : height * 5 // 4], stored[height * 5 // 4 :]
        for plane, level in zip(planes, wanted, strict=True):
            # Half a level of rounding, and one that quantization may leave of a flat picture.
            assert np.abs(plane - level).max() <= 1.5
        # FFmpeg's own reading by the tags leads back: a level of luma is 1.16 of RGB, one of chroma up to 2.2.
        assert np.abs(frame.to_ndarray(format="rgb24").astype(int) - colour).max() <= 6


def test_writer_fits_other_sizes_into_the_first(tmp_path: Path) -> None:
    with VideoWriter(tmp_path / "a.mp4") as writer:
        writer.write(picture(0))
        writer.write(np.full((64, 32, 3), 200, np.uint8))
    second = read(tmp_path / "a.mp4")[0][1].image
    assert second.shape == (HEIGHT, WIDTH, 3)
    assert second[:, 36:60].min() > 180
    assert second[:, :28].max() < 40


def test_writer_refuses_an_impossible_place(tmp_path: Path) -> None:
    (tmp_path / "folder.mp4").mkdir()
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    long, zero = tmp_path / f"{'n' * 252}.mp4", tmp_path / "a\0b.mp4"
    deep = tmp_path / "/".join(["n" * 200] * 30) / "a.mp4"
    for path in (tmp_path / "no" / "a.mp4", tmp_path / "folder.mp4", tmp_path / "loop" / "a.mp4", long, zero, deep):
        with pytest.raises(VideoWriteError, match="cannot be written") as caught:
            VideoWriter(path)
        assert str(path) in str(caught.value)


@pytest.mark.parametrize("name", ["a.avi", "a.gif", "a.webm", "a.txt", "a.ogg", "a.h264", "a.nonsense", "a", "-"])
def test_writer_names_the_containers_that_work(tmp_path: Path, name: str) -> None:
    with pytest.raises(VideoError, match=r"cannot be written: .*\.mp4, \.mkv, \.mov"):
        VideoWriter(tmp_path / name)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("suffix", [*CONTAINERS, ".MP4"])
def test_named_containers_do_work(tmp_path: Path, suffix: str) -> None:
    with VideoWriter(tmp_path / f"a{suffix}") as writer:
        writer.write(picture(0))
    assert len(read(tmp_path / f"a{suffix}")[0]) == 1


def test_writer_without_a_frame_leaves_no_file(tmp_path: Path) -> None:
    VideoWriter(tmp_path / "a.mp4").close()
    assert list(tmp_path.iterdir()) == []


def noise(t: int) -> np.ndarray:
    """What no encoder makes small."""
    return np.random.default_rng(t).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)


def write_noise(writer: VideoWriter, frames: int) -> None:
    with writer:
        for t in range(frames):
            writer.write(noise(t))


@pytest.mark.parametrize("suffix", CONTAINERS)
@pytest.mark.parametrize("frames", [1, 300])
def test_full_disk_is_an_error_that_names_the_file(tmp_path: Path, suffix: str, frames: int) -> None:
    """At the header, on the way, or only when the video is finished: whatever the container."""
    path = tmp_path / f"a{suffix}"
    path.symlink_to("/dev/full")
    with pytest.raises(VideoWriteError, match="No space left") as caught:
        write_noise(VideoWriter(path), frames)
    assert str(path) in str(caught.value)


def test_nothing_is_written_after_an_error(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    path.symlink_to("/dev/full")
    writer = VideoWriter(path)
    with pytest.raises(VideoWriteError, match="No space left"):
        write_noise(writer, 300)
    for _ in range(3):
        with pytest.raises(VideoWriteError, match="an earlier frame was not"):
            writer.write(noise(0))
    writer.close()


LIMITED = """
import resource, sys
from rdn_engine.errors import VideoWriteError
from rdn_engine.media.writer import VideoWriter
from tests.media.test_writer import write_noise
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
try:
    write_noise(VideoWriter(sys.argv[1]), int(sys.argv[3]))
except VideoWriteError as error:
    print(error)
"""


@pytest.mark.parametrize("suffix", CONTAINERS)
@pytest.mark.parametrize(("limit", "frames"), [(300, 1), (20_000, 300)])
def test_file_that_may_not_grow_is_an_error_too(tmp_path: Path, suffix: str, limit: int, frames: int) -> None:
    """A limit lets the header through, as a disk that becomes full does."""
    path = tmp_path / f"a{suffix}"
    found = subprocess.run(
        [sys.executable, "-c", LIMITED, path, str(limit), str(frames)],
        cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    assert found.stdout == f"{path} cannot be written: File too large\n"
    assert found.stderr == ""
