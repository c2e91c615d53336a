"""The process that threads run in: a forked child has a copy of everything but those."""

from __future__ import annotations

import os

from rdn_engine.errors import RDNError


class Home:
    """Remembers the process that made it."""

    def __init__(self, what: str) -> None:
        """Belong to this process.

        Args:
            what: of this process, for messages.
        """
        self._what = what
        self._process = os.getpid()

    @property
    def here(self) -> bool:
        """Whether this is that process."""
        return os.getpid() == self._process

    def check(self) -> None:
        """Check that the threads are here, before something waits for them for ever.

        Raises:
            RDNError: in a forked child.
        """
        if not self.here:
            raise RDNError(
                f"{self._what} has its threads in process {self._process}, and this one is forked from it; "
                "make another here, or fork before it is made"
            )
