"""What a scheduler asks of the source of a stream; `rdn_engine.media.live.LiveSource` is the real one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from rdn_engine.frame import Frame
from rdn_engine.results import Detections


class FrameSource(Protocol):
    """Frames that come by themselves, in a bounded queue whose policy says which are dropped when it is full.

    Any thread may ask; `get` and `close` may meet.
    """

    @property
    def ended(self) -> bool:
        """Whether no frame will be queued any more; those that wait can still be taken."""
        ...

    @property
    def error(self) -> Exception | None:
        """The last failure, after which it connects again or has ended; None while frames come and after a good end.

        Frames that come after it have another `Capture.session`: the results that wait for more frames of the old one
        are given out when it is seen.
        """
        ...

    @property
    def waiting(self) -> int:
        """Frames queued."""
        ...

    @property
    def captured(self) -> int:
        """Frames that arrived: those taken, those queued and those dropped. Each is counted here first."""
        ...

    @property
    def dropped(self) -> int:
        """Frames that the policy of the queue dropped."""
        ...

    @property
    def damaged(self) -> int:
        """Frames that were lost, or could not be decoded, before they arrived."""
        ...

    @property
    def lost_packets(self) -> int:
        """Packets of the network that never arrived; 0 where nobody says."""
        ...

    @property
    def sessions(self) -> int:
        """How often it was connected."""
        ...

    @property
    def failures(self) -> int:
        """How often it could not be connected, or was cut off."""
        ...

    def start(self) -> None:
        """Begin to read, in a thread of its own."""
        ...

    def get(self, timeout: float | None) -> Frame | None:
        """The oldest frame queued.

        Args:
            timeout: seconds to wait for one; None waits until there is one or the source ends.

        Returns:
            The frame; None where there was none in time, or the source ended.
        """
        ...

    def close(self, timeout: float = 2.0) -> bool:
        """Stop reading; what is queued is given up.

        Args:
            timeout: seconds to wait for the reader.

        Returns:
            Whether it has stopped.
        """
        ...


OpenSource = Callable[[Callable[[], None]], FrameSource]
"""Makes a source, not started. It gets what the source is to call, from any thread, whenever a frame was queued and
when it failed or ended: `lambda wake: LiveSource(address, on_change=wake)`."""

Sink = Callable[[Detections], None]
"""Takes the results of one stream, in order, from a thread of that stream."""
