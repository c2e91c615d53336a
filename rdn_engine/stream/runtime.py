"""What a detector asks of the machine that its streams live on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeVar

from rdn_engine.config import Dials, RDNConfig
from rdn_engine.stream.base import Stream
from rdn_engine.stream.batch import StreamBatch

StreamT_co = TypeVar("StreamT_co", bound=Stream, covariant=True)
BatchT_co = TypeVar("BatchT_co", bound=StreamBatch[Stream], covariant=True)


class Runtime(Protocol[StreamT_co, BatchT_co]):
    """A model on one machine. Streams of several threads may be opened and used at once."""

    @property
    def config(self) -> RDNConfig: ...

    @property
    def threads(self) -> int:
        """Bound of the CPU threads of every stage of one call."""
        ...

    def open_stream(self, dials: Dials, capacity: Dials, source_id: str) -> StreamT_co: ...

    def open_streams(self, dials: Dials, capacity: Dials, source_ids: Sequence[str]) -> BatchT_co: ...
