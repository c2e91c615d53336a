"""Steady frames of this machine, on the clock."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from rdn_engine.config import Dials
from rdn_engine.cpus import available_cpus
from rdn_engine.detector import Detector
from rdn_engine.frame import Image
from rdn_engine.host.model import HostModel
from rdn_engine.host.runtime import HostRuntime
from rdn_engine.kernels.cpu import RingPrecision
from rdn_engine.tuning.costs import Effort, Measured
from rdn_engine.tuning.replay import Kept, ReplayStream, encode
from rdn_engine.tuning.space import Options

DISTINCT = 4
"""Frames whose encodings fill windows: to encode as many as a window holds would take minutes"""


@dataclass(frozen=True)
class _Loaded:
    options: Options
    model: HostModel
    frames: list[Kept]
    """The first DISTINCT pictures, encoded for the model's own N and K"""


class LiveMachine:
    """Runs streams of a model as a service does: as many at once as there are CPUs for their threads."""

    def __init__(
        self,
        bundles: Sequence[Path],
        pictures: Sequence[Image],
        streams: int,
        ring_precision: RingPrecision,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """Nothing is loaded yet.

        Args:
            bundles: engine directories, by `Options.bundle`.
            pictures: uint8 [H, W, 3] RGB, one or more of one size, that are pushed in turns.
            streams: that push at once.
            ring_precision: of what they keep.
            clock: seconds.
        """
        self._bundles, self._pictures, self._streams, self._ring = bundles, pictures, streams, ring_precision
        self._clock = clock
        self._loaded: _Loaded | None = None

    def model(self, options: Options) -> HostModel:
        """A model as options say; the one before is given up.

        Args:
            options: of one of the bundles.

        Raises:
            BundleError, BackendUnavailable: as `Detector.from_pretrained`.
        """
        return self._load(options).model

    def measure(self, options: Options, dials: Dials, effort: Effort) -> Measured:
        """Rounds of steady frames.

        Args:
            options: how the model runs.
            dials: of every stream, with N and K of the model's own at most.
            effort: how many rounds.

        Raises:
            BundleError, BackendUnavailable: as `Detector.from_pretrained`.
        """
        loaded = self._load(options)
        workers = min(self._streams, max(1, available_cpus() // options.threads))
        streams = [ReplayStream(loaded.model, dials) for _ in range(self._streams)]
        with ThreadPoolExecutor(workers) as pool:
            list(pool.map(lambda stream: self._fill(stream, loaded.frames, dials), streams))
            pictures = itertools.cycle(self._pictures)

            def round_() -> float:
                frames = [next(pictures) for _ in range(dials.interval)]
                begin = self._clock()
                list(pool.map(lambda stream: [stream.push(frame) for frame in frames], streams))
                return self._clock() - begin

            round_()  # the first one finds nothing in the caches
            before = [dict(stream.timings.seconds) for stream in streams]
            start, ms = self._clock(), list[float]()
            while len(ms) < effort.least or (len(ms) < effort.most and self._clock() - start < effort.seconds):
                ms.append(1e3 * round_() / dials.interval)
        stages = {
            name: sum(s.timings.seconds[name] - b[name] for s, b in zip(streams, before, strict=True))
            for name in before[0]
        }
        return Measured(tuple(ms), stages)

    def _fill(self, stream: ReplayStream, frames: Sequence[Kept], dials: Dials) -> None:
        """The window is full, and the next frame is one that is encoded."""
        for t in range((dials.window + dials.frames_ahead) * dials.interval):
            stream.push_kept(frames[t % len(frames)])
        stream.replay.stored = None

    def _load(self, options: Options) -> _Loaded:
        if self._loaded is None or self._loaded.options != options:
            self._loaded = None  # two of them may not fit
            runtime = Detector.from_pretrained(
                self._bundles[options.bundle],
                backend=options.backend,
                threads=options.threads,
                relation_precision=options.relation_precision,
                ring_precision=self._ring,
            ).runtime
            assert isinstance(runtime, HostRuntime)
            model = runtime.model
            self._loaded = _Loaded(options, model, encode(model, self._pictures[:DISTINCT], model.config.dials))
        return self._loaded
