"""How many clients there may be at once over HTTP, and how long each may take: an open port is for anybody's."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from uvicorn.protocols.http.h11_impl import H11Protocol

MOST_CONNECTIONS = 128
"""That are open at once. Each is a descriptor, of which sources and outputs need theirs"""
REQUEST_SECONDS = 30.0
"""From its beginning, or from the answer before, in which a connection must have had an answer"""


def bounded_protocol(most: int = MOST_CONNECTIONS, seconds: float = REQUEST_SECONDS) -> type[H11Protocol]:
    """Uvicorn's protocol with bounds of its connections, which Uvicorn has none for.

    Args:
        most: open at once. The one that has been without a request for longest makes room for a new one.
        seconds: after which one is cut off that sends its request, or reads its answer, too slowly.

    Raises:
        ImportError: without the extra `serve`.
    """
    from uvicorn.protocols.http.h11_impl import H11Protocol

    class Bounded(H11Protocol):
        _cutter: asyncio.TimerHandle

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            self._begin()
            if len(self.connections) > most:
                idle = [one for one in self.connections if isinstance(one, Bounded) and one.idle]
                min(idle, key=lambda one: one.since).transport.abort()  # this one at least is among them

        def connection_lost(self, exc: Exception | None) -> None:
            self._cutter.cancel()
            super().connection_lost(exc)

        def on_response_complete(self) -> None:
            self._cutter.cancel()
            self._begin()
            super().on_response_complete()

        @property
        def idle(self) -> bool:
            """Whether it is open, and no request is being answered."""
            return not self.transport.is_closing() and (self.cycle is None or self.cycle.response_complete)

        def _begin(self) -> None:
            self.since = self.loop.time()
            self._cutter = self.loop.call_later(seconds, self.transport.abort)

    return Bounded
