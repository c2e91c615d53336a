"""Makes the miniatures beside this file, each with the tool whose format it is; CI does not run it.

    python -m venv venv
    venv/bin/pip install datumaro==1.13.12 supervision==0.31.2
    venv/bin/pip install label-studio-sdk==2.1.2 beautifulsoup4==4.15.0 lxml==6.1.3
    venv/bin/python tests/data/miniatures/make.py tests/data/miniatures

    python -m venv other  # scalabel has not followed pydantic
    other/bin/pip install scalabel==0.3.1 'pydantic<2'
    other/bin/python tests/data/miniatures/make_scalabel.py tests/data/miniatures/scalabel.json

Three frames of 32 x 24: a car at 2, 3 of 10 x 8, one further right in each frame, and a dog over the whole frame; none
of them in the third frame. With tracks where the format has them: 7 and 9.
"""

import json
import logging
import shutil
import sys
from pathlib import Path

import cv2
import datumaro
import numpy as np
import supervision
from datumaro.components.dataset import Dataset
from label_studio_sdk._extensions.label_studio_tools.postprocessing.video import extract_key_frames
from label_studio_sdk.converter.imports import pathtrack

CLASSES = ["car", "dog"]
PICTURE = np.full((24, 32, 3), 90, np.uint8)


def boxes(t):
    """Class, track, x, y, width, height"""
    return [(0, 7, 2 + t, 3, 10, 8), (1, 9, 0, 0, 32, 24)] if t < 2 else []


def with_datumaro(root):
    def items(subset):
        for t in range(3):
            found = [
                datumaro.Bbox(*box, label=label, id=2 * t + i, attributes={"track_id": track})
                for i, (label, track, *box) in enumerate(boxes(t))
            ]
            picture = datumaro.Image.from_numpy(PICTURE, ext=".png")
            yield datumaro.DatasetItem(
                f"{t + 1:06d}", subset=subset, media=picture, attributes={"frame": t}, annotations=found
            )

    for name, form, options in (
        ("coco", "coco_instances", {}),
        ("voc", "voc_detection", {}),
        ("cvat", "cvat", {}),
        ("datumaro", "datumaro", {}),
        ("mot", "mot_seq_gt", {}),
        ("mot_meta", "mot_seq_gt", {"save_dataset_meta": True}),
        ("yolo", "yolo_ultralytics", {}),
        ("darknet", "yolo", {}),
    ):
        splits = ["train", "val"] if form == "yolo_ultralytics" else ["train"]
        made = Dataset.from_iterable([item for split in splits for item in items(split)], categories=CLASSES)
        made.export(str(root / name), form, save_media=True, image_ext=".png", **options)


def with_supervision(root):
    frames = {f"{t:03d}.png": boxes(t) for t in range(3)}
    root.mkdir()
    for name in frames:
        cv2.imwrite(str(root / name), PICTURE)
    found = {}
    for name, rows in frames.items():
        sides = np.array([[x, y, x + w, y + h] for _, _, x, y, w, h in rows], float).reshape(-1, 4)
        found[str(root / name)] = supervision.Detections(sides, class_id=np.array([row[0] for row in rows], int))
    data = supervision.DetectionDataset(classes=CLASSES, images=sorted(found), annotations=found)
    data.as_yolo(str(root / "yolo/images"), str(root / "yolo/labels"), str(root / "yolo/data.yaml"))
    data.as_pascal_voc(str(root / "voc/JPEGImages"), str(root / "voc/Annotations"))
    data.as_coco(str(root / "coco/images"), str(root / "coco/instances.json"))
    for name in frames:
        (root / name).unlink()


def with_label_studio(root):
    """The SDK's importer of another video data set writes a task; its own expansion says what to read in each frame."""
    root.mkdir()
    # frame, object, x, y, width, height of 32 x 24: keyframes 1, 3, 6 of one object and 2, 4 of another
    lines = ["1 7 2 3 10 8", "3 7 4 3 10 8", "6 7 10 3 10 8", "2 9 0 0 32 24", "4 9 0 0 16 12"]
    (root / "labels.txt").write_text("\n".join(lines) + "\n")
    info = "<root><doc><fps>10</fps><imw>32</imw><imh>24</imh><num_frames>8</num_frames></doc></root>"
    (root / "info.xml").write_text(info)
    logging.disable()
    task = pathtrack.convert_shot("https://host/clips/street.mp4", root / "labels.txt", root / "info.xml")
    results = task["annotations"][0]["result"]
    # Without a keyframe that ends it, an object is there up to the end of the video.
    results[1]["value"]["sequence"][-1]["enabled"] = True
    for i, result in enumerate(results):
        result["id"] = f"region{i}"  # random otherwise
    (root / "street.json").write_text(json.dumps([task], indent=1) + "\n")
    expanded = [
        [[key["frame"], *(key[side] for side in ("x", "y", "width", "height"))] for key in r["value"]["sequence"]]
        for r in extract_key_frames(results)
    ]
    (root / "expanded.json").write_text(json.dumps(expanded) + "\n")
    for name in ("labels.txt", "info.xml"):
        (root / name).unlink()


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    for name, make in (
        ("datumaro", with_datumaro),
        ("supervision", with_supervision),
        ("label_studio", with_label_studio),
    ):
        shutil.rmtree(folder / name, ignore_errors=True)
        make(folder / name)
