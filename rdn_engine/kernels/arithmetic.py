"""Whole numbers in blocks of one size."""

from __future__ import annotations


def ceil_div(count: int, size: int) -> int:
    """Blocks of `size` (1 or more) that hold `count` (0 or more)."""
    return -(-count // size)


def round_up(count: int, multiple: int) -> int:
    """The smallest multiple of `multiple` (1 or more) that is no smaller than `count` (0 or more)."""
    return ceil_div(count, multiple) * multiple
