"""Plans: which shapes a compiled graph takes, and where compiled graphs are kept between runs.

A plan fits one graph, one version of TensorRT, one kind of GPU and one set of limits. It is kept in the user's cache,
never in the bundle: a plan is code for this machine, and a bundle that came from elsewhere is data.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

from rdn_engine.cache import cache_directory
from rdn_engine.config import RDNConfig
from rdn_engine.errors import BackendUnavailable, ConfigError

_FORMAT = 2
_HEADER_LIMIT = 2**16  # bytes of the line in front of a plan

_T = TypeVar("_T")
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Limits:
    """Largest sizes that a plan takes; the smallest is 1 of everything, 16 pixels of an image."""

    batch: int
    """Frames of several streams in one call of the backbone"""
    height: int
    """Most likely image, network-input pixels: what the plan is tuned for"""
    width: int
    """As `height`"""
    longest: int
    """Either side of the image, network-input pixels"""
    proposals: int
    """N, of one frame"""
    support: int
    """K, of one frame"""
    window: int
    """2T + 1 frames"""
    refined: int
    """int(K r) support proposals of one frame that the refinement takes, at least 1"""

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if not isinstance(value, int) or value < 1:
                raise ConfigError(f"{name} of a plan is {value!r}; wanted a whole number, 1 or more")
        if max(self.height, self.width) > self.longest:
            raise ConfigError(f"a plan for images of {self.height} x {self.width} cannot end at {self.longest} pixels")

    @classmethod
    def of(
        cls,
        config: RDNConfig,
        *,
        batch: int = 1,
        size: tuple[int, int] | None = None,
        proposals: int | None = None,
        support: int | None = None,
        window: int | None = None,
        ratio: float | None = None,
    ) -> Limits:
        """What the model's own dials need, or those given.

        Args:
            config: of the model.
            batch: frames of several streams in one call of the backbone, 1 or more.
            size: (height, width) of the video's frames, pixels, to tune for; None tunes for a network input of the
                shorter side by the longer.
            proposals: N, at least K; None takes the model's own, as for the next three.
            support: K.
            window: T, frames.
            ratio: r in (0, 1].

        Raises:
            ConfigError: for a value out of its range.
        """
        dials = config.dials
        short, long = config.input.shorter_side, config.input.longer_side
        height, width = (short, long) if size is None else config.input.network_size(*size)
        k = dials.num_support if support is None else support
        t = dials.window if window is None else window
        r = dials.advanced_ratio if ratio is None else ratio
        n = dials.num_reference if proposals is None else proposals
        if t < 0 or not 0 < r <= 1:
            raise ConfigError(f"window is {t} and ratio {r:g}; wanted a window of 0 or more and a ratio in (0, 1]")
        return cls(batch, height, width, max(long, height, width), max(n, k), k, 2 * t + 1, max(1, int(k * r)))

    def ranges(self) -> dict[str, tuple[int, int, int]]:
        """Name of an axis in the graphs -> its smallest, most likely and largest size."""
        supports, advanced = self.support * self.window, self.refined * self.window
        smallest = min(16, self.height, self.width)
        return {
            "batch": (1, self.batch, self.batch),
            "height": (smallest, self.height, self.longest),
            "width": (smallest, self.width, self.longest),
            "rows": (1, self.proposals * self.batch, self.proposals * self.batch),
            "support_rows": (1, self.support * self.batch, self.support * self.batch),
            "supports": (1, supports, supports),
            "advanced": (1, advanced, advanced),
        }


@dataclass(frozen=True)
class Machine:
    """What a plan is tied to besides its graph."""

    library: str
    """tensorrt or tensorrt_rtx"""
    version: str
    """The library's"""
    gpu: str
    """Name, compute capability and multiprocessors; `any` for TensorRT-RTX, which compiles the rest when it loads"""


@dataclass(frozen=True)
class PlanKey:
    """What a plan fits; equal keys share a plan."""

    machine: Machine
    """Library and GPU"""
    graph: str
    """SHA-256 of the ONNX file"""
    limits: Limits
    """Sizes that the plan takes"""
    plugin: str = ""
    """SHA-256 of the plugin library that the plan runs with; empty for a plan of the graph as it is"""

    def to_dict(self) -> dict[str, Any]:
        """What `from_dict` reads, as JSON holds it."""
        return {"format": _FORMAT, **asdict(self)}

    @classmethod
    def from_dict(cls, data: Any) -> PlanKey:
        """The inverse of `to_dict`.

        Args:
            data: parsed JSON.

        Raises:
            KeyError, TypeError, ConfigError: for anything that `to_dict` did not write.
        """
        if data["format"] != _FORMAT:
            raise KeyError(data["format"])
        return cls(Machine(**data["machine"]), data["graph"], Limits(**data["limits"]), data["plugin"])

    @property
    def file(self) -> str:
        """Name of the plan's file in the cache; all limits of one graph on one machine begin alike."""
        return f"{_stem(self.machine, self.graph)}-{_digest(asdict(self.limits) | {'plugin': self.plugin})}.plan"


class PlanCache:
    """Plans and timing caches in one directory. Whatever in it is damaged counts as not there."""

    def __init__(self, directory: Path | None = None) -> None:
        """Say where the plans are; nothing is read or made yet.

        Args:
            directory: of the plans; None takes that of CACHE_VARIABLE.
        """
        self.directory = directory or cache_directory()

    def obtain(self, key: PlanKey, build: Callable[[], bytes], load: Callable[[bytes], _T | None]) -> _T:
        """Load the plan for `key`. It is built where there is none, and again where that does not load.

        Args:
            key: of the plan.
            build: makes the plan.
            load: makes of a plan what is returned; None for one that it cannot use here.

        Raises:
            BackendUnavailable: where a plan that was built now cannot be used either. What `build` raises passes.
        """
        path = self.directory / key.file
        kept = _read(path)
        if kept is not None and _key(kept[0]) == key:
            loaded = load(kept[1])
            if loaded is not None:
                return loaded
            _log.warning("the plan %s does not load on this machine; it is built again", path)
        plan = build()
        loaded = load(plan)
        if loaded is None:
            raise BackendUnavailable(
                f"{key.machine.library} {key.machine.version} built a plan that it cannot load on {key.machine.gpu}"
            )
        self._write(path, key.to_dict(), plan)
        return loaded

    def store(self, key: PlanKey, plan: bytes) -> Path:
        """Keep a plan, in place of what was kept for its key. A full or read-only disk is a warning.

        Args:
            key: of the plan.
            plan: as the library gave it.

        Returns:
            Its file.
        """
        path = self.directory / key.file
        self._write(path, key.to_dict(), plan)
        return path

    def has(self, key: PlanKey) -> bool:
        """Whether there is a plan for a key, undamaged.

        Args:
            key: of the plan.
        """
        kept = _read(self.directory / key.file)
        return kept is not None and _key(kept[0]) == key

    def newest(self, machine: Machine, graph: str, plugin: str = "") -> PlanKey | None:
        """The key of the plan that was built last for a graph and a machine, whatever its limits.

        Args:
            machine: that the plan is tied to.
            graph: SHA-256 of the ONNX file.
            plugin: SHA-256 of the plugin library; plans without plugins or with this one are looked at.

        Returns:
            The key; None where there is no such plan.
        """
        found = []
        for path in self.directory.glob(f"{_stem(machine, graph)}-*.plan"):
            kept = _read(path)
            key = None if kept is None else _key(kept[0])
            if key is not None and (key.machine, key.graph) == (machine, graph) and key.plugin in ("", plugin):
                found.append((path.stat().st_mtime_ns, path.name, key))
        return max(found)[2] if found else None

    def timings(self, machine: Machine) -> bytes:
        """What earlier builds measured on this machine.

        Args:
            machine: that it was measured on.

        Returns:
            What `keep_timings` got; empty where there is nothing.
        """
        kept = _read(self._timing_path(machine))
        return kept[1] if kept is not None and kept[0] == asdict(machine) else b""

    def keep_timings(self, machine: Machine, data: bytes) -> None:
        """Keep what a build measured. A full or read-only disk is a warning.

        Args:
            machine: that it was measured on.
            data: as the library gave it.
        """
        self._write(self._timing_path(machine), asdict(machine), data)

    def _timing_path(self, machine: Machine) -> Path:
        return self.directory / f"{_digest(asdict(machine))}.timings"

    def _write(self, path: Path, header: dict[str, Any], body: bytes) -> None:
        """In one step, so that another process never meets half a plan. A full or read-only disk costs a rebuild."""
        line = json.dumps({"header": header, "sha256": hashlib.sha256(body).hexdigest()}).encode()
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=self.directory, delete=False) as part:
                try:
                    part.write(line + b"\n" + body)
                    part.close()
                    os.replace(part.name, path)
                except OSError:
                    os.unlink(part.name)
                    raise
        except OSError as error:
            _log.warning("%s cannot be kept (%s); it is built again next time", path, error)


def frame_size(text: str) -> tuple[int, int]:
    """Read the size of a video's frames, as the command line takes it.

    Args:
        text: as `720x1280`.

    Returns:
        (height, width) in pixels, 1 or more.

    Raises:
        ConfigError: for anything else.
    """
    height, _, width = text.partition("x")
    if not (height.isdecimal() and width.isdecimal() and int(height) and int(width)):
        raise ConfigError(f"size is {text!r}; wanted HEIGHTxWIDTH of the frames, as 720x1280")
    return int(height), int(width)


def graph_hash(graph: bytes) -> str:
    """SHA-256 of the contents of an ONNX file, in hexadecimal digits."""
    return hashlib.sha256(graph).hexdigest()


def _read(path: Path) -> tuple[Any, bytes] | None:
    """Header and body of a file of the cache; None where it is missing or not what was written."""
    try:
        with path.open("rb") as file:
            line = file.readline(_HEADER_LIMIT)
            body = file.read()
        told = json.loads(line)
        if told["sha256"] != hashlib.sha256(body).hexdigest():
            return None
        return told["header"], body
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _key(header: Any) -> PlanKey | None:
    try:
        return PlanKey.from_dict(header)
    except (KeyError, TypeError, ConfigError):
        return None


def _stem(machine: Machine, graph: str) -> str:
    return f"{graph[:16]}-{_digest(asdict(machine))}"


def _digest(data: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()[:16]
