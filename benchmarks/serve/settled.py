"""Whether a process that was measured for a long time still grows."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

WARM_UP = 1 / 3
"""Part of the time that is not judged: the heaps of the threads that decoders run in settle first"""
ROOM = 0.01
"""By how much resident memory may lie off its median"""


@dataclass(frozen=True)
class Sample:
    """What the process holds at one moment."""

    seconds: float
    """Since the start"""
    resident_mib: float
    threads: int
    descriptors: int


def settled(samples: Sequence[Sample]) -> list[Sample]:
    """Those after the warm-up.

    Args:
        samples: in order, of a whole run.
    """
    return [one for one in samples if one.seconds >= WARM_UP * samples[-1].seconds]


def judge(samples: Sequence[Sample]) -> list[str]:
    """What is not as it should be, in words; empty where all is well.

    Args:
        samples: in order, with those of the warm-up.
    """
    judged, found = settled(samples), []
    middle = statistics.median(one.resident_mib for one in judged)
    worst = max((one.resident_mib for one in judged), key=lambda resident: abs(resident - middle))
    if abs(worst - middle) > ROOM * middle:
        found.append(f"resident memory of {worst:.1f} MiB is {worst / middle - 1:+.2%} off the median {middle:.1f}")
    for name in ("threads", "descriptors"):
        seen = sorted({getattr(one, name) for one in judged})
        if len(seen) > 1:
            found.append(f"{name} are {', '.join(map(str, seen))}; wanted one number")
    return found
