"""One video, decoded by PyAV: every whole picture leaves upright, with its number and its time."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from fractions import Fraction
from pathlib import Path
from typing import Protocol, cast

import av
from av.container import InputContainer
from av.container.core import Flags
from av.format import Flags as FormatFlags
from av.packet import Packet
from av.stream import Stream
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream

from rdn_engine.errors import VideoError
from rdn_engine.frame import Frame
from rdn_engine.media.base import SourceOptions, VideoSource, reason
from rdn_engine.media.clock import ArrivalClock, Clock, CountedClock, DecodingClock, PresentationClock
from rdn_engine.media.container import (
    choose_stream,
    describe,
    open_decoder,
    silence,
    video_streams,
    why_unread,
)
from rdn_engine.media.deinterlace import deinterlaced
from rdn_engine.media.extent import Extent
from rdn_engine.media.packet_losses import PacketLosses
from rdn_engine.media.picture import HDR, UPRIGHT, orientation, video_rgb
from rdn_engine.media.timeline import Timeline

_MAKE_UP_TIMES = cast(int, Flags.gen_pts.value)
_NO_TIMES = cast(int, FormatFlags.no_timestamps.value)
_MAX_READ_ERRORS = 100
_ASSUMED_RATE = Fraction(25)
"""Frames per second of a raw stream that does not say its own, as FFmpeg assumes."""
_SPACINGS_MISSING = 1.5
"""Of pictures: an end that lacks less is no cut."""
_REORDERED = 3.0
"""Times as much, where pictures are shown in another order than they are decoded: the last times may be missing."""
_LOOKED_AHEAD = 2
"""Packets: FFmpeg marks the one before the packet whose data is missing."""
_LOOKED_AT = 256
"""Packets that FFmpeg may have looked at when it opened a source: a loss of that time is in one of them."""
_ROUNDING_SECONDS = 0.25
"""Containers' durations are rounded, or those of sound that goes on for a moment."""
_LONGEST_REORDERING = 16
"""Pictures that a decoder of H.264 and its successors may hold back (ITU-T H.264, section A.3.1, MaxDpbFrames)."""


class Video(VideoSource):
    """A video file or an address."""

    def __init__(
        self,
        container: InputContainer,
        source_id: str,
        *,
        options: SourceOptions,
        network: bool,
        files: tuple[Path, ...] = (),
        losses: PacketLosses | None = None,
    ) -> None:
        """Choose the video stream and start its decoder.

        Args:
            container: open; this object closes it, at once where it raises.
            source_id: what frames and messages say, without credentials.
            options: how it is read.
            network: whether it is waited for.
            files: that are read.
            losses: counts packets that never come, since before the container was opened; closed with this object.

        Raises:
            VideoError: for what holds no video, or holds it in a format without a decoder.
        """
        self._network = network
        self._options = options
        self._container = container
        self._losses = losses
        try:
            self._stream = choose_stream(self._container, source_id, options.video_stream)
            open_decoder(self._stream, source_id)
        except VideoError:
            self._release()
            raise
        self._untimed = bool(self._container.format.flags & _NO_TIMES)
        # Of a raw stream `average_rate` is what FFmpeg assumes, `guessed_rate` has read the stream's own headers.
        guessed, average = self._stream.guessed_rate, self._stream.average_rate
        self._rate = _fraction((guessed if self._untimed else average or guessed) or _ASSUMED_RATE)
        # Its decoder works on several packets at once, and an error comes with a later one than it belongs to.
        self._late_errors = self._stream.codec.canonical_name == "av1"
        self._timeline: Timeline | None = None
        self._packets_read = 0
        """Packets so far, hidden ones too"""
        self._extent = self._promise()
        self._orientation = UPRIGHT
        self._scaler = VideoReformatter()
        super().__init__(source_id, _count(self._container, self._stream, self._rate), float(self._rate), files)
        streams = video_streams(self._container)
        if len(streams) > 1 and options.video_stream is None:
            number = streams.index(self._stream)
            self._warn(f"it has {len(streams)} video streams: {describe(streams)}; {number} is read")

    def _release(self) -> None:
        self._container.close()
        # It asks this object, which would otherwise keep its decoder and its threads until a collection of cycles.
        self._timeline = None
        if self._losses is not None:
            self._losses.close()

    def _frames(self) -> Iterator[Frame]:
        pictures = self._pictures()
        for picture, index, seconds in deinterlaced(pictures) if self._options.deinterlace else pictures:
            if picture.key_frame or self._delivered == 0:  # which alone may be stored another way up than those before
                self._orientation = orientation(picture)
            try:
                image = self._orientation.apply(video_rgb(picture, self._scaler))
            except (av.FFmpegError, OSError) as error:
                what = f"{picture.width}x{picture.height} {picture.format.name}"
                raise self._stopped(f"a picture of {what} becomes no RGB: {reason(error)}") from None
            aspect = float(self.pixel_aspect) if self._options.square_pixels else 1.0
            yield Frame(image, index, seconds, self.source_id, aspect)

    def _pictures(self) -> Iterator[tuple[VideoFrame, int, float | None]]:
        """Whole pictures as decoded, with their numbers and times."""
        index = 0
        for timeline, picture in self._decode():
            if picture.is_corrupt:
                timeline.damage(picture.pts)
                continue
            shown = timeline.show(
                picture.pts, picture.dts, key=bool(picture.key_frame), interlaced=bool(picture.interlaced_frame)
            )
            if shown is None:
                continue
            self._look_at(picture, first=self._delivered == 0)
            self.skipped += shown.lost
            self.doubtful += shown.doubtful
            index += shown.lost
            yield picture, index, shown.time
            index += 1
        if self._timeline is not None:
            self.skipped += self._timeline.end()
        self._look_back()

    def _decode(self) -> Iterator[tuple[Timeline, VideoFrame]]:
        """Pictures as they come out of the decoder; their `pts` are tickets of the timeline."""
        for packet, following in self._of_video():
            if self._timeline is None:
                self._timeline = Timeline(self._clock(packet), lambda: bool(self._stream.codec_context.has_b_frames))
            timeline, ticket = self._timeline, None
            self._packets_read += packet.size > 0
            if packet.size:  # the last one has nothing in it and asks for what the decoder still holds
                ticket = packet.pts = timeline.send(packet.pts, packet.dts, hidden=packet.is_discard)
                if packet.is_corrupt and not self._begins_anew(packet, following):
                    timeline.doubt(ticket + 1)
                if self._packets_lost():
                    timeline.doubt(ticket + (1 if ticket else _LOOKED_AT))
            try:
                pictures = self._stream.codec_context.decode(packet)
            except av.error.EOFError:
                return
            except av.FFmpegError:
                if self._late_errors:
                    timeline.doubt()
                else:
                    timeline.damage(ticket)
                continue
            for picture in pictures:
                yield timeline, picture

    def _packets_lost(self) -> bool:
        """Whether packets were lost since the last question; at first, those of the opening too."""
        before = self.lost_packets
        if self._losses is not None:
            self.lost_packets = self._losses.total
        return self.lost_packets > before

    def _of_video(self) -> Iterator[tuple[Packet[Stream], Sequence[Packet[Stream]]]]:
        """The video's packets, of a file each with those that follow it: nothing is waited for there."""
        ahead = 0 if self._network else _LOOKED_AHEAD
        held: deque[Packet[Stream]] = deque()
        for packet in self._packets():
            if packet.stream.index == self._stream.index:
                held.append(packet)
            if len(held) > ahead:
                yield held.popleft(), held
        while held:
            yield held.popleft(), held

    def _begins_anew(self, packet: Packet[Stream], following: Sequence[Packet[Stream]]) -> bool:
        """Whether what looks like a loss is where the next segment, or the next of several joined files, begins."""
        if self._container.format.name == "hls":
            return True
        return any(later.dts is not None and packet.dts is not None and later.dts < packet.dts for later in following)

    def _packets(self) -> Iterator[Packet[Stream]]:
        """Of every stream: the video's alone do not tell whether the end of a container is missing."""
        # FFmpeg makes missing presentation times up, for B-pictures of some containers wrong ones; `_clock` decides.
        self._container.flags &= ~_MAKE_UP_TIMES
        read_errors = 0
        packets = self._container.demux()
        while True:
            asked, why = time.monotonic(), ""
            try:
                with nullcontext() if self._losses is None else self._losses.counted():
                    packet = next(packets)
            except StopIteration:
                return
            except IndexError:
                # A stream that began after the container was opened: PyAV's list of streams does not have it.
                packets = self._container.demux()
                continue
            except av.FFmpegError as error:
                read_errors += 1
                why = why_unread(error, asked if self._network else None, self._options.timeout)
                passing = isinstance(error, av.error.InvalidDataError) and why == reason(error)
                if passing and read_errors <= _MAX_READ_ERRORS:
                    packets = self._container.demux()
                    continue
            if why:  # out here, so that PyAV's error, which holds the whole address, is not the context of ours
                raise self._stopped(why)
            interrupted = self._network and time.monotonic() - asked >= self._options.timeout
            begin = packet.dts if packet.pts is None else packet.pts
            self._extent.read(packet.stream.index, begin, packet.duration)
            yield packet
            if interrupted:  # FFmpeg handed out what it had left; the next read would wait as long again
                raise self._stopped(silence(self._options.timeout))

    def _stopped(self, why: str) -> VideoError:
        return VideoError(f"{self.source_id}: reading stopped after {self._delivered} frames: {why}")

    def _clock(self, first: Packet[Stream]) -> Clock:
        """What the container says of time, by the first packet."""
        if self._untimed and self._network:
            return ArrivalClock()
        if self._untimed:
            if not self._stream.codec_context.framerate:
                self._warn(f"it does not say its frame rate; {float(self._rate):g} frames per second are assumed")
            return CountedClock(float(1 / self._rate))
        assert self._stream.time_base is not None
        time_base = _fraction(self._stream.time_base)
        if first.pts is None and first.dts is not None:
            return DecodingClock(time_base, self._held)
        self._container.flags |= _MAKE_UP_TIMES
        settles = self._container.format.name == "rtsp"
        return PresentationClock(time_base, float(1 / self._rate), settles=settles)

    def _held(self) -> int:
        """Pictures that the decoder may hold back now."""
        if not self._stream.codec_context.has_b_frames:
            return 0
        return _LONGEST_REORDERING if self._stream.codec.canonical_name in ("h264", "hevc", "vvc") else 1

    def _promise(self) -> Extent:
        container = self._container
        # Of these FFmpeg takes the duration from what there is, and of a list of files from the list.
        estimated = container.format.name in ("mpegts", "mpeg", "concat")
        promised = 0.0 if estimated else (container.duration or 0) / av.time_base
        if container.format.name == "avi":  # where FFmpeg puts what there is for what the header says
            promised = max(promised, float(self._stream.frames / self._rate))
        reordered = _REORDERED if self._stream.codec_context.has_b_frames else 1.0
        rounding = 0.0 if container.format.name == "avi" else _ROUNDING_SECONDS
        return Extent(
            ticks=[float(stream.time_base or 0) for stream in container.streams],
            start=(container.start_time or 0) / av.time_base,
            promised=None if self._untimed or self._network or not promised else promised,
            allowed=max(rounding, _SPACINGS_MISSING * reordered * float(1 / self._rate)),
            gapless=container.format.name == "hls",
        )

    def _look_at(self, picture: VideoFrame, *, first: bool) -> None:
        """Note what a user should know of the pictures."""
        if first:
            aspect = _fraction(self._stream.sample_aspect_ratio or Fraction(1))
            self.pixel_aspect = 1 / aspect if orientation(picture).transposed else aspect
        if picture.color_trc in HDR:
            self._warn(
                f"it is HDR ({HDR[picture.color_trc]}, ITU-R BT.2100) and is read without tone mapping: "
                "a model made for ordinary video sees dull colours"
            )
        if picture.interlaced_frame and not self._options.deinterlace:
            self._warn("it is interlaced: what moves has the edges of a comb; the option deinterlace mends them")

    def _uncounted(self) -> str | None:
        """An MP4 lists its pictures, so that a single one is missed."""
        listed = len(self._stream.index_entries) if self._container.format.name.startswith("mov") else 0
        return (
            f"lacks {listed - self._packets_read} of the pictures that it lists"
            if listed > self._packets_read
            else None
        )

    def _look_back(self) -> None:
        """Note what did not come, or not as it was."""
        if self.skipped:
            self._warn(f"{_frames(self.skipped)} damaged and skipped")
        if self.doubtful:
            self._warn(f"data is missing: {_frames(self.doubtful)} doubtful, those from there to the next key frame")
        if self._container.format.name == "hls" and not self._container.duration and not self._network:
            self.incomplete = "the playlist is unfinished (no #EXT-X-ENDLIST)"
        elif shortfall := self._extent.shortfall() or self._uncounted():
            of = f" of {self._stream.frames}" if self._stream.frames else ""
            self.incomplete = f"it {shortfall}: {self._delivered}{of} frames came"
        if self.incomplete is not None:
            self._warn(self.incomplete)


def _frames(count: int) -> str:
    return "1 frame is" if count == 1 else f"{count} frames are"


class _Ratio(Protocol):
    @property
    def numerator(self) -> int: ...
    @property
    def denominator(self) -> int: ...


def _fraction(ratio: _Ratio) -> Fraction:
    """The same number: PyAV 19.0.2 has AVRational where PyAV 18 has Fraction."""
    return Fraction(ratio.numerator, ratio.denominator)


def _count(container: InputContainer, stream: VideoStream, rate: Fraction) -> int | None:
    if stream.frames:
        return stream.frames
    if stream.duration and stream.time_base:
        return round(stream.duration * _fraction(stream.time_base) * rate)
    return round(container.duration * rate / av.time_base) if container.duration else None
