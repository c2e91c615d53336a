"""Why and how a served stream ends."""

from __future__ import annotations

from typing import NamedTuple

from rdn_engine.serve.account import DropReason
from rdn_engine.serve.snapshot import EndReason

_DROP_REASONS: dict[EndReason, DropReason] = {"failed": "failed", "deadline": "deadline"}


class Ending(NamedTuple):
    """An end that was asked for, or came."""

    reason: EndReason
    """What the last event says"""
    drain: bool
    """Whether what came until then is computed and delivered"""
    error: Exception | None
    """Why, where it is one"""

    @property
    def drop_reason(self) -> DropReason:
        """Of the frames that it leaves without a result."""
        return _DROP_REASONS.get(self.reason, "removed")
