"""What `latency.py` measures, ours and the baseline: the work of one process.

A steady frame needs a full window, 37 frames at T = 18, which take minutes at ResNet-101 before anything is timed.
So a window is filled with the encodings of a few distinct frames, computed once by the same process and handed to the
Stream in place of the encoder's output; window and relation stage run as ever. Every frame that is timed is encoded
live. The baseline's window is filled in the same way.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.frame.settings import Process, Setting
from benchmarks.frames import Image, make_frame
from benchmarks.measure import energy_counter
from rdn_engine.bundle.directory import Bundle
from rdn_engine.config import Dials, RDNConfig
from rdn_engine.detector import Detector
from rdn_engine.errors import BundleError
from rdn_engine.host import preprocess
from rdn_engine.host.cosine_stage import CosineStage
from rdn_engine.host.features import EncodedFrame, RelationOutput, SupportPool, head
from rdn_engine.host.relation import Relation
from rdn_engine.host.runtime import HostRuntime
from rdn_engine.kernels.cpu.arrays import Float
from rdn_engine.results import Detections
from rdn_engine.stream.base import Stream
from rdn_engine.verify import detection_rows

if TYPE_CHECKING:
    from torch import Tensor

DISTINCT = 4
"""frames that are encoded to fill windows"""
LARGEST_N, USUAL_K, LARGEST_K = 300, 75, 300
"""Frames that fill windows are encoded for these, for LARGEST_K once a setting wants more than USUAL_K: the four would
be 44 MB of a peak memory that is not theirs."""

Rows = NDArray[np.float64]


@dataclass(frozen=True)
class Sample:
    ms: float
    """of one frame"""
    stages: dict[str, float]
    """ms of each stage, those of `Stream.timings`; empty for the baseline"""
    joules: float | None
    proposals: int
    """reference proposals of the frames encoded, the fewest"""


class Replay:
    """An encoder that gives `stored` where there is some, and else asks the real one."""

    def __init__(self, encoder: Callable[..., list[EncodedFrame]]) -> None:
        self.encode = encoder
        self.stored: EncodedFrame | None = None
        self.proposals = 0
        """reference proposals of the last frame the real one saw"""
        self.latest: EncodedFrame | None = None
        """its encoding"""

    def __call__(
        self, images: Float, num_reference: int, num_support: int, lap: Callable[[str], None]
    ) -> list[EncodedFrame]:
        if self.stored is not None:
            return [head(self.stored, num_reference, num_support)]
        found = self.encode(images, num_reference, num_support, lap)
        self.proposals, self.latest = min(len(frame.boxes) for frame in found), found[-1]
        return found


class Idle:
    """A relation stage that finds nothing while `idle`: windows of the executor without state then fill fast."""

    def __init__(self, relation: Relation, num_logits: int) -> None:
        self._relation, self._num_logits = relation, num_logits
        self.precision = relation.precision
        self.idle = False

    def __call__(
        self, boxes: Float, features: Float, query: Float, pool: SupportPool, omega_rows: tuple[int, int] | None = None
    ) -> RelationOutput:
        if not self.idle:
            return self._relation(boxes, features, query, pool, omega_rows)
        logits = np.zeros((len(boxes), self._num_logits), np.float32)
        logits[:, 0] = 100
        return RelationOutput(logits, np.zeros((len(boxes), 4 * self._num_logits), np.float32), None)


class HostSide:
    """The product's Detector and its streams, with a Replay in front of the encoder."""

    def __init__(self, process: Process) -> None:
        detector = Detector.from_pretrained(
            process.engines,
            backend=process.backend,
            device=process.device,
            threads=process.threads,
            executor=process.executor,
            relation_precision=process.relation_precision,
            ring_precision=process.ring_precision,
        )
        self.config = resized(detector.config, process.shorter_side)
        assert isinstance(detector.runtime, HostRuntime)
        self._replay = Replay(detector.runtime.model.encoder)
        model = replace(detector.runtime.model, config=self.config, encoder=self._replay)
        assert not isinstance(model.relation, CosineStage)
        self._idle = Idle(model.relation, self.config.num_logits) if process.executor == "graph" else None
        if self._idle:
            model = replace(model, relation=self._idle)
        self._detector, self._threads = Detector(HostRuntime(model)), process.threads
        self._size = self.config.input.shorter_side, self.config.input.longer_side
        self._energy = energy_counter(process.device).read
        self._settings: dict[str, Setting] = {}
        self._streams: dict[str, list[Stream]] = {}
        self._pushed: dict[str, int] = {}
        self._takes = 0
        self._encodings: list[EncodedFrame] = []
        self._encoded_k = USUAL_K

    def open(self, key: str, setting: Setting) -> None:
        self._settings[key], self._pushed[key] = setting, 0
        if setting.dials.num_support > self._encoded_k:
            self._encoded_k = LARGEST_K
            self._encodings.clear()
        if setting.kind == "push":
            dials = setting.dials
            # Still comes later: the pictures that windows are filled with are all alike.
            filled = replace(dials, still=0.0)
            self._streams[key] = [self._detector.open_stream(filled) for _ in range(setting.streams)]
            count = (dials.window + dials.frames_ahead) * dials.interval
            for stream in self._streams[key]:
                self._fill(stream, count)
                stream.dials = dials
            self._pushed[key] = count

    def drop(self, key: str) -> None:
        """Gives the memory of a setting back."""
        self._streams.pop(key, None)

    def check(self, key: str, encodings: Sequence[EncodedFrame] | None = None) -> list[Rows]:
        """Detections of the next frame, of every stream; with `encodings`, those of another side: what detections they
        give here, and the proposals of the next frame, as `BaselineSide.check`.
        """
        setting = self._settings[key]
        if setting.kind == "batch":
            images = np.concatenate([self._network(t) for t in range(setting.batch)])
            encoded = self._replay(images, setting.dials.num_reference, setting.dials.num_support, _no_lap)
            return [np.column_stack([f.boxes / max(self._size), f.objectness]).astype(np.float64) for f in encoded]
        if setting.kind == "first":
            with self._detector.open_stream(setting.dials) as stream:
                return [rows_of(self._fill(stream, setting.dials.frames_ahead + 1)[0])]
        frame = make_frame(self._pushed[key], self._size)
        self._pushed[key] += 1
        # Of all streams, so that their windows stay alike.
        # The last that comes is of a frame that was encoded: the one behind those between.
        found = [rows_of(stream.push(frame)[-1]) for stream in self._streams[key]]
        return found if encodings is None else [self._related(setting.dials, encodings), self.proposals(key)]

    def _related(self, dials: Dials, encodings: Sequence[EncodedFrame]) -> Rows:
        """Detections from a window of `encodings`, of which the last is the newest frame."""
        own, self._encodings = self._encodings, list(encodings[:DISTINCT])
        with self._detector.open_stream(dials) as stream:
            self._fill(stream, dials.window + dials.frames_ahead)
            self._replay.stored = encodings[-1]
            found = stream.push(np.zeros((*self._size, 3), np.uint8))[0]
        self._replay.stored, self._encodings = None, own
        return rows_of(found)

    def encodings(self, key: str) -> list[EncodedFrame]:
        """The frames that windows are filled with, and last the one that `check` encoded."""
        assert self._replay.latest is not None
        return [*(self._encoding(i) for i in range(DISTINCT)), self._replay.latest]

    def proposals(self, key: str) -> Rows:
        """`proposal_rows` of the frame that `check` encoded."""
        latest = self._replay.latest
        assert latest is not None
        return proposal_rows(latest.boxes, latest.objectness, latest.features, self._size)

    def time(self, key: str) -> Sample:
        setting = self._settings[key]
        if setting.kind == "batch":
            images = np.concatenate([self._network(t) for t in range(setting.batch)])
            dials = setting.dials
            return self._timed(
                lambda: self._replay(images, dials.num_reference, dials.num_support, _no_lap), setting.batch
            )
        if setting.kind == "first":
            frames = [make_frame(t, self._size) for t in range(setting.dials.frames_ahead + 1)]
            with self._detector.open_stream(setting.dials) as stream:
                return self._timed(lambda: [stream.push(frame) for frame in frames], stream=stream)
        streams, frames = self._streams[key], self._frames(key, setting)
        frame = frames[0]
        if len(streams) == 1:
            return self._timed(lambda: [streams[0].push(frame) for frame in frames], len(frames), streams[0])
        with ThreadPoolExecutor(len(streams)) as pool:
            list(pool.map(lambda _: time.sleep(0.01), streams))  # the threads are there before the clock starts
            return self._timed(lambda: list(pool.map(lambda s: s.push(frame), streams)), len(streams))

    def _frames(self, key: str, setting: Setting) -> list[Image]:
        """Those of a round."""
        first = self._pushed[key]
        new = setting.frames - setting.repeated
        self._pushed[key] += new
        last = self._pushed[key] - 1
        self._takes += setting.repeated
        repeated = [make_frame(last, self._size, self._takes - i) for i in range(setting.repeated)]
        return [make_frame(first + i, self._size) for i in range(new)] + repeated

    def _timed(self, work: Callable[[], object], frames: int = 1, stream: Stream | None = None) -> Sample:
        """stream: whose stages are read; those of streams that push at once, waiting for each other, say little."""
        before = dict(stream.timings.seconds) if stream else {}
        joules = self._energy() if self._energy else 0.0
        begin = time.perf_counter()
        work()
        seconds = time.perf_counter() - begin
        spent = (self._energy() - joules) / frames if self._energy else None
        after = stream.timings.seconds if stream else {}
        stages = {name: 1000 * (s - before.get(name, 0.0)) / frames for name, s in after.items()}
        return Sample(1000 * seconds / frames, stages, spent, self._replay.proposals)

    def _network(self, t: int) -> Float:
        return preprocess.network_input(make_frame(t, self._size), self.config.input, self._threads)[None]

    def _fill(self, stream: Stream, count: int) -> list[Detections]:
        """Frames 0..count-1 from stored encodings; the results of the last."""
        black = np.zeros((*self._size, 3), np.uint8)
        ready: list[Detections] = []
        for t in range(count):
            self._replay.stored = self._encoding(t % DISTINCT)
            if self._idle:
                self._idle.idle = t < count - 1
            ready = stream.push(black)
        self._replay.stored = None
        return ready

    def _encoding(self, i: int) -> EncodedFrame:
        while len(self._encodings) < DISTINCT:
            images = self._network(len(self._encodings))
            self._encodings += self._replay.encode(images, LARGEST_N, self._encoded_k, _no_lap)
        return self._encodings[i]


def _no_lap(stage: str) -> None:
    pass


class BaselineSide:
    """benchmarks/frame/baseline.py on the checkpoint that the bundle was built from."""

    def __init__(self, process: Process) -> None:
        # Here, so that our side's process has no torch in its memory.
        import torch

        from benchmarks.frame.baseline import BaselineVideo, Kept
        from training.checkpoints.files import load_checkpoint

        torch.set_num_threads(process.threads)
        bundle = Bundle.open(process.engines)
        self._model = load_checkpoint(checkpoint_of(bundle), bundle.config.to_dict()).model().to(process.device)
        self._video_of, self._kept_of = BaselineVideo, Kept
        self._tensor: Callable[[NDArray[Any]], Tensor] = lambda array: torch.from_numpy(array).to(process.device)
        self._size = bundle.config.input.shorter_side, bundle.config.input.longer_side
        self._energy = energy_counter(process.device).read
        self._dials: dict[str, Dials] = {}
        self._videos: dict[str, Any] = {}
        self._pushed: dict[str, int] = {}

    def open(self, key: str, setting: Setting) -> None:
        video = self._video_of(self._model, setting.dials)
        count = setting.dials.window + setting.dials.frames_ahead
        kept = [video.encode(make_frame(t, self._size)) for t in range(min(DISTINCT, count))]
        video.fill([kept[t % DISTINCT] for t in range(count)])
        self._videos[key], self._pushed[key], self._dials[key] = video, count, setting.dials

    def check(self, key: str, encodings: Sequence[EncodedFrame]) -> list[Rows]:
        """As `HostSide.check` and `proposals` of the same frame, with the window that the other side has.

        Frame by frame from equal inputs: of scores that are all but equal, two correct implementations order a few
        differently, and which proposals are the first K changes everything behind them.
        """
        video, dials, count = self._videos[key], self._dials[key], self._pushed[key]
        boxes, objectness, features = video.describe(
            video.encode(make_frame(count, self._size)).c4, dials.num_reference
        )
        proposed = proposal_rows(boxes.cpu().numpy(), objectness.cpu().numpy(), features.cpu().numpy(), self._size)
        every = [encodings[t % DISTINCT] for t in range(count)] + [encodings[-1]]
        window = [head(e, dials.num_support, dials.num_support) for e in every]
        reference = head(every[count - dials.frames_ahead], dials.num_reference, dials.num_support)
        found = video.relate(
            self._tensor(reference.boxes),
            self._tensor(reference.features),
            [
                self._kept_of(self._tensor(e.boxes), self._tensor(e.objectness), self._tensor(e.features), None)
                for e in window
            ],
        )
        xyxy, confidence, class_id = (t.cpu().numpy() for t in (found.xyxy, found.confidence, found.class_id))
        return [detection_rows(xyxy / max(self._size), confidence, class_id), proposed]

    def time(self, key: str) -> Sample:
        frame = make_frame(self._pushed[key], self._size)
        self._pushed[key] += 1
        joules = self._energy() if self._energy else 0.0
        begin = time.perf_counter()
        for result in self._videos[key].push(frame):
            result.confidence.cpu()  # waits for a device
        seconds = time.perf_counter() - begin
        return Sample(1000 * seconds, {}, self._energy() - joules if self._energy else None, 0)


def proposal_rows(boxes: Float, objectness: Float, features: Float, size: tuple[int, int]) -> Rows:
    """[n, 5 + D]: boxes over the longer side, objectness, features over the largest of them."""
    largest = max(float(np.abs(features).max(initial=0)), 1e-12)
    return np.column_stack([boxes / max(size), objectness, features / largest]).astype(np.float64)


def checkpoint_of(bundle: Bundle) -> Path:
    """The file the bundle was built from, in the directory above it. Raises BundleError where it is another one."""
    source = bundle.manifest.source
    path = bundle.directory.resolve().parent / source["checkpoint"]
    if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != source["sha256"]:
        raise BundleError(f"{path} is not the checkpoint {bundle.manifest.name} was built from; put that file there")
    return path


def resized(config: RDNConfig, shorter_side: int | None) -> RDNConfig:
    """`config` for another network input, the longer side in proportion."""
    if shorter_side is None:
        return config
    longer = round(config.input.longer_side * shorter_side / config.input.shorter_side)
    return replace(config, input=replace(config.input, shorter_side=shorter_side, longer_side=longer))


def rows_of(found: Detections | None) -> Rows:
    """[n, 6] box, confidence, class of the detections; none for no result."""
    if found is None:
        return np.zeros((0, 6))
    longer = np.float32(max(found.height, found.width))
    return detection_rows(found.xyxy / longer, found.confidence, found.class_id)
