"""Files that are there whole or not at all."""

from __future__ import annotations

import contextlib
import fcntl
import os
import uuid
from collections.abc import Iterator
from pathlib import Path

_PART = ".part"


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A name beside a file, for what is to take its place.

    Several processes may do so at once; the last one's stays. Whoever writes under that name flushes it to disk.

    Args:
        path: of the file; its folder is made where it is missing.

    Returns:
        The name. It becomes `path` at the end of the context, or goes where that ends by an exception.

    Raises:
        OSError: where the file cannot be put there.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # Hidden, and with an ending of its own, so that no glob over results meets half a file. Without the file's name,
    # which may be as long as a name can be.
    place = path.with_name(f".{uuid.uuid4().hex}{_PART}")
    try:
        with place.open("xb") as file:
            with contextlib.suppress(OSError):  # not every file system has locks
                fcntl.flock(file, fcntl.LOCK_EX)
            yield place
            os.replace(place, path)
    except BaseException:
        with contextlib.suppress(OSError):
            place.unlink()
        raise


def sweep(folder: Path) -> None:
    """Remove what processes that were killed left below a folder. What somebody is writing stays: it is locked.

    Args:
        folder: of files that are put there by `replacing`.
    """
    for part in folder.rglob(f".{'[0-9a-f]' * 32}{_PART}"):
        with contextlib.suppress(OSError), part.open("r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            part.unlink()
