"""One thing that is wrong in a data set, or wants a look."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Problem:
    kind: str
    """One of `check.KINDS` or `doubts.DOUBTS`"""
    where: str
    """The file of the frame, the name of the video, or the annotation file"""
    what: str
