"""What must hold of streams behind a real Triton Inference Server: equal results, refusals, a server that dies, memory.

Each check gives what it saw, and ends the run where that is not what is wanted.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.frames import Image, make_frame
from benchmarks.serve.triton_server import MODEL, TritonServer
from rdn_engine.detector import Detector
from rdn_engine.errors import AdmissionRefused
from rdn_engine.frame import Frame
from rdn_engine.results import Detections
from rdn_engine.serve.triton.client import open_triton_stream
from rdn_engine.serve.triton.export import export_triton
from rdn_engine.serve.triton.options import TritonOptions

PICTURES = 64
"""Different frames; they come again and again, for each stream from another one on"""
IDLE_SECONDS = 1.0
"""After which the server of abandoned streams forgets one"""
ROUNDING = 1e-3
"""Of a confidence, where frames of several streams were encoded in one call"""
FLAT_MIB = 3.0
"""What the server may grow by while the second half of the streams is abandoned"""


class Videos:
    """Frames of any number of streams, the same for whoever asks."""

    def __init__(self, detector: Detector) -> None:
        size = detector.config.input.shorter_side, detector.config.input.longer_side
        self._pictures = [make_frame(t, size) for t in range(PICTURES)]

    def frame(self, stream: int, t: int) -> Image:
        return self._pictures[(t + 7 * stream) % PICTURES]


@contextlib.contextmanager
def serving(engines: Path, options: TritonOptions, cores: set[int] | None = None) -> Iterator[TritonServer]:
    """A server with a model of these options, until the context ends."""
    with TemporaryDirectory() as folder:
        export_triton(engines, Path(folder), options, name=MODEL)
        with TritonServer(Path(folder), cores=cores) as server:
            yield server


def every(work: Callable[[int], Any], count: int) -> list[Any]:
    """work(0), work(1), ... each in a thread of its own, all at once."""
    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(work, range(count)))


def alone(detector: Detector, videos: Videos, stream: int, frames: range, name: str) -> list[dict[str, Any]]:
    """What a local stream gives for a part of a video."""
    with detector.open_stream(source_id=name) as one:
        results = [r for t in frames for r in one.push(Frame(videos.frame(stream, t), t, None, name))]
        return [result.to_dict() for result in [*results, *one.flush()]]


def sizes(server: TritonServer) -> dict[int, int]:
    """How many calls of the model had so many frames."""
    return {size: count for size, (count, _) in server.calls().items()}


def equal(server: TritonServer, detector: Detector, videos: Videos, streams: int, frames: int) -> dict[str, Any]:
    """All streams at once through the server, and each by itself in this process."""
    before = sizes(server)

    def play(number: int) -> list[dict[str, Any]]:
        with open_triton_stream(server.url, MODEL, name=f"cam-{number}") as stream:
            results = [r for t in range(frames) for r in stream.push(videos.frame(number, t))] + stream.flush()
            return [result.to_dict() for result in results]

    found = every(play, streams)
    calls = {size: count - before.get(size, 0) for size, count in sizes(server).items()}
    same = largest = 0.0
    for number, results in enumerate(found):
        wanted = alone(detector, videos, number, range(frames), f"cam-{number}")
        if len(results) != frames or len(wanted) != frames:
            raise SystemExit(f"stream {number} has {len(results)} results of {frames} frames")
        for ours, theirs in zip(results, wanted, strict=True):
            same += ours == theirs
            largest = max(largest, _difference(ours, theirs))
    if largest > ROUNDING:
        raise SystemExit(f"results differ from local ones by {largest:g}; wanted {ROUNDING:g} at most")
    return {
        "streams": streams, "frames": frames, "equal_to_the_bit": round(same), "largest_difference": largest,
        "calls": {str(size): count for size, count in sorted(calls.items()) if count},
        "frames_a_call": sum(size * count for size, count in calls.items()) / sum(calls.values()),
    }  # fmt: skip


def _difference(ours: dict[str, Any], theirs: dict[str, Any]) -> float:
    """Of confidences; infinite where anything but boxes and confidences differs."""
    a, b = (dict(one) for one in (ours, theirs))
    rows, others = a.pop("detections"), b.pop("detections")
    if a != b or [row["class_id"] for row in rows] != [row["class_id"] for row in others]:
        return float("inf")
    return max((abs(x["confidence"] - y["confidence"]) for x, y in zip(rows, others, strict=True)), default=0.0)


def refused(server: TritonServer, videos: Videos, streams: int, most: int) -> dict[str, Any]:
    """More streams than the server takes: those too many are told so, and get in once others have ended."""
    opened = [open_triton_stream(server.url, MODEL, name=f"crowd-{number}") for number in range(streams)]

    def push(number: int) -> float | None:
        began = time.perf_counter()
        try:
            opened[number].push(videos.frame(number, 0))
        except AdmissionRefused:
            return time.perf_counter() - began
        return None

    answers = every(push, streams)
    turned_away = [number for number, seconds in enumerate(answers) if seconds is not None]
    if len(turned_away) != streams - most:
        raise SystemExit(f"{len(turned_away)} of {streams} streams were refused; wanted {streams - most}")
    for number in set(range(streams)) - set(turned_away):
        opened[number].flush()
    later = [push(number) for number in turned_away]
    for one in opened:
        one.close()
    return {
        "streams": streams, "most": most, "refused": len(turned_away),
        "let_in_later": sum(seconds is None for seconds in later),
        "seconds_to_refuse": max(seconds for seconds in answers if seconds is not None),
    }  # fmt: skip


def restarted(server: TritonServer, detector: Detector, videos: Videos, streams: int, frames: int) -> dict[str, Any]:
    """The server is killed while streams run, and started again: what each epoch of each stream gave is what a stream
    gives that begins with the epoch's first frame.
    """
    halfway = threading.Barrier(streams + 1)

    def play(number: int) -> tuple[list[Detections], int]:
        stream = open_triton_stream(server.url, MODEL, name=f"cam-{number}", timeout=60)
        results: list[Detections] = []
        for t in range(frames):
            if t == frames // 2:
                halfway.wait(60)
            results += stream.push(videos.frame(number, t))
        results += stream.flush()
        stream.close()
        return results, stream.lost

    with ThreadPoolExecutor(streams) as pool:
        playing = [pool.submit(play, number) for number in range(streams)]
        halfway.wait(60)
        server.kill()
        began = time.perf_counter()
        server.start()
        back = time.perf_counter() - began
        played = [one.result() for one in playing]
    changed = wrong = lost = 0
    for number, (results, missed) in enumerate(played):
        changed += {result.epoch for result in results} == {0, 1}
        lost += missed
        if len(results) + missed != frames:
            raise SystemExit(f"stream {number}: {len(results)} results and {missed} lost of {frames} frames")
        for epoch in (0, 1):
            ours = [result.to_dict() for result in results if result.epoch == epoch]
            if not ours:
                raise SystemExit(f"stream {number} has no result of epoch {epoch}")
            first = ours[0]["frame_index"]
            wanted = alone(detector, videos, number, range(first, frames), f"cam-{number}")
            wrong += sum(_difference(a, {**b, "epoch": epoch}) > ROUNDING for a, b in zip(ours, wanted, strict=False))
    if changed != streams or wrong:
        raise SystemExit(f"{changed} of {streams} streams saw another epoch, {wrong} results are of a wrong window")
    return {"streams": streams, "frames": frames, "changed_epoch": changed, "wrong": wrong, "lost": lost,
            "seconds_until_ready": back}  # fmt: skip


def abandoned(server: TritonServer, videos: Videos, streams: int) -> dict[str, Any]:
    """Streams that begin and are never heard of again."""
    turned_away, samples = 0, []
    began = time.perf_counter()
    for number in range(streams):
        stream = open_triton_stream(server.url, MODEL, name=f"gone-{number}")
        while True:
            try:
                stream.push(videos.frame(number, 0))
                break
            except AdmissionRefused:
                turned_away += 1
                time.sleep(IDLE_SECONDS / 4)
        del stream  # as a client that dies: nothing is said to the server
        if not (number + 1) % max(streams // 40, 1):
            samples.append(round(server.megabytes(), 2))
    half = samples[len(samples) // 2 :]  # the table was full long before
    return {"streams": streams, "refused_while_full": turned_away, "seconds": time.perf_counter() - began,
            "mib": samples, "growth_in_second_half_mib": max(half) - half[0]}  # fmt: skip


def rows(found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What was wanted of each check, what came, and whether that holds.

    Args:
        found: name of a check -> what its function gave.
    """
    equal, refused, dead, gone = (found[name] for name in ("equal", "refused", "restarted", "abandoned"))
    frames, beyond = equal["streams"] * equal["frames"], refused["streams"] - refused["most"]
    table: list[tuple[str, str, str, bool]] = [
        (
            f"{equal['streams']} streams x {equal['frames']} frames: results like a local stream's",
            f"all; to the bit, or within {ROUNDING:g} where frames share a call",
            f"{equal['equal_to_the_bit']} of {frames} to the bit, others within {equal['largest_difference']:.1g}",
            equal["largest_difference"] <= ROUNDING,
        ),
        ("frames in a call of the model, on average", "above 1", f"{equal['frames_a_call']:.1f}",
         equal["frames_a_call"] > 1),
        (f"{refused['streams']} streams where {refused['most']} may be open", f"{beyond} refused, let in later",
         f"{refused['refused']} refused, the last after {refused['seconds_to_refuse']:.1f} s; "
         f"{refused['let_in_later']} let in later",
         refused["refused"] == refused["let_in_later"] == beyond),
        (f"server killed and started again under {dead['streams']} streams",
         "every client sees another epoch, no wrong window",
         f"{dead['changed_epoch']} saw one, {dead['wrong']} wrong, {dead['lost']} frames counted as lost, ready again "
         f"after {dead['seconds_until_ready']:.1f} s",
         dead["changed_epoch"] == dead["streams"] and not dead["wrong"]),
        (f"{gone['streams']:,} streams begun and abandoned",
         f"memory flat: at most {FLAT_MIB:g} MiB in the second half",
         f"{gone['growth_in_second_half_mib']:+.1f} MiB, {max(gone['mib']):.0f} at most",
         gone["growth_in_second_half_mib"] <= FLAT_MIB),
    ]  # fmt: skip
    return [dict(zip(("what", "wanted", "got", "held"), row, strict=True)) for row in table]
