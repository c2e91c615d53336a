"""One video's state: order, epochs, dials. Which machine its frames live on is the part of the subclasses."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from types import TracebackType
from typing import NoReturn, Self, TypeVar

from rdn_engine.config import Dials, RDNConfig
from rdn_engine.errors import ConfigError, FrameError, RDNError, StreamClosed
from rdn_engine.frame import Frame, Image
from rdn_engine.plain import check as check_value
from rdn_engine.results import Detections, FrameFacts
from rdn_engine.stream.linking import BoxLinker
from rdn_engine.stream.order import Due, FrameInfo, FrameOrder, aspect, position, seconds, source_name, span
from rdn_engine.stream.timings import Timings

CheckedT = TypeVar("CheckedT")


class Stream(ABC):
    """One video: frames go in with `push`, each comes out once, in order, L frames later (with linking L + D; L and D
    count steps, every n-th frame). One thread at a time. `rdn_engine.stream.order.FrameOrder` says when a new epoch
    begins.
    """

    fills_between = False
    """Whether the dials `interval` and `still` may be turned up: this machine has results for frames not encoded"""

    def __init__(self, config: RDNConfig, dials: Dials, capacity: Dials, source_id: str) -> None:
        self._config = config
        self._capacity = capacity
        self._check_dials(dials)
        self._dials = dials
        check_value(isinstance(source_id, str), "source_id", source_id, "a name, as text")
        self._source_id = source_id
        self._order = FrameOrder()
        self._closed = False
        self.linker = BoxLinker()
        """Joins boxes along the video."""
        self.accepted = 0
        """Frames pushed that are images."""
        self.rejected = 0
        """Frames that raised FrameError."""
        self.timings = Timings()

    @property
    def epoch(self) -> int:
        """How often the stream's state was reset."""
        return self._order.epoch

    @property
    def dials(self) -> Dials:
        """Settings in effect. Setting them is checked against the capacity (ConfigError) and takes effect from the next
        result; num_reference (N) above its old value from the next frame pushed. The next push returns several results
        after a lower look-ahead or link_delay; another `link` ends the tubes that there are.
        """
        return self._dials

    @dials.setter
    def dials(self, dials: Dials) -> None:
        self._check_dials(dials)
        self._dials = dials

    @property
    def num_proposals(self) -> tuple[int, int]:
        """Reference and support proposals of the frames that are encoded from now on: N, which is no less than the
        other, and K of the capacity, so that the dials' K can be turned up without a gap in the window.
        """
        return max(self._dials.num_reference, self._capacity.num_support), self._capacity.num_support

    @property
    @abstractmethod
    def nbytes(self) -> int:
        """Bytes that this stream holds: fixed when it is opened. Linking holds D + 1 results and their links on top,
        what `skipping_nbytes` says, and the dial `interval` the newest picture where results wait.
        """

    def skipping_nbytes(self, dials: Dials) -> int:
        """Bytes that the dials `still` and `interval` hold on top of `nbytes`, at most, whatever size frames have: the
        colours of the blocks that say whether a frame is still, and the small pictures on which boxes are followed
        where results do not wait, or are linked.

        Args:
            dials: of this stream, or to be turned to.
        """
        return 0

    @abstractmethod
    def push(self, frame: Image | Frame, pts: float | None = None) -> list[Detections]:
        """Take the next frame.

        Args:
            frame: uint8 [H, W, 3] RGB, or a Frame, which brings its own number, time and source.
            pts: seconds on the source's clock; None where unknown.

        Returns:
            The results that became ready: frame t - L's for frame t, linked t - L - D's, and before it the rest of the
            old epoch's where this frame begins a new one. Those of frames between two steps come with the second, or
            at once where results do not wait. `frame_index` is the Frame's, else how many frames the
            stream accepted before.

        Raises:
            FrameError: for what is no image, or no time; the stream is as it was.
            StreamClosed: after `close`.
        """

    @abstractmethod
    def flush(self) -> list[Detections]:
        """End the epoch.

        Returns:
            The results still to come, by the edge rule for what follows the last frame.

        Raises:
            StreamClosed: after `close`.
        """

    def close(self) -> None:
        """Give up what is pending. `push` and `flush` raise StreamClosed from now on."""
        self._closed = True
        self.linker = BoxLinker()
        self._order.abandon()

    def __reduce__(self) -> NoReturn:
        raise RDNError("a stream cannot be pickled: its window is of this process; open one where it is to run")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _check_frame(
        self, frame: object, pts: float | None, check: Callable[[object], tuple[CheckedT, tuple[int, int]]]
    ) -> tuple[CheckedT, FrameInfo]:
        """Check a frame, before anything of it is computed; one that is refused is counted.

        Args:
            frame, pts: as `push`.
            check: the machine's, of the pixels: gives them as it reads them, and (height, width); or FrameError.

        Returns:
            What `check` gave, and number, time and source of the frame: a Frame's own word, else the stream's.

        Raises:
            FrameError, StreamClosed: as `push`.
        """
        self.check_open()
        if not isinstance(frame, Frame):
            frame = Frame(frame, self.accepted, pts, self._source_id)  # type: ignore[arg-type]
        try:
            checked, (height, width) = check(frame.image)
            return checked, FrameInfo(
                position(frame.index),
                seconds(frame.pts),
                source_name(frame.source_id),
                height,
                width,
                aspect(frame.pixel_aspect),
                frame.capture,
            )
        except FrameError:
            self.rejected += 1
            raise

    def _facts(self, due: Due) -> FrameFacts:
        """What a result that is computed now says about its frame."""
        return FrameFacts(
            class_names=self._config.class_names,
            frame_index=due.info.frame_index,
            pts=due.info.pts,
            source_id=due.info.source_id,
            height=due.info.height,
            width=due.info.width,
            pool_fill=len(span(due.number, self._order.newest, self._dials)),
            lookahead=self._dials.frames_ahead,
            epoch=self._order.epoch,
            capture=due.info.capture,
        )

    def _check_dials(self, dials: Dials) -> None:
        for name, symbol in (("window", "T"), ("num_support", "K"), ("num_reference", "N")):
            got, limit = getattr(dials, name), getattr(self._capacity, name)
            if got > limit:
                raise ConfigError(
                    f"{name} ({symbol}) is {got}; this stream has room for {limit}: open it with "
                    f"open_stream(dials, capacity=Dials({name}={got}, ...))"
                )
        for name, most in (("interval", 1), ("still", 0.0)):
            if not self.fills_between and getattr(dials, name) > most:
                raise ConfigError(
                    f"{name} is {getattr(dials, name):g}; a {type(self).__name__} encodes every frame: "
                    f"wanted {most:g}, or device 'cpu'"
                )

    def check_open(self) -> None:
        """Check that the stream takes frames.

        Raises:
            StreamClosed: after `close`.
        """
        if self._closed:
            raise StreamClosed("this stream was closed; open another with Detector.open_stream")
