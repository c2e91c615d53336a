"""Open a container, choose its video stream, and say in words why that failed."""

from __future__ import annotations

import time
from pathlib import Path

import av
from av.container import InputContainer
from av.stream import Disposition
from av.video.stream import VideoStream

from rdn_engine.errors import VideoError
from rdn_engine.media.address import has_raw_password
from rdn_engine.media.base import SourceOptions, reason
from rdn_engine.media.picture import STRICT

# A file may name further inputs (playlists do); one that came from outside must not reach the network. An unfinished
# playlist is read from its start, and not waited for: by default FFmpeg begins three segments before its end.
_FILE = {"protocol_whitelist": "file,pipe", "live_start_index": "0", "m3u8_hold_counters": "2"}
# By default FFmpeg looks at twenty pictures to find the frame rate, and hands none out before: a camera of 10 frames a
# second comes back two seconds later than it has to, and then all at once. Two give the same rate.
_NETWORK = {"fpsprobesize": "2"}
_BOX_HEADER = 8


def open_container(url: str, source_id: str, *, network: bool, options: SourceOptions) -> InputContainer:
    """Open what FFmpeg can read.

    Args:
        url: for FFmpeg, with its protocol.
        source_id: what messages say, without credentials.
        network: whether it may be waited for.
        options: how it is read.

    Raises:
        VideoError: says why it cannot be opened.
    """
    asked = time.monotonic()
    try:
        if network:
            settings = {**_NETWORK, "rtsp_transport": options.rtsp_over}
            return av.open(url, mode="r", options=settings, timeout=options.timeout)
        return av.open(url, mode="r", options=_FILE)
    except (av.FFmpegError, OSError, ValueError) as error:
        why = why_unread(error, asked if network else None, options.timeout)
    if not network and _lacks_index(Path(url.removeprefix("file:"))):
        why = "it has no index (moov box): its recording was not finished, or its end was not copied"
    if network and has_raw_password(url):
        why += "; in a password the signs / ? # [ ] @ are written %2F %3F %23 %5B %5D %40"
    # Out here, so that PyAV's error, which holds the whole address, is not the context of ours.
    raise VideoError(f"{source_id} cannot be opened as video: {why}")


def choose_stream(container: InputContainer, source_id: str, number: int | None) -> VideoStream:
    """The video stream to read.

    Args:
        container: open.
        source_id: what messages say.
        number: which of the video streams, from 0; None takes the one that FFmpeg calls best: the default one before
            others, cover pictures never.

    Raises:
        VideoError: where there is none, not this one, or no decoder for it.
    """
    streams = video_streams(container)
    if not streams:
        kinds = ", ".join(sorted({s.type for s in container.streams}))
        raise VideoError(f"{source_id} holds no video, only {kinds or 'an empty container'}")
    if number is not None and number >= len(streams):
        raise VideoError(f"{source_id} has no video stream {number}; wanted one of {describe(streams)}")
    best = container.streams.best("video")
    stream = streams[number] if number is not None else best if best in streams else streams[0]
    if stream.codec_context is None:
        raise VideoError(f"{source_id} is in a format that this build of FFmpeg has no decoder for")
    return stream


def open_decoder(stream: VideoStream, source_id: str) -> None:
    """Start the decoder, before a packet that it cannot take would count as damaged.

    Args:
        stream: of `choose_stream`.
        source_id: what messages say.

    Raises:
        VideoError: where it does not start: a header that cannot be read, a system that gives no more threads.
    """
    name = stream.codec.name  # PyAV 19 no longer knows it once the decoder was refused
    # FFmpeg's strict decoder refuses sound TIFF with Exif (findings/strict_ffmpeg_refuses_tiff_with_exif.sh).
    if stream.codec.intra_only and name != "tiff":
        # Decoders that predict flag what they patched; told to be strict, they lose further pictures on the way.
        stream.codec_context.options = STRICT
    try:
        stream.codec_context.open(strict=False)
    except (av.FFmpegError, OSError, ValueError) as error:
        why = f"does not start: {reason(error)}"
        if isinstance(error, BlockingIOError):
            why = "is refused its threads by the system; wanted a higher limit (ulimit -u, a container's pids limit)"
        raise VideoError(f"{source_id} cannot be decoded: {name} {why}") from None


def video_streams(container: InputContainer) -> list[VideoStream]:
    """The streams of moving pictures, in the container's order: cover pictures are none.

    Args:
        container: open.
    """
    return [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]


def describe(streams: list[VideoStream]) -> str:
    """Number, codec and size of each stream, for people.

    Args:
        streams: of `video_streams`.
    """
    return ", ".join(
        f"{number} ({s.codec_context.name} {s.width}x{s.height})" if s.codec_context else f"{number} (no decoder)"
        for number, s in enumerate(streams)
    )


def why_unread(error: Exception, asked: float | None, timeout: float) -> str:
    """Why reading failed, for people.

    Args:
        error: of PyAV or the system.
        asked: `time.monotonic` when the read began; None where nothing is waited for.
        timeout: seconds of silence after which PyAV gives up, with errors that depend on the protocol.
    """
    # The interruption that ends a wait comes again with the next read, which then waits for nothing.
    if asked is not None and (isinstance(error, av.error.ExitError) or time.monotonic() - asked >= timeout):
        return silence(timeout)
    return reason(error)


def silence(timeout: float) -> str:
    """What ended a wait, for people.

    Args:
        timeout: seconds.
    """
    return f"it was silent for {timeout:g} s"


def _lacks_index(path: Path) -> bool:
    """Whether this is an MP4 or MOV without the box of its index (ISO/IEC 14496-12, section 4.2)."""
    if not path.is_file():  # a pipe cannot be read again
        return False
    kinds = []
    try:
        with path.open("rb") as file:
            while len(header := file.read(_BOX_HEADER)) == _BOX_HEADER:
                size, kind = int.from_bytes(header[:4], "big"), header[4:]
                kinds.append(kind)
                if size == 1:
                    size = int.from_bytes(file.read(8), "big") - 8
                if size < _BOX_HEADER:  # to the end of the file, or no box at all
                    break
                file.seek(size - _BOX_HEADER, 1)
    except (OSError, ValueError, OverflowError):  # a size of 64 bits may be any
        return False
    return kinds[:1] in ([b"ftyp"], [b"mdat"], [b"wide"]) and b"moov" not in kinds
