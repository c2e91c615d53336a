"""The README's picture: part of an annotated video as an animated WebP.

python scripts/picture.py demo/clip_annotated.mp4 docs/media/rdn_tiny.webp --first 0 --frames 48 --width 384
"""

from __future__ import annotations

import argparse
import itertools
from pathlib import Path

from PIL import Image

from rdn_engine.media.source import open_source


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("video", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--first", type=int, default=0, help="first frame shown")
    parser.add_argument("--frames", type=int, default=48)
    parser.add_argument("--width", type=int, default=384, help="pixels")
    arguments = parser.parse_args()
    with open_source(arguments.video) as source:
        duration = 1000 / (source.fps or 25)
        images = [
            Image.fromarray(frame.image)
            for frame in itertools.islice(source, arguments.first, arguments.first + arguments.frames)
        ]
    size = (arguments.width, round(arguments.width * images[0].height / images[0].width))
    first, *rest = [image.resize(size, Image.Resampling.LANCZOS) for image in images]
    # WebP, because a GIF's 256 colours are not enough for video.
    first.save(arguments.output, "WEBP", save_all=True, append_images=rest, duration=duration, loop=0, quality=80)
    print(f"{arguments.output}: {len(images)} frames, {arguments.output.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
