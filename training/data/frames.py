"""Writes the frames of a video as images, for annotations that come without them.

    python training/data/frames.py street.mp4 --output frames/street
    python training/data/frames.py street.mp4 --output frames/street --fps 24

Frames are numbered from 0 in the order in which they are shown: 000000.jpg, 000001.jpg and so on. With --fps they are
what is shown at these times, for tools that count frames by a rate of their own.
Exit code 1 where the video cannot be read; the frames before the damage stay.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from rdn_engine.errors import DatasetError, RDNError
from rdn_engine.frame import Frame
from rdn_engine.media.source import open_source
from training.arguments import given_path

QUALITY = 95
"""Of JPEG, 1..95"""
SUFFIXES = (".jpg", ".png")
_CLOSE = 1e-4  # seconds: less than a frame, more than the rounding of its time


def write_frames(source: Path, folder: Path, suffix: str = ".jpg", fps: float | None = None) -> int:
    """Writes the frames of a video.

    Args:
        source: of the video file.
        folder: for the images, made where it is not there; must hold none with a number as its name.
        suffix: `.jpg`, smaller, or `.png`, exact.
        fps: frames a second, above 0, that are written: those shown at 0, 1/fps, 2/fps; None writes each frame once.

    Returns:
        How many images there are.

    Raises:
        DatasetError: the folder holds frames already, or an argument is at fault.
        VideoError: the video cannot be read.
    """
    if suffix not in SUFFIXES or (fps is not None and not 0 < fps <= 1000):
        raise DatasetError(f"suffix {suffix!r}, fps {fps}; wanted one of {', '.join(SUFFIXES)} and 0..1000")
    folder.mkdir(parents=True, exist_ok=True)
    if any(path.stem.isdecimal() for path in folder.iterdir()):
        raise DatasetError(f"{folder} holds frames; wanted an empty folder, so that no two videos mix")
    count = 0
    with open_source(source) as frames:
        # A frame that was skipped as damaged keeps its number, and annotations keep their frames.
        chosen = frames if fps is None else _shown_at(frames, fps)
        for i, frame in enumerate(chosen):
            number = frame.index if fps is None else i
            Image.fromarray(frame.image).save(folder / f"{number:06d}{suffix}", quality=QUALITY, subsampling=0)
            count += 1
        for warning in frames.warnings:
            print(f"note: {warning}", file=sys.stderr)
    return count


def _shown_at(frames: Iterable[Frame], fps: float) -> Iterator[Frame]:
    """The frame on the screen at 0, 1/fps, 2/fps ... seconds; the last one stays as long as the one before it."""
    shown: Frame | None = None
    begin = time = step = 0.0
    count = 0
    for frame in frames:
        if frame.pts is None:
            raise DatasetError(f"frame {frame.index} has no time; wanted a video that has, or no --fps")
        begin = frame.pts if shown is None else begin
        step, time = frame.pts - begin - time, frame.pts - begin
        while shown is not None and count / fps < time - _CLOSE:
            yield shown
            count += 1
        shown = frame
    while shown is not None and (count == 0 or count / fps < time + step - _CLOSE):
        yield shown
        count += 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("video", type=given_path, help="the video file")
    parser.add_argument("--output", type=given_path, required=True, help="the folder for the images")
    parser.add_argument("--suffix", choices=SUFFIXES, default=".jpg", help="png is exact, and several times larger")
    parser.add_argument("--fps", type=float, help="the frames shown at 0, 1/fps, 2/fps seconds; default: each one once")
    arguments = parser.parse_args()
    try:
        count = write_frames(arguments.video, arguments.output, arguments.suffix, arguments.fps)
    except (RDNError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    print(f"{arguments.output}: {count} frames")


if __name__ == "__main__":
    main()
