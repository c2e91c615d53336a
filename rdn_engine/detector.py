"""Detector: one model on one machine, shared by its streams."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Literal, cast, get_args, overload

import numpy as np

from rdn_engine.backends import load_backend
from rdn_engine.backends.graph import MOST_THREADS, BackendChoice, Device
from rdn_engine.bundle.directory import Bundle
from rdn_engine.config import WHOLE_VIDEO, Dials, RDNConfig
from rdn_engine.cpus import available_cpus
from rdn_engine.errors import ConfigError, FrameError, RDNError, VideoError
from rdn_engine.frame import Frame, Image, Source
from rdn_engine.host.fastest import fastest_backend
from rdn_engine.host.runtime import Executor, HostRuntime
from rdn_engine.kernels.cpu import RingPrecision
from rdn_engine.plain import check
from rdn_engine.results import Detections
from rdn_engine.stream.base import Stream
from rdn_engine.stream.batch import StreamBatch
from rdn_engine.stream.runtime import Runtime

if TYPE_CHECKING:
    from typing_extensions import TypeVar

    from rdn_engine.device.batch import DeviceStreamBatch
    from rdn_engine.device.relation import DevicePrecision
    from rdn_engine.device.stream import DeviceStream
    from rdn_engine.kernels.cpu import Precision

    # Defaults, so that `Detector` alone is a detector of any machine's streams.
    StreamT_co = TypeVar("StreamT_co", bound=Stream, covariant=True, default=Stream)
    BatchT_co = TypeVar("BatchT_co", bound=StreamBatch[Any], covariant=True, default=StreamBatch[Stream])
else:
    from typing import TypeVar

    StreamT_co, BatchT_co = TypeVar("StreamT_co", covariant=True), TypeVar("BatchT_co", covariant=True)

RelationPrecision = Literal["float32", "bfloat16", "float16"]

_NOTHING = object()  # no frame at all, unlike a first item that is None, which is a wrong frame


class Detector(Generic[StreamT_co, BatchT_co]):
    """One model on one machine. Shared: streams in several Python threads may use it at once.

    Pickled, as for another process, it is its engine directory and options: that process opens the directory again,
    with all checks and memory of its own. Streams cannot be pickled.
    """

    def __init__(self, runtime: Runtime[StreamT_co, BatchT_co]) -> None:
        self.runtime = runtime
        """The model on its machine."""
        self.backend: str | None = None
        """What runs the graphs; None for a runtime of one's own."""
        self._opened: tuple[Path, Mapping[str, Any]] | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        if self._opened is None:
            raise RDNError(f"a Detector of a {type(self.runtime).__name__} has no directory to be opened from again")
        return _reopen, self._opened

    @property
    def config(self) -> RDNConfig:
        """Everything that decides what the model computes."""
        return self.runtime.config

    @property
    def threads(self) -> int:
        """Bound of the CPU threads of every stage of one call."""
        return self.runtime.threads

    @overload
    @classmethod
    def from_pretrained(
        cls,
        directory: str | Path,
        *,
        backend: BackendChoice = "onnxruntime",
        device: Literal["cpu"] = "cpu",
        threads: int | None = None,
        executor: Executor = "fused",
        relation_precision: RelationPrecision = "float32",
        ring_precision: RingPrecision = "float32",
    ) -> Detector: ...

    @overload
    @classmethod
    def from_pretrained(
        cls,
        directory: str | Path,
        *,
        backend: BackendChoice = "onnxruntime",
        device: Literal["cuda"],
        threads: int | None = None,
        executor: Executor = "fused",
        relation_precision: RelationPrecision = "float32",
        ring_precision: RingPrecision = "float32",
    ) -> Detector[DeviceStream, DeviceStreamBatch]: ...

    @overload
    @classmethod
    def from_pretrained(
        cls,
        directory: str | Path,
        *,
        backend: BackendChoice = "onnxruntime",
        device: Device,
        threads: int | None = None,
        executor: Executor = "fused",
        relation_precision: RelationPrecision = "float32",
        ring_precision: RingPrecision = "float32",
    ) -> Detector[Any, Any]: ...

    @classmethod
    def from_pretrained(
        cls,
        directory: str | Path,
        *,
        backend: BackendChoice = "onnxruntime",
        device: Device = "cpu",
        threads: int | None = None,
        executor: Executor = "fused",
        relation_precision: RelationPrecision = "float32",
        ring_precision: RingPrecision = "float32",
    ) -> Detector[Any, Any]:
        """Open an engine directory, after checking every file of it.

        Args:
            directory: as `export/build_engines.py` writes it.
            backend: what runs the graphs; `auto` measures once for this bundle and machine which is the fastest on the
                CPU, remembers it, and logs what it took at the level INFO.
            device: `cpu`, or `cuda`, which takes cupy and a GPU, cupy's current one (docs/device.md).
            threads: CPU threads of every stage of one call, 1..MOST_THREADS; None takes every CPU it may run
                on, of a container no more than its quota.
            executor: `fused` (compiled attention) or `graph` (the relation graph on the backend, on the CPU); they
                agree within the bundle's tolerances.
            relation_precision: of the products of `fused`: `bfloat16` rounds their operands, where the processor has
                AVX512-BF16; `float16` is the device's.
            ring_precision: of what a stream on the CPU keeps of its frames. `float16` takes about half the memory, and
                rounds keys, values, queries and features to 11 bits; all sums stay as they are (docs/precision.md).

        Raises:
            BundleError: for a directory that is missing, damaged, or not one this version can read.
            BackendUnavailable: for a backend, device or precision that this machine or this build does not have.
            ConfigError: for an option with an unknown value.
        """
        # What was asked for, not what it became: another machine has other CPUs.
        options: dict[str, Any] = {"backend": backend, "device": device, "threads": threads, "executor": executor}
        options |= {"relation_precision": relation_precision, "ring_precision": ring_precision}
        opened = Path(directory).absolute(), options
        threads = min(available_cpus(), MOST_THREADS) if threads is None else threads
        if executor not in ("fused", "graph"):
            raise ConfigError(f"executor is {executor!r}; wanted 'fused' or 'graph'")
        if executor == "graph" and relation_precision != "float32":
            raise ConfigError(f"relation_precision is {relation_precision!r}; executor 'graph' wants 'float32'")
        if executor == "graph" and device == "cuda":
            raise ConfigError("executor is 'graph', which has its window on device 'cpu'; device 'cuda' wants 'fused'")
        if ring_precision not in get_args(RingPrecision):
            raise ConfigError(f"ring_precision is {ring_precision!r}; wanted 'float32' or 'float16'")
        if device == "cuda" and ring_precision != "float32":
            raise ConfigError(
                f"ring_precision is {ring_precision!r}, which streams of device 'cpu' have; wanted 'float32' on device "
                "'cuda', whose streams keep what relation_precision says"
            )
        if backend == "auto":
            if device != "cpu":
                raise ConfigError(f"backend is 'auto', which chooses on device 'cpu'; name one for device {device!r}")
            bundle = Bundle.open(directory)
            runner = load_backend(fastest_backend(bundle, threads), device, threads)
        else:
            runner = load_backend(backend, device, threads)
            bundle = Bundle.open(directory)
        detector: Detector[Any, Any]
        if device == "cuda":
            # Here, because they want what only a machine with a GPU has.
            from rdn_engine.device.cupy import CupyGpu
            from rdn_engine.device.runtime import DeviceRuntime

            kind = cast("DevicePrecision", relation_precision)
            detector = Detector(DeviceRuntime.load(bundle, runner, CupyGpu(), precision=kind, threads=threads))
        else:
            precision = cast("Precision", relation_precision)
            detector = Detector(
                HostRuntime.load(
                    bundle,
                    runner,
                    executor=executor,
                    precision=precision,
                    threads=threads,
                    ring_precision=ring_precision,
                )
            )
        detector._opened = opened
        detector.backend = runner.name
        return detector

    def open_stream(
        self, dials: Dials | None = None, *, capacity: Dials | None = None, source_id: str = ""
    ) -> StreamT_co:
        """State for one video.

        Args:
            dials: settings to start with; None takes the model's own.
            capacity: the largest window (T), num_support (K) and num_reference (N) that the dials may be turned to
                later; None for those of `dials`. A larger advanced_ratio (r) than its own is allowed, but takes longer:
                part of the proposals is then refined from the whole window at every frame.
            source_id: what results say where they come from.

        Raises:
            ConfigError: for dials above the capacity, or a stream that does not fit into memory.
        """
        return self.runtime.open_stream(*self._settings(dials, capacity), source_id)

    def open_streams(
        self, source_ids: Sequence[str], dials: Dials | None = None, *, capacity: Dials | None = None
    ) -> BatchT_co:
        """One stream for each name, whose frames are encoded as one batch where that is faster.

        Args:
            source_ids: what results say where they come from; one or more, each another.
            dials: settings of every stream; None takes the model's own.
            capacity: as `open_stream`, of every stream.

        Raises:
            ConfigError: as `open_stream`, and for no name, or one that comes twice.
        """
        if isinstance(source_ids, str):
            raise ConfigError(f"source_ids is {source_ids!r}; wanted a list of names, one for each stream")
        for place, name in enumerate(source_ids):
            if name in source_ids[:place]:
                first = source_ids.index(name)
                raise ConfigError(
                    f"source_ids are {name!r} at {first} and {place}; wanted another name for each stream, because "
                    "results are told apart by them"
                )
        return self.runtime.open_streams(*self._settings(dials, capacity), source_ids)

    def push_each(self, streams: Sequence[Stream], frames: Sequence[Any]) -> list[list[Detections] | Exception]:
        """Push a frame into each of some streams, which need not be the same from call to call. On the CPU the frames
        are encoded as one batch where that is faster.

        Args:
            streams: of this detector's `open_stream`, none twice; one thread at a time.
            frames: one for each stream, as `Stream.push` takes them.

        Returns:
            Of each stream what `Stream.push` would give, or raise: what fails in one is no other's.

        Raises:
            ConfigError: for another number of frames than of streams, for a stream that comes twice, and for one of
                another detector.
        """
        if len(streams) != len(frames):
            raise ConfigError(f"got {len(frames)} frames; wanted one for each of {len(streams)} streams")
        if len({id(stream) for stream in streams}) < len(streams):
            raise ConfigError("a stream comes twice; wanted one frame of each in a call")
        return self.runtime.push_each(streams, frames)

    @overload
    def predict(
        self,
        source: Source,
        *,
        stream: Literal[True],
        dials: Dials | None = None,
        threshold: float | None = None,
        link: bool = False,
    ) -> Iterator[Detections]: ...

    # An array's number of axes is no part of its type; it is an iterable of arrays too, so that the next one overlaps.
    @overload
    def predict(  # type: ignore[overload-overlap]
        self,
        source: Image,
        *,
        stream: Literal[False] = False,
        dials: Dials | None = None,
        threshold: float | None = None,
        link: bool = False,
    ) -> Detections | list[Detections]: ...

    @overload
    def predict(
        self,
        source: str | Path | Sequence[str | Path] | Iterable[Image | Frame],
        *,
        stream: Literal[False] = False,
        dials: Dials | None = None,
        threshold: float | None = None,
        link: bool = False,
    ) -> list[Detections]: ...

    def predict(
        self,
        source: Source,
        *,
        stream: bool = False,
        dials: Dials | None = None,
        threshold: float | None = None,
        link: bool = False,
    ) -> Detections | list[Detections] | Iterator[Detections]:
        """Detect in one image, or in every frame of a video.

        Args:
            source: one uint8 [H, W, 3] RGB array is an image. A path, glob or URL that `open_source` reads, a list of
                paths, a uint8 [F, H, W, 3] array, or an iterable of arrays or Frames is a video.
            stream: gives an iterator, which holds no more than the stream does, in place of a list.
            dials: settings; None takes the model's own.
            threshold: score_threshold of the dials, in [0, 1).
            link: boxes are linked along the video, by relations where the dials do not say how: over the whole video,
                or with `stream` link_delay frames ahead.

        Returns:
            One Detections for an image; for a video a list, one Detections a frame, in order. An iterator of the same
            with `stream`, which raises what its frames cause when it comes to them.

        Raises:
            FrameError: for what is no image and no source of them.
            VideoError: for a source that cannot be read or holds no frame.
            ConfigError: for a threshold out of its range, or a stream that does not fit into memory.
        """
        dials, _ = self._settings(dials, None)
        if threshold is not None:
            dials = replace(dials, score_threshold=threshold)
        if link:
            dials = replace(
                dials,
                link="relations" if dials.link == "off" else dials.link,
                link_delay=dials.link_delay if stream else WHOLE_VIDEO,
            )
        if not isinstance(source, (str, Path, Iterable)) and not hasattr(source, "__getitem__"):
            raise FrameError(
                f"source is {source!r:.80} of type {type(source).__name__}; wanted a uint8 [H, W, 3] or [F, H, W, 3] "
                "array, a path, glob or address, or an iterable of arrays, Frames or paths"
            )
        if isinstance(source, np.ndarray) and source.ndim != 4:
            one = self._run([source], dials)
            return one if stream else next(one)
        results = self._run(_frames(source), dials)
        return results if stream else list(results)

    def _settings(self, dials: Dials | None, capacity: Dials | None) -> tuple[Dials, Dials]:
        """Dials and capacity of a stream."""
        dials = self.config.dials if dials is None else dials
        capacity = dials if capacity is None else capacity
        check(isinstance(dials, Dials), "dials", dials, "Dials, or None")
        check(isinstance(capacity, Dials), "capacity", capacity, "Dials, or None")
        return dials, capacity

    def _run(self, frames: Iterable[Image | Frame], dials: Dials) -> Iterator[Detections]:
        with self.open_stream(dials) as stream:
            for frame in frames:
                yield from stream.push(frame)
            yield from stream.flush()


def _reopen(directory: Path, options: Mapping[str, Any]) -> Detector[Any, Any]:
    return Detector.from_pretrained(directory, **options)


def _frames(source: Source) -> Iterator[Image | Frame]:
    """The frames of anything `predict` takes; what is opened here is closed at the end."""
    if isinstance(source, (str, Path)):
        paths: str | Path | list[str | Path] = source
    else:
        items = iter(source)
        first = next(items, _NOTHING)
        if first is _NOTHING:
            raise VideoError("the source holds no frame; got an empty iterable, wanted one frame or path at least")
        if not isinstance(first, (str, Path)):
            yield from itertools.chain([first], items)
            return
        paths = [first, *items]  # type: ignore[list-item]
    # Here, because the module brings the video library, which a detector of arrays does not need.
    from rdn_engine.media.source import open_source

    with open_source(paths) as video:
        yield from video
