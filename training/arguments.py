"""What the command lines of the scripts take."""

from __future__ import annotations

import argparse
from pathlib import Path


def given_path(text: str) -> Path:
    """A path, as `type=` of an argument.

    Args:
        text: as typed.

    Returns:
        The path; nothing need be there.

    Raises:
        argparse.ArgumentTypeError: for an empty text, which a shell makes of a variable that is not set. As a path it
            would be the current folder.
    """
    if not text:
        raise argparse.ArgumentTypeError("is empty; wanted a path, as of a variable that is set")
    return Path(text)
