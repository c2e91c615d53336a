"""One video, decoded by PyAV: every whole picture leaves upright, with its number and its time."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
from av.stream import Disposition
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from rdn_engine.errors import VideoError
from rdn_engine.frame import Frame
from rdn_engine.media.base import VideoSource, reason
from rdn_engine.media.picture import STRICT, upright_rgb

_NETWORK_TIMEOUT_S = 10.0
_MAX_READ_ERRORS = 100
_LOST_KEPT = 64  # more than any decoder holds back for reordering


class Video(VideoSource):
    def __init__(self, url: str, source_id: str, network: bool) -> None:
        # A file may name further inputs (playlists do); one that came from outside must not reach the network.
        options = {} if network else {"protocol_whitelist": "file"}
        timeout = _NETWORK_TIMEOUT_S if network else None
        try:
            self._container = av.open(url, mode="r", options=options, timeout=timeout)
        except (av.FFmpegError, OSError, ValueError) as error:
            raise VideoError(f"{source_id} cannot be opened as video: {reason(error)}") from None
        streams = [s for s in self._container.streams.video if not s.disposition & Disposition.attached_pic]
        if not streams:
            kinds = ", ".join(sorted({s.type for s in self._container.streams}))
            self._container.close()
            raise VideoError(f"{source_id} holds no video, only {kinds or 'an empty container'}")
        self._stream: VideoStream = streams[0]
        if self._stream.codec_context is None:
            self._container.close()
            raise VideoError(f"{source_id} is in a format that this build of FFmpeg has no decoder for")
        if self._stream.codec.intra_only:
            # Decoders that predict flag what they patched; told to be strict, they lose further pictures on the way.
            self._stream.codec_context.options = STRICT
        self._sent: set[int] = set()
        """Timestamps of packets whose picture has not come out yet"""
        self._damaged: set[int] = set()
        self._lost: deque[int] = deque(maxlen=_LOST_KEPT)
        """Timestamps counted as skipped: after damage a decoder may hand out an older picture late, out of order"""
        rate = self._stream.average_rate or self._stream.guessed_rate
        files = () if network else (Path(url.removeprefix("file:")),)
        super().__init__(source_id, _count(self._stream, rate), float(rate) if rate else None, files)

    def close(self) -> None:
        super().close()
        self._container.close()

    def _frames(self) -> Iterator[Frame]:
        index = 0
        for decoded in self._decode():
            pts = decoded.pts
            if decoded.is_corrupt:
                index += self._damage(pts)
            elif pts not in self._damaged and pts not in self._lost:
                index += self._pass(pts)
                yield Frame(upright_rgb(decoded), index, decoded.time, self.source_id)
                index += 1
        if self._damaged:
            self.skipped += len(self._sent)

    def _damage(self, pts: int | None) -> int:
        """Note a damaged packet or picture; returns how many numbers that takes at once."""
        if pts is None:
            self.skipped += 1
            return 1
        self._sent.add(pts)
        self._damaged.add(pts)
        return 0

    def _pass(self, pts: int | None) -> int:
        """A whole picture is out: the damaged ones before it are lost. Returns their number.

        Pictures come out in display order, errors come up in coding order, and a decoder that fails on a packet may
        drop the picture that it was about to hand out. So around damage every packet without a picture is lost; where
        nothing was damaged such a packet is no loss (the second field of an interlaced picture).
        """
        if pts is None:
            self._sent.clear()
            return 0
        lost = [p for p in self._sent if p < pts] if self._damaged else []
        self._lost.extend(lost)
        self.skipped += len(lost)
        self._sent = {p for p in self._sent if p > pts}
        self._damaged = {p for p in self._damaged if p > pts}
        return len(lost)

    def _decode(self) -> Iterator[VideoFrame]:
        read_errors = 0
        packets = self._container.demux(self._stream)
        while True:
            try:
                packet = next(packets)
            except StopIteration:
                return
            except av.FFmpegError as error:
                read_errors += 1
                if read_errors > _MAX_READ_ERRORS or not isinstance(error, av.error.InvalidDataError):
                    raise VideoError(
                        f"{self.source_id}: reading stopped after {self._delivered} frames: {reason(error)}"
                    ) from None
                packets = self._container.demux(self._stream)
                continue
            if packet.pts is not None and not packet.is_discard:
                self._sent.add(packet.pts)
            try:
                decoded = packet.decode()
            except av.error.EOFError:
                return
            except av.FFmpegError:
                self._damage(packet.pts)
                continue
            yield from decoded


def _count(stream: VideoStream, rate: Fraction | None) -> int | None:
    if stream.frames:
        return stream.frames
    if stream.duration and stream.time_base and rate:
        return round(stream.duration * stream.time_base * rate)
    return None
