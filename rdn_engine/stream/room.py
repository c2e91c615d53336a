"""What a stream asks of a memory that has no room for it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from rdn_engine.config import Dials
from rdn_engine.errors import ConfigError


@contextlib.contextmanager
def room_for(dials: Dials, memory: str = "memory") -> Iterator[None]:
    """Where what these dials want is allocated: no room for it is an error of the dials.

    Args:
        dials: whose T, K, N and r set the sizes.
        memory: which one, in the message.

    Raises:
        ConfigError: in place of MemoryError; names T, K, N and r.
    """
    try:
        yield
    except MemoryError as error:
        size = f"T = {dials.window}, K = {dials.num_support}, N = {dials.num_reference}, r = {dials.advanced_ratio}"
        raise ConfigError(
            f"a stream for {size} does not fit into {memory} ({error}); "
            "wanted smaller dials, a smaller capacity or smaller frames"
        ) from None
