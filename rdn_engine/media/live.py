"""A live source: a thread that reads, reconnects, and gives up frames that nobody takes in time, counting every one."""

from __future__ import annotations

import atexit
import logging
import random
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from rdn_engine.capture import Capture
from rdn_engine.errors import VideoError
from rdn_engine.frame import Frame
from rdn_engine.media.address import without_credentials
from rdn_engine.media.base import SourceOptions, VideoSource
from rdn_engine.media.camera import device_path, is_device
from rdn_engine.media.frame_queue import FrameQueue, Policy
from rdn_engine.media.heap import HEAP
from rdn_engine.media.source import open_source
from rdn_engine.plain import check, check_fields, seconds_to_wait
from rdn_engine.process import Home

_started: weakref.WeakSet[LiveSource] = weakref.WeakSet()

_log = logging.getLogger("rdn_engine.media")


@dataclass(frozen=True)
class LiveOptions:
    """How a live source is read, and what happens when it fails or comes too fast."""

    policy: Policy = "drop_oldest"
    """What happens to a frame for which there is no room"""
    room: int = 2
    """Frames that may wait, 1..1000"""
    first_delay: float = 0.5
    """Seconds, 0.01..3600, before the first attempt to connect again"""
    longest_delay: float = 30.0
    """Seconds, 0.01..3600: the delay doubles with every failed attempt up to here"""
    real_time: bool = True
    """Whether a file is played at its own speed; otherwise as fast as frames are taken. Addresses have their own"""
    source: SourceOptions = field(default_factory=SourceOptions)
    """How each connection is read"""

    def __post_init__(self) -> None:
        """Check every value.

        Raises:
            ConfigError: says which is of another type or out of its range.
        """
        check_fields(self, "live", room=(1, 1000), first_delay=(0.01, 3600), longest_delay=(0.01, 3600))
        check(
            self.first_delay <= self.longest_delay, "live.first_delay", self.first_delay, f"0.01..{self.longest_delay}"
        )


def is_live(address: str | Path | int) -> bool:
    """Whether a source has no end of its own, as a file has.

    Args:
        address: as LiveSource takes it.
    """
    text = str(device_path(address) or address)
    return ("://" in text and not text.startswith("file:")) or is_device(text)


class LiveSource:
    """Frames of a camera, as they come. One thread reads; `get` and `close` are called from another.

    An address or a video device that ends, fails or falls silent has failed: the thread connects again, after a delay
    that doubles up to a limit and is varied at random, so that many streams do not come back in one moment. A file ends
    once. No frame is invented in between: the next one has another `session`, which begins another epoch.

    Of every frame that was captured exactly one thing is true: it was taken by `get`, it waits, or it is in `dropped`.
    """

    def __init__(
        self,
        address: str | Path | int,
        options: LiveOptions | None = None,
        *,
        on_change: Callable[[], None] = lambda: None,
        opener: Callable[[str | Path, SourceOptions], VideoSource] = open_source,
    ) -> None:
        """Nothing is opened before `start`.

        Args:
            address: as `open_source` takes it; a plain number, 0..63, is that video device. A file of such a name is
                `./0`.
            options: how it is read.
            on_change: called by the reading thread whenever there is a frame more, and at the end.
            opener: opens a connection; for tests.
        """
        self._home: Home | None = None
        address = device_path(address) or address
        check(isinstance(address, (str, Path)), "address", address, "a path, an address, or the number of a camera")
        self.source_id = without_credentials(str(address))
        """What frames and messages say, without credentials"""
        check(options is None or isinstance(options, LiveOptions), "options", options, "LiveOptions, or None")
        check(callable(on_change), "on_change", on_change, "a function")
        check(callable(opener), "opener", opener, "a function that opens a source")
        self._address: str | Path = address  # type: ignore[assignment]
        self._live = is_live(address)
        self._options = options or LiveOptions()
        self._on_change = on_change
        self._open = opener
        self._queue = FrameQueue(self._options.room, self._options.policy)
        self._closing = threading.Event()
        self._finished = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"reader of {self.source_id}", daemon=True)
        self._next_index = 0
        self._taken = 0
        self.captured = 0
        """Frames that arrived whole"""
        self.damaged = 0
        """Frames that were found damaged and are not among the captured ones"""
        self.doubtful = 0
        """Captured frames before which data was lost"""
        self.lost_packets = 0
        """RTP packets that never came, of a source over UDP"""
        self.sessions = 0
        """Connections that gave a frame"""
        self.failures = 0
        """Attempts and connections that failed"""
        self.error: VideoError | None = None
        """The last failure; None while frames come"""

    @property
    def dropped(self) -> int:
        """Captured frames that were given up."""
        return self._queue.dropped

    @property
    def taken(self) -> int:
        """Captured frames that `get` returned."""
        return self._taken

    @property
    def waiting(self) -> int:
        """Captured frames that `get` has not returned yet."""
        return len(self._queue)

    @property
    def ended(self) -> bool:
        """Whether no more frames will be captured; some may wait."""
        return self._finished.is_set()

    @property
    def longest_read(self) -> float:
        """Seconds after which a read that FFmpeg keeps has ended by itself."""
        return 2 * self._options.source.timeout + 1.0  # one that opens, and one that reads

    def start(self) -> None:
        """Begin to read; once.

        Raises:
            VideoError: where it was started before: a live source is one stream's.
        """
        if self._thread.ident is not None:
            raise VideoError(f"{self.source_id} was started before; open another for another stream")
        self._home = Home(f"the reader of {self.source_id}")
        _started.add(self)
        self._thread.start()

    def get(self, timeout: float | None = None) -> Frame | None:
        """Take the oldest frame that waits.

        Args:
            timeout: seconds to wait for one; None waits until there is one or the source has ended.

        Returns:
            The frame, with its `capture`; None where none came.

        Raises:
            VideoError: before `start`: no frame would ever come.
        """
        timeout = seconds_to_wait("timeout", timeout)
        if self._home is not None:
            self._home.check()
        elif not self._closing.is_set():
            raise VideoError(f"{self.source_id} was not started; call start() first")
        frame = self._queue.get(timeout)
        self._taken += frame is not None
        return frame

    def close(self, timeout: float = 2.0) -> bool:
        """Stop reading and give up what waits.

        Args:
            timeout: seconds to wait for the thread. One that FFmpeg keeps in a read ends by itself once the source's
                own timeout is over; until then it holds its connection, and nothing else.

        Returns:
            Whether the thread has ended. A forked child has none.
        """
        wait = seconds_to_wait("timeout", timeout)
        if self._home is not None and not self._home.here:
            return True
        self._closing.set()
        self._queue.close(drop=True)
        if self._thread.is_alive():
            if self._thread is threading.current_thread():  # its own listener asks; it ends when that returns
                return False
            self._thread.join(wait)
        return not self._thread.is_alive()

    def _run(self) -> None:
        attempt, said = 0, ""
        while not self._closing.is_set():
            captured = self.captured
            self._read_once()
            HEAP.give_back()
            if not self._live or self._closing.is_set():
                break
            attempt = 1 if self.captured > captured else attempt + 1
            delay = self._delay(attempt)
            before, said = said, str(self.error)
            # A camera that is away for a night would fill the log with one line.
            level = logging.DEBUG if attempt > 1 and said == before else logging.WARNING
            _log.log(level, "%s; connecting again in %.1f s", self.error, delay)
            self._closing.wait(delay)
        self._finished.set()
        self._queue.close(drop=False)
        self._tell()

    def _read_once(self) -> None:
        """One connection, until it ends or fails."""
        try:
            with self._open(self._address, self._options.source) as video:
                self._capture_all(video)
            if self._live and not self._closing.is_set():
                raise VideoError(f"{self.source_id} ended, which a live source does not")
        except BaseException as error:  # whatever it is, it must not end the thread without a word
            self.failures += 1
            # Of an error that is not ours only the kind: its words may quote the address.
            kind = type(error).__name__
            failure = error if isinstance(error, VideoError) else VideoError(f"{self.source_id}: {kind}")
            # Where it was raised leads to the decoder, whose memory and threads it would keep until the next session.
            failure.__traceback__ = failure.__context__ = None
            self.error = failure
            self._tell()

    def _capture_all(self, video: VideoSource) -> None:
        damaged, lost_packets = self.damaged, self.lost_packets
        try:
            for _ in self._captured(video):
                self.damaged = damaged + video.skipped
                self.lost_packets = lost_packets + video.lost_packets
        finally:
            self.damaged = damaged + video.skipped
            self.lost_packets = lost_packets + video.lost_packets

    def _captured(self, video: VideoSource) -> Iterator[None]:
        """Queue one frame after another."""
        first, session, doubtful = self._next_index, self.sessions, 0
        for number, frame in enumerate(self._paced(video)):
            if self._closing.is_set():
                return
            self.sessions, self.error = session + 1, None
            capture = Capture(time.time(), 0, video.doubtful > doubtful, session, time.monotonic())
            self.doubtful += capture.doubtful
            doubtful = video.doubtful
            self.captured += 1
            self._next_index = first + frame.index + 1
            self._queue.put(replace(frame, index=first + frame.index, capture=capture))
            self._tell()
            yield
            if number == 1:
                HEAP.give_back()  # what opening has freed, and what was probed

    def _tell(self) -> None:
        try:
            self._on_change()
        except Exception:  # of whoever listens; the reader goes on
            _log.exception("%s: on_change raised", self.source_id)

    def _delay(self, attempt: int) -> float:
        """Seconds before the next attempt: doubled each time up to the limit; of that, half to all."""
        options = self._options
        longest = min(options.first_delay * 2.0 ** min(attempt - 1, 60), options.longest_delay)
        return longest * random.uniform(0.5, 1.0)

    def _paced(self, video: VideoSource) -> Iterator[Frame]:
        """The frames of a file at the speed of its own clock, those of an address as they come."""
        start: tuple[float, float] | None = None
        for frame in video:
            if not self._live and self._options.real_time and frame.pts is not None:
                now = time.monotonic()
                if start is None or frame.pts < start[1]:
                    start = now, frame.pts
                self._closing.wait(max(0.0, start[0] + frame.pts - start[1] - now))
            yield frame


@atexit.register
def _end_all() -> None:
    """FFmpeg asks Python, a few times a second, whether a read is to go on: no reader may outlive the interpreter."""
    for source in list(_started):
        source.close(timeout=0.0)
    for source in list(_started):
        source.close(timeout=source.longest_read)
