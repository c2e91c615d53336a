"""A source whose questions do not fail: what is asked of a broken one gets its last answer, and it has ended."""

from __future__ import annotations

from typing import Any

from rdn_engine.errors import ConfigError
from rdn_engine.frame import Frame
from rdn_engine.plain import shown
from rdn_engine.serve.source import FrameSource

_ASKED = ("ended", "error", "waiting", "captured", "dropped", "damaged", "lost_packets", "sessions", "failures")
_DONE = ("start", "get", "close")


class GuardedSource:
    """Has the face of the source that it holds. What fails is that stream's: nobody else meets its exceptions."""

    def __init__(self, source: object) -> None:
        """Take a source, not started.

        Args:
            source: as `OpenSource` made it.

        Raises:
            ConfigError: for what is no source.
        """
        missing = [name for name in (*_ASKED, *_DONE) if not hasattr(type(source), name) and not hasattr(source, name)]
        if missing:
            raise ConfigError(
                f"open_source gave {type(source).__name__}, which lacks {', '.join(missing)}; wanted a source"
            )
        self._source: FrameSource = source  # type: ignore[assignment]
        self._last: dict[str, int] = {}
        self._broken: Exception | None = None
        self._started = False

    @property
    def ended(self) -> bool:
        """As the source says; a broken one has ended."""
        ended = self._ask("ended", True)
        return self.broken or bool(ended)

    @property
    def broken(self) -> bool:
        """Whether a question or `get` has failed: nothing more comes."""
        return self._broken is not None

    @property
    def error(self) -> Exception | None:
        """As the source says; of a broken one, what it raised."""
        error: Exception | None = self._ask("error", None)
        return self._broken or error

    @property
    def waiting(self) -> int:
        """Frames queued; none in a broken one."""
        waiting = self._ask("waiting", 0)
        return waiting if _is_count(waiting) else 0

    @property
    def captured(self) -> int:
        """Frames that arrived."""
        return self._count("captured")

    @property
    def dropped(self) -> int:
        """Frames that its policy dropped."""
        return self._count("dropped")

    @property
    def damaged(self) -> int:
        """Frames lost before they arrived."""
        return self._count("damaged")

    @property
    def lost_packets(self) -> int:
        """Packets of the network that never arrived."""
        return self._count("lost_packets")

    @property
    def sessions(self) -> int:
        """How often it was connected."""
        return self._count("sessions")

    @property
    def failures(self) -> int:
        """How often it failed."""
        return self._count("failures")

    def start(self) -> None:
        """Begin to read; what the source raises comes through, and it is not closed then: it may be another's."""
        self._source.start()
        self._started = True

    def get(self) -> Frame | None:
        """The oldest frame queued, without waiting; None where there is none or the source is broken."""
        try:
            return self._source.get(0)
        except BaseException as error:
            self._break(error)
            return None

    def close(self) -> bool:
        """Stop reading; what the source raises comes through.

        Returns:
            Whether it has stopped.
        """
        return self._source.close() if self._started else True

    def _ask(self, name: str, otherwise: Any) -> Any:
        try:
            return getattr(self._source, name)
        except BaseException as error:
            self._break(error)
            return otherwise

    def _count(self, name: str) -> int:
        """A counter, which steps back for nobody."""
        value = self._ask(name, 0)
        if not _is_count(value):
            self._break(ConfigError(f"{name} of the source is {shown(value)}; wanted a whole number"))
            value = 0
        self._last[name] = max(value, self._last.get(name, 0))
        return self._last[name]

    def _break(self, error: BaseException) -> None:
        if self._broken is None:
            self._broken = error if isinstance(error, Exception) else RuntimeError(f"it raised {error!r}")


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
