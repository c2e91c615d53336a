"""What a segment found, in a file of plain arrays (npz) until its video is joined."""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rdn_engine.errors import ResultError
from rdn_engine.plain import from_plain
from rdn_engine.results import Detections
from rdn_engine.serve.atomic import replacing
from rdn_engine.serve.segments import Reading, SegmentResult
from rdn_engine.stream.links import LinkedFrame

_BOXES = ("xyxy", "confidence", "class_id")
_LINKS = ("source", "target", "score", "value", "rival_of", "rival")
_FACTS = ("frame_index", "height", "width", "pool_fill", "lookahead", "epoch")


def write_segment(path: Path, result: SegmentResult) -> None:
    """Write a file whole or not at all.

    Args:
        path: of the file.
        result: whose frames are of one source.

    Raises:
        OSError: where it cannot be written.
    """
    frames = result.frames
    found = [frame.found for frame in frames]
    arrays = {name: np.array([getattr(one, name) for one in found], np.int64) for name in _FACTS}
    arrays["pts"] = np.array([np.nan if one.pts is None else one.pts for one in found], np.float64)
    for name in _BOXES:
        _add(arrays, name, [getattr(one, name) for one in found])
    for name in _LINKS:
        _add(arrays, name, [getattr(one, name) for one in frames])
    features = [frame.features for frame in frames]
    arrays["has_features"] = np.array([one is not None for one in features], np.bool_)
    _add(arrays, "features", [one for one in features if one is not None])
    about = {
        "source_id": found[0].source_id if found else "",
        "class_names": found[0].class_names if found else (),
        "reading": asdict(result.reading),
    }
    with replacing(path) as place, place.open("wb") as file:
        # Names that are not UTF-8 come as surrogates, which JSON in ASCII escapes.
        arrays["about"] = np.frombuffer(json.dumps(about).encode("ascii"), np.uint8)
        np.savez(file, **arrays)  # type: ignore[arg-type]
        file.flush()
        os.fsync(file.fileno())


def read_segment(path: Path) -> SegmentResult:
    """The inverse of `write_segment`.

    Args:
        path: of the file.

    Raises:
        ResultError: for what is no such file.
        OSError: where it cannot be read.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
        about = json.loads(arrays["about"].tobytes())
        return SegmentResult(
            tuple(_frames(arrays, about["source_id"], tuple(about["class_names"]))),
            from_plain(Reading, about["reading"], "reading"),
        )
    except (KeyError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise ResultError(f"{path} is no segment of a video ({error}); remove it, and it is made again") from error


def _frames(arrays: dict[str, NDArray[Any]], source_id: str, class_names: tuple[str, ...]) -> Iterator[LinkedFrame]:
    boxes = [_taker(arrays, name) for name in _BOXES]
    links = [_taker(arrays, name) for name in _LINKS]
    features = _taker(arrays, "features")
    facts = [arrays[name].tolist() for name in _FACTS]
    for pts, has_features, *own in zip(arrays["pts"].tolist(), arrays["has_features"], *facts, strict=True):
        given: dict[str, Any] = {name: take() for name, take in zip(_BOXES, boxes, strict=True)}
        given |= dict(zip(_FACTS, own, strict=True))
        time = None if np.isnan(pts) else pts
        found = Detections(class_names=class_names, source_id=source_id, pts=time, tracker_id=None, **given)
        its: dict[str, Any] = {name: take() for name, take in zip(_LINKS, links, strict=True)}
        yield LinkedFrame(found, features=features() if has_features else None, **its)


def _add(arrays: dict[str, NDArray[Any]], name: str, parts: Sequence[NDArray[Any]]) -> None:
    """One array of all frames' rows, and where each frame's end."""
    arrays[f"{name}.ends"] = np.cumsum([len(part) for part in parts], dtype=np.int64)
    arrays[name] = np.concatenate(parts) if parts else np.zeros(0)


def _taker(arrays: dict[str, NDArray[Any]], name: str) -> Callable[[], NDArray[Any]]:
    """Gives each frame's rows in turn."""
    parts = iter(np.split(arrays[name], arrays[f"{name}.ends"])[:-1])
    return lambda: next(parts)
