"""Writes the frames of a video as images, for annotations that come without them.

    python training/data/frames.py street.mp4 --output frames/street

Frames are numbered from 0 in the order in which they are shown: 000000.jpg, 000001.jpg and so on.
Exit code 1 where the video cannot be read; the frames before the damage stay.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from rdn_engine.errors import DatasetError, RDNError
from rdn_engine.media.source import open_source

QUALITY = 95
"""Of JPEG, 1..95"""
SUFFIXES = (".jpg", ".png")


def write_frames(source: Path, folder: Path, suffix: str = ".jpg") -> int:
    """Writes every frame of a video.

    Args:
        source: of the video file.
        folder: for the images, made where it is not there; must hold none with a number as its name.
        suffix: `.jpg`, smaller, or `.png`, exact.

    Returns:
        How many frames there were.

    Raises:
        DatasetError: the folder holds frames already, or the suffix is another.
        VideoError: the video cannot be read.
    """
    if suffix not in SUFFIXES:
        raise DatasetError(f"suffix {suffix!r}; wanted one of {', '.join(SUFFIXES)}")
    folder.mkdir(parents=True, exist_ok=True)
    if any(path.stem.isdecimal() for path in folder.iterdir()):
        raise DatasetError(f"{folder} holds frames; wanted an empty folder, so that no two videos mix")
    count = 0
    with open_source(source) as frames:
        for frame in frames:
            Image.fromarray(frame.image).save(folder / f"{count:06d}{suffix}", quality=QUALITY, subsampling=0)
            count += 1
        for warning in frames.warnings:
            print(f"note: {warning}", file=sys.stderr)
    return count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("video", type=Path, help="the video file")
    parser.add_argument("--output", type=Path, required=True, help="the folder for the images")
    parser.add_argument("--suffix", choices=SUFFIXES, default=".jpg", help="png is exact, and several times larger")
    arguments = parser.parse_args()
    try:
        count = write_frames(arguments.video, arguments.output, arguments.suffix)
    except (RDNError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    print(f"{arguments.output}: {count} frames")


if __name__ == "__main__":
    main()
