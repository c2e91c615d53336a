"""The videos of an archive."""

from __future__ import annotations

import glob
from dataclasses import dataclass
from pathlib import Path

from rdn_engine.errors import VideoError
from rdn_engine.media.images import has_image_suffix
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
        One for each file, in natural order; None for what is no glob, or one that names images or nothing.

    Raises:
        VideoError: for `..` behind the part without magic: results would be outside of their folder.
    """
    if "://" in pattern or Path(pattern).exists() or not glob.has_magic(pattern):
        return None
    parts = Path(pattern).parts
    fixed = next(i for i, part in enumerate(parts) if glob.has_magic(part))
    base = Path(*parts[:fixed])
    if ".." in parts[fixed:]:
        raise VideoError(f"{pattern} goes up again behind {parts[fixed]}; wanted a glob that goes down alone")
    # `**/**` names a file more than once.
    paths = [path for path in map(Path, dict.fromkeys(glob.glob(pattern, recursive=True))) if path.is_file()]
    if not paths or any(has_image_suffix(path) for path in paths):
        return None
    return [Recording(str(path), str(path.relative_to(base))) for path in natural_order(paths)]
