"""Errors of a model as the text that Triton sends of them: the kind, what its numbers are, and what it says."""

from __future__ import annotations

import re

from rdn_engine.errors import AdmissionRefused, FrameError, RDNError

_REFUSED = re.compile(r"AdmissionRefused\(wanted=(\d+), left=(\d+)\): (.*)", re.DOTALL)


def error_text(error: RDNError) -> str:
    """The text of an error.

    Args:
        error: of a reply.
    """
    numbers = f"(wanted={error.wanted}, left={error.left})" if isinstance(error, AdmissionRefused) else ""
    return f"{type(error).__name__}{numbers}: {error}"


def error_of(text: str) -> AdmissionRefused | FrameError | None:
    """The inverse of `error_text`, for those that say that a frame was not taken.

    Args:
        text: of any error that Triton gives.

    Returns:
        The error; None for others.
    """
    if refused := _REFUSED.fullmatch(text):
        return AdmissionRefused(refused[3], wanted=int(refused[1]), left=int(refused[2]))
    kind, _, said = text.partition(": ")
    return FrameError(said) if kind == "FrameError" else None
