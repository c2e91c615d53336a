"""What a detector asks of the machine that its streams live on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, TypeVar

from rdn_engine.config import Dials, RDNConfig
from rdn_engine.results import Detections
from rdn_engine.stream.base import Stream
from rdn_engine.stream.batch import StreamBatch

StreamT_co = TypeVar("StreamT_co", bound=Stream, covariant=True)
BatchT_co = TypeVar("BatchT_co", bound=StreamBatch[Stream], covariant=True)


class Runtime(Protocol[StreamT_co, BatchT_co]):
    """A model on one machine. Streams of several threads may be opened and used at once."""

    @property
    def config(self) -> RDNConfig:
        """Everything that decides what the model computes."""
        ...

    @property
    def threads(self) -> int:
        """Bound of the CPU threads of every stage of one call."""
        ...

    def open_stream(self, dials: Dials, capacity: Dials, source_id: str) -> StreamT_co:
        """State for one video.

        Args:
            dials: settings to start with.
            capacity: the largest T, K and N that the dials may be turned to later.
            source_id: what results say where they come from.

        Raises:
            ConfigError: for dials above the capacity, or a stream that does not fit into memory.
        """
        ...

    def open_streams(self, dials: Dials, capacity: Dials, source_ids: Sequence[str]) -> BatchT_co:
        """One stream for each name, whose frames are encoded as one batch where that is faster.

        Args:
            dials: settings of every stream, to start with.
            capacity: as `open_stream`, of every stream.
            source_ids: what results say where they come from; one or more.

        Raises:
            ConfigError: as `open_stream`, and for no name.
        """
        ...

    def push_each(self, streams: Sequence[Any], frames: Sequence[Any]) -> list[list[Detections] | Exception]:
        """Push a frame into each of some streams, which need not be the same from call to call.

        Args:
            streams: of `open_stream`, none twice.
            frames: one for each stream, as `Stream.push` takes them.

        Returns:
            Of each stream what `Stream.push` would give, or raise.
        """
        ...
