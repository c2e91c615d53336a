"""Every layout of annotated videos that is read, and which of them a path looks like."""

from __future__ import annotations

from pathlib import Path

from rdn_engine.errors import DatasetError
from training.data.readers import (
    bdd100k,
    burst,
    coco,
    cvat,
    darklabel,
    datumaro,
    imagenet_vid,
    kitti,
    label_studio,
    mot,
    visdrone,
    voc,
    yolo,
    youtube_vis,
)
from training.data.readers.base import Format

FORMATS = {
    one.name: one
    for one in (
        cvat.TRACKS,
        cvat.STILLS,
        label_studio.FORMAT,
        datumaro.FORMAT,
        mot.FORMAT,
        darklabel.FORMAT,
        coco.VIDEO_FORMAT,
        coco.IMAGES_FORMAT,
        yolo.FORMAT,
        voc.FORMAT,
        imagenet_vid.FORMAT,
        youtube_vis.FORMAT,
        visdrone.FORMAT,
        kitti.FORMAT,
        bdd100k.FORMAT,
        burst.FORMAT,
    )
}
"""By name"""


def find_format(path: Path) -> Format:
    """The layout that a path looks like, by names of files and their first bytes.

    Args:
        path: a file or a folder, as the format's reader takes it.

    Returns:
        The one format that it looks like.

    Raises:
        DatasetError: there is nothing there, or it looks like none or like several.
    """
    if not path.exists():
        raise DatasetError(f"there is no {path}; wanted an annotation file or the folder of a data set")
    found = [one for one in FORMATS.values() if one.found(path)]
    if len(found) != 1:
        names = ", ".join(one.name for one in found)
        raise DatasetError(
            f"{path} looks like {names or 'no layout that is known'}; wanted one; --format takes {', '.join(FORMATS)}"
        )
    return found[0]
