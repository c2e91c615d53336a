"""BURST: tracks of masks over the videos of TAO."""

from __future__ import annotations

from pathlib import Path

from rdn_engine.errors import DatasetError
from rdn_engine.evaluation.coco_vid import Row, read_json, rows_of
from training.data.builder import Builder
from training.data.readers.base import Format, head
from training.data.readers.masks import box_around


def read_burst(path: Path) -> Builder:
    """BURST's JSON of 2022 (all_classes.json and the like): the annotated frames, with the boxes around their masks.

    Args:
        path: of the JSON file.

    Returns:
        The data set, with file names DATASET/SEQUENCE/NAME as the frames of TAO lie; frames count from 0 and leave out
        those that nobody annotated.

    Raises:
        DatasetError: the file cannot be read, or is not of this layout.
        BackendUnavailable: faster-coco-eval, which reads masks, is not installed.
    """
    data = read_json(path)
    builder = Builder((row.integer("id"), row.text("name")) for row in rows_of(data, "categories", path))
    known = {c.id for c in builder.dataset.categories}
    for sequence in rows_of(data, "sequences", path):
        width, height = sequence.size("width"), sequence.size("height")
        folder = f"{sequence.text('dataset')}/{sequence.text('seq_name')}"
        names, every = _names(sequence, "annotated_image_paths"), _names(sequence, "all_image_paths")
        place = {name: t for t, name in enumerate(every)}
        classes = sequence.data.get("track_category_ids")
        if not isinstance(classes, dict):
            sequence.refuse("track_category_ids", "an object of track and category")
        found = rows_of(sequence.data, "segmentations", Path(sequence.where))
        if len(found) != len(names):
            sequence.refuse("segmentations", f"one object for each of {len(names)} annotated images")
        builder.video(folder)
        for name, tracks in zip(names, found, strict=True):
            if name not in place:
                raise DatasetError(f"{sequence.where}: {name!r} is not in all_image_paths; wanted it there")
            builder.frame(f"{folder}/{name}", width, height, place[name])
            for track, value in tracks.data.items():
                if not isinstance(value, dict):
                    tracks.refuse(track, "an object with a mask")
                category = Row(classes, f"{sequence.where}.track_category_ids").reference(track, known, "categories")
                box = box_around(Row(value, f"{tracks.where}.{track}"), "rle", width, height)
                if box is None:
                    builder.dropped += 1
                else:
                    builder.box(box, category, track)
    return builder


def _names(sequence: Row, name: str) -> list[str]:
    value = sequence.data.get(name)
    if not isinstance(value, list) or not all(isinstance(v, str) for v in value):
        sequence.refuse(name, "a list of file names")
    return value


FORMAT = Format(
    "burst",
    "the JSON file of BURST",
    read_burst,
    lambda path: path.suffix.lower() == ".json" and '"annotated_image_paths"' in head(path, 1 << 24),
)
