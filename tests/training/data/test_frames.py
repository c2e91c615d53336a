"""Frames of a video as images, for annotations that come without them."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rdn_engine.errors import DatasetError, VideoError
from rdn_engine.frame import Frame
from rdn_engine.media.writer import VideoWriter
from training.data.frames import write_frames
from training.data.readers.base import frames_of

ROOT = Path(__file__).parents[3]


@pytest.fixture
def clip(tmp_path):
    """Five frames of 64 x 48, each brighter than the one before"""
    path = tmp_path / "street.mp4"
    with VideoWriter(path, 10) as writer:
        for t in range(5):
            writer.write(np.full((48, 64, 3), 40 * t, np.uint8))
    return path


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_every_frame_is_written_in_order(clip, tmp_path, suffix):
    assert write_frames(clip, tmp_path / "a/frames", suffix) == 5
    found = frames_of(tmp_path / "a/frames")
    assert list(found) == [0, 1, 2, 3, 4]
    for t, path in found.items():
        with Image.open(path) as image:
            assert image.size == (64, 48)
            assert abs(float(np.asarray(image).mean()) - 40 * t) < 4


@pytest.mark.parametrize(
    ("fps", "shown"), [(10, [0, 1, 2, 3, 4]), (5, [0, 2, 4]), (20, [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]), (4, [0, 2])]
)
def test_frames_at_another_rate(clip, tmp_path, fps, shown):
    """Of 10 frames a second, at 4: what is shown at 0 and 0.25 s; at 0.5 s the clip is over."""
    assert write_frames(clip, tmp_path / "frames", ".png", fps) == len(shown)
    levels = [float(np.asarray(Image.open(path)).mean()) for path in frames_of(tmp_path / "frames").values()]
    assert [round(level / 40) for level in levels] == shown


class Damaged:
    """A source whose frame 1 was skipped as damaged"""

    warnings = ("frame 1 is damaged",)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        return None

    def __iter__(self):
        return (Frame(np.full((8, 8, 3), 40 * t, np.uint8), t, None, "street.mp4") for t in (0, 2, 3))


def test_a_damaged_frame_moves_no_other(tmp_path, monkeypatch, capsys):
    """Annotations of frame 2 stay with its picture."""
    monkeypatch.setattr("training.data.frames.open_source", lambda _: Damaged())
    assert write_frames(Path("street.mp4"), tmp_path) == 3
    assert list(frames_of(tmp_path)) == [0, 2, 3]
    assert capsys.readouterr().err == "note: frame 1 is damaged\n"
    with pytest.raises(DatasetError, match="frame 0 has no time; wanted a video that has, or no --fps"):
        write_frames(Path("street.mp4"), tmp_path / "other", fps=5)


def test_two_videos_do_not_mix(clip, tmp_path):
    write_frames(clip, tmp_path / "frames")
    with pytest.raises(DatasetError, match="holds frames; wanted an empty folder"):
        write_frames(clip, tmp_path / "frames")
    with pytest.raises(DatasetError, match=r"wanted one of .jpg, .png and 0..1000"):
        write_frames(clip, tmp_path / "other", ".tiff")
    with pytest.raises(VideoError):
        write_frames(tmp_path / "absent.mp4", tmp_path / "other")


def test_the_command(clip, tmp_path):
    line = [sys.executable, "training/data/frames.py", str(clip), "--output", str(tmp_path / "frames")]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, f"{tmp_path / 'frames'}: 5 frames\n")
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
