"""Synthetic videos as a data set on disk: CocoVID annotations and images, as anyone's own data would be.

    python -m training.data.export_synthetic DIRECTORY --split train --videos 60

writes DIRECTORY/annotations.json and DIRECTORY/images/train_0000/000000.png and so on.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from PIL import Image

from rdn_engine.evaluation.coco_vid import Dataset, write_dataset
from training.arguments import given_path
from training.data.builder import Builder
from training.data.drawing import CLASS_NAMES
from training.data.synthetic import SyntheticVideos


def synthetic_dataset(videos: SyntheticVideos, suffix: str = "png") -> Dataset:
    """The annotations of all videos; frame t of video v has the id v * num_frames + t + 1."""
    builder = Builder((i + 1, name) for i, name in enumerate(CLASS_NAMES))
    width, height = videos.size
    for v in range(len(videos)):
        video = videos[v]
        name = f"{videos.split}_{v:04d}"
        builder.video(name)
        for t in range(len(video.frames)):
            builder.frame(f"{name}/{t:06d}.{suffix}", width, height, t)
            for box, label, track in zip(video.boxes[t], video.labels[t], video.track_ids[t], strict=True):
                x1, y1, x2, y2 = box.tolist()
                builder.box((x1, y1, x2, y2), int(label) + 1, track=int(track))
    return builder.dataset


def export_synthetic(videos: SyntheticVideos, directory: Path, suffix: str = "png") -> Dataset:
    """Writes synthetic videos as a data set: directory/annotations.json and directory/images.

    Args:
        videos: to write.
        directory: which is made if need be.
        suffix: `png` (the exact pixels) or `jpg` (smaller).

    Returns:
        The annotations.
    """
    dataset = synthetic_dataset(videos, suffix)
    names = iter(f.file_name for f in dataset.frames)
    for v in range(len(videos)):
        for image in videos[v].frames:
            path = directory / "images" / next(names)
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(path, quality=95)
    write_dataset(dataset, directory / "annotations.json")
    return dataset


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("directory", type=given_path)
    parser.add_argument("--split", default="train", help="videos of different splits share nothing")
    parser.add_argument("--videos", type=int, default=60)
    parser.add_argument("--frames", type=int, default=24, help="of each video")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--format", choices=("png", "jpg"), default="png")
    arguments = parser.parse_args()
    videos = SyntheticVideos(arguments.split, arguments.videos, arguments.frames, seed=arguments.seed)
    dataset = export_synthetic(videos, arguments.directory, arguments.format)
    print(
        f"{arguments.directory}: {len(dataset.videos)} videos, {len(dataset.frames)} frames, "
        f"{len(dataset.annotations)} boxes"
    )


if __name__ == "__main__":
    main()
