"""The videos of an archive."""

from __future__ import annotations

import glob
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from rdn_engine.errors import VideoError
from rdn_engine.media.address import without_credentials
from rdn_engine.media.images import has_image_suffix, has_video_suffix
from rdn_engine.media.source import natural_order


@dataclass(frozen=True)
class Recording:
    """One video of an archive."""

    path: str
    """As given"""
    name: str
    """Of its results, below the folder of results: the path behind the part of the glob that has no magic"""


def recordings(pattern: str) -> list[Recording] | None:
    """The videos that a glob names.

    Args:
        pattern: a glob; `**` goes through folders.

    Returns:
        One for each file, in natural order; None for what is no glob, and for one that names images.

    Raises:
        VideoError: for a glob that names no file or goes up behind its part without magic, so that results would be
            outside of their folder; for a folder without images, whose videos want a glob.
    """
    # `Path("")` would be the current folder.
    if not pattern or "://" in pattern:
        return None
    path = Path(pattern)
    if path.is_dir() and not any(map(has_image_suffix, path.iterdir())):
        wanted = f"'{path / _videos_of(path)}'"
        raise VideoError(f"{path} holds no image; wanted a folder of images, or for its videos a glob: {wanted}")
    if path.exists() or not glob.has_magic(pattern):
        return None
    parts = path.parts
    fixed = next(i for i, part in enumerate(parts) if glob.has_magic(part))
    base = Path(*parts[:fixed])
    if ".." in parts[fixed:]:
        raise VideoError(f"{pattern} goes up again behind {parts[fixed]}; wanted a glob that goes down alone")
    # `**/**` names a file more than once.
    paths = [path for path in map(Path, dict.fromkeys(glob.glob(pattern, recursive=True))) if path.is_file()]
    if not paths:
        # A mistyped address with a query is a glob of nothing.
        raise VideoError(f"{without_credentials(pattern)} names no file; wanted a glob of videos or of images")
    if any(map(has_image_suffix, paths)):
        return None
    return [Recording(str(path), str(path.relative_to(base))) for path in natural_order(paths)]


def _videos_of(folder: Path) -> str:
    """The glob that names most of a folder's videos; where it has none itself, those of the folders in it."""
    there = list(folder.iterdir())
    suffixes = Counter(path.suffix for path in there if has_video_suffix(path)).most_common(1)
    deeper = not suffixes and any(path.is_dir() for path in there)
    return f"{'**/' * deeper}*{suffixes[0][0] if suffixes else '.mp4'}"
