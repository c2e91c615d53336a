"""What a served stream asks of its scheduler."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rdn_engine.config import Dials
from rdn_engine.process import Home
from rdn_engine.serve.events import Events
from rdn_engine.serve.listener import Listener
from rdn_engine.serve.options import StreamOptions
from rdn_engine.serve.push import Push
from rdn_engine.stream.base import Stream

if TYPE_CHECKING:
    from rdn_engine.serve.served import ServedStream


@dataclass(frozen=True)
class Surroundings:
    """The same for all streams of a scheduler."""

    wake: Callable[[ServedStream], None]
    """Give it a turn"""
    admit: Callable[[str, Stream, Dials, StreamOptions], int]
    """Take room for a stream with these dials, and say how many bytes: AdmissionRefused where there is none"""
    ended: Callable[[ServedStream], None]
    """It has ended"""
    events: Events
    """Where it says what happens"""
    pushes: Listener[Push]
    """Told of every push"""
    home: Home
    """Where its threads are"""
    clock: Callable[[], float]
    """Seconds, as `time.monotonic`"""
