"""What `rdn-engine run` is told, by a YAML file or over HTTP: checked whole before anything starts."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from rdn_engine.backends.graph import BackendChoice, Device
from rdn_engine.detector import RelationPrecision
from rdn_engine.dials_file import read_dials_file
from rdn_engine.errors import BackendUnavailable, ConfigError
from rdn_engine.host.runtime import Executor
from rdn_engine.kernels.cpu import RingPrecision
from rdn_engine.media.address import hide_sources, without_credentials
from rdn_engine.media.base import SourceOptions
from rdn_engine.media.live import LiveOptions
from rdn_engine.plain import SECRET, check, check_fields, check_names, from_plain
from rdn_engine.serve.options import StreamOptions
from rdn_engine.service.outputs.settings import JsonlSettings, OutputSettings, parse_output
from rdn_engine.service.preview import PreviewOptions
from rdn_engine.text import read_text

LONGEST_NAME = 128
"""Characters of a stream's name"""
RESTART_SECONDS = 5.0
"""Before a camera's stream is started again"""
LONGEST_RESTART = 300.0
"""Seconds between two starts of a stream, however often it has failed"""
STUCK_SECONDS = 4.0
"""Of one turn of a worker, after which the service is no longer healthy"""

_T = TypeVar("_T")


@dataclass(frozen=True)
class HttpSettings:
    """Where the service answers."""

    host: str = "127.0.0.1"
    """Address to listen on; 0.0.0.0 for all of this machine"""
    port: int = 8080
    """0 takes one that is free"""
    token: str | None = field(default=None, metadata=SECRET)
    """What `Authorization: Bearer ...` must say to add, change or remove streams; `env:NAME` or `@FILE` where it stands
    elsewhere. Without one they can be changed from this machine alone, where host is its own address"""
    hosts: tuple[str, ...] = ()
    """Names by which browsers may ask, against DNS rebinding; empty takes those of this machine where host is its own
    address, and any elsewhere"""
    page: bool = True
    """Whether there are a page and pictures"""
    stuck_seconds: float = STUCK_SECONDS
    """Of one turn of a worker, after which /healthz fails"""

    def __post_init__(self) -> None:
        """Check every value.

        Raises:
            ConfigError: says which is of another type or out of its range.
        """
        check_fields(self, "http", port=(0, 65535), stuck_seconds=(0.1, 1e6))
        check(self.token != "", "http.token", "empty", "a token, or none")
        check(all("*" not in one for one in self.hosts), "http.hosts", self.hosts, "names, each as browsers send it")


@dataclass(frozen=True)
class TraceSettings:
    """OpenTelemetry spans of frames and their stages (extra `otel`)."""

    endpoint: str
    """Of a collector that takes OTLP over HTTP, up to and with /v1/traces"""
    part: float = 0.01
    """Of the frames, in 0..1"""

    def __post_init__(self) -> None:
        """Check every value.

        Raises:
            ConfigError: says which is of another type or out of its range.
        """
        check_fields(self, "trace", part=(0.0, 1.0))


@dataclass(frozen=True)
class StreamSettings:
    """One stream of the file, or of a request."""

    source: str = field(metadata=SECRET)
    """As LiveSource takes it; `env:NAME` or `@FILE` where it stands elsewhere"""
    outputs: tuple[str, ...] = ()
    """Names of those that get its results"""
    dials: dict[str, Any] = field(default_factory=dict)
    """Those that differ from the service's"""
    capacity: dict[str, Any] = field(default_factory=dict)
    """Room for dials that are turned up later; those of `dials` else"""
    restart_seconds: float | None = None
    """0..300, before a stream that ended by a failure is added again, doubled each time up to 300; 0 leaves it. None is
    RESTART_SECONDS for a camera, and 0 for a file"""
    live: LiveOptions = field(default_factory=LiveOptions)
    """How the source is read"""
    bounds: StreamOptions = field(default_factory=StreamOptions)
    """Of the stream"""
    preview: PreviewOptions = field(default_factory=PreviewOptions)
    """Of its pictures, and of what is flagged of its camera"""

    def __post_init__(self) -> None:
        """Check every value.

        Raises:
            ConfigError: says which is of another type or out of its range.
        """
        check_fields(self, "stream", restart_seconds=(0, LONGEST_RESTART))
        check(bool(self.source), "stream.source", self.source, "an address, a device or a file")
        check(len(set(self.outputs)) == len(self.outputs), "stream.outputs", self.outputs, "each once")


@dataclass(frozen=True)
class ServiceSettings:
    """All of it."""

    engines: Path
    """Engine directory"""
    streams: dict[str, StreamSettings]
    """By name; may be empty"""
    outputs: dict[str, OutputSettings] = field(default_factory=dict)
    """Where results go, by name"""
    dials: dict[str, Any] = field(default_factory=dict)
    """Those that differ from the model's own, or the dials file's, for all streams"""
    dials_file: Path | None = None
    """Of dials and options (docs/tuning.md); what the settings have goes before what it has"""
    backend: BackendChoice = "onnxruntime"
    device: Device = "cpu"
    executor: Executor = "fused"
    relation_precision: RelationPrecision = "float32"
    ring_precision: RingPrecision = "float32"
    threads: int = 1
    """CPU threads of one call"""
    workers: int | None = None
    """Frames that are computed at once; the CPUs over `threads` by default"""
    byte_budget: int | None = None
    """Bytes that all streams may hold"""
    stop_seconds: float = 10.0
    """For what waits to be computed and delivered, when the service is told to stop"""
    http: HttpSettings | None = None
    """None answers nobody"""
    trace: TraceSettings | None = None
    """None traces nothing"""

    def __post_init__(self) -> None:
        """Check every value, and that every output that a stream names is there.

        Raises:
            ConfigError: says which is of another type or out of its range.
        """
        check_fields(
            self, "service", threads=(1, 1024), workers=(1, 1024), byte_budget=(1, 2**60), stop_seconds=(0, 1e5)
        )
        paths = [one.path for one in self.outputs.values() if isinstance(one, JsonlSettings)]
        check(len(set(paths)) == len(paths), "outputs", paths, "files of their own")
        for name, stream in self.streams.items():
            check_outputs(name, stream, self.outputs)


def check_outputs(name: str, stream: StreamSettings, outputs: dict[str, Any]) -> None:
    """Check that the outputs of a stream are there.

    Args:
        name: of the stream.
        stream: its settings.
        outputs: of the service, by name.

    Raises:
        ConfigError: names the one that is not.
    """
    for output in stream.outputs:
        check(output in outputs, f"streams.{name}.outputs", output, f"one of {sorted(outputs)}")


def read_settings(path: Path) -> ServiceSettings:
    """The settings of a file.

    Args:
        path: of a YAML file (docs/service.md). Paths in it are taken from the folder of the process.

    Raises:
        ConfigError: names the line that is no YAML, or the field that is unknown, missing, of another type or out of
            its range; and as `read_dials_file`, of the file that it names.
        BundleError: for engines that are none, where a dials file says of what precision they are.
        BackendUnavailable: without the extra `serve`.
        OSError: for a file that cannot be read, or the dials file.
    """
    try:
        import yaml
    except ImportError:
        raise BackendUnavailable("streams in a file need PyYAML: pip install pyyaml") from None
    try:
        data = yaml.load(read_text(path), _loader(yaml))
    except UnicodeDecodeError:
        raise ConfigError(f"{path} is no text; wanted YAML") from None
    except (ValueError, AttributeError, RecursionError):  # PyYAML's own, for a date or a number that there is not
        raise ConfigError(f"{path} is no YAML: a value is not what it looks like, or it is nested too deep") from None
    except yaml.YAMLError as error:
        mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
        where = f", line {mark.line + 1}" if mark is not None else ""
        if mark is not None and mark.buffer is not None and mark.buffer[mark.pointer : mark.pointer + 1] == "\t":
            problem = "a tab; wanted spaces"
        raise ConfigError(f"{path}{where} is no YAML: {problem or 'it cannot be read'}") from None
    try:
        return service_settings(data)
    except ConfigError as error:
        raise ConfigError(f"{path}: {hide_sources(str(error), texts(data))}") from None


def service_settings(data: Any) -> ServiceSettings:
    """The settings of what a file holds.

    Args:
        data: plain values.

    Raises:
        ConfigError: names the field that is unknown, missing, of another type or out of its range. It may quote data.
    """
    check(isinstance(data, dict), "the file", data, "a mapping with engines and streams")
    check("engines" in data, "the file", sorted(map(str, data)), "engines, a directory, among them")
    check(isinstance(data["engines"], str) and data["engines"] != "", "engines", data["engines"], "a directory")
    check_names("the file", data, {f.name for f in dataclasses.fields(ServiceSettings)} | {"defaults"})
    streams = _mapping(data.get("streams"), "streams")
    defaults = _mapping(data.get("defaults"), "defaults")
    outputs = _mapping(data.get("outputs"), "outputs")
    rest = {name: value for name, value in data.items() if name not in ("streams", "defaults", "outputs")}
    return from_plain(
        ServiceSettings,
        {
            **_filed(rest),
            "engines": Path(data["engines"]),
            "streams": {n: stream_settings(n, _over(defaults, s, f"streams.{n}")) for n, s in streams.items()},
            "outputs": {name: parse_output(one, f"outputs.{name}") for name, one in outputs.items()},
        },
        "",
    )


def _filed(data: dict[str, Any]) -> dict[str, Any]:
    """Fields of the service over what its dials file has; the fields alone where there is none."""
    place = data.get("dials_file")
    if place is None:
        return data
    check(isinstance(place, str) and place != "", "dials_file", place, "a file of `rdn-engine tune`")
    filed = read_dials_file(Path(place))
    filed.check_bundle(Path(data["engines"]))
    dials = {**filed.dials, **_mapping(data.get("dials"), "dials")}
    return {**filed.options, **data, "dials_file": Path(place), "dials": dials}


def stream_settings(name: object, data: Any) -> StreamSettings:
    """The settings of one stream. Fields of LiveOptions, SourceOptions and StreamOptions stand beside its own.

    Args:
        name: of the stream.
        data: plain values.

    Raises:
        ConfigError: names the field that is unknown, missing, of another type or out of its range. It may quote data.
    """
    check_name(name)
    path = f"streams.{name}"
    data = _mapping(data, path)
    names = {cls: {f.name for f in dataclasses.fields(cls)} for cls in (SourceOptions, LiveOptions, StreamOptions)}
    names[LiveOptions] -= {"source"}
    own = {f.name for f in dataclasses.fields(StreamSettings)} - {"live", "bounds"}
    known = own.union(*names.values())
    above = sorted({f.name for f in dataclasses.fields(ServiceSettings)}.intersection(data) - known)
    if above:
        raise ConfigError(f"{path} has {above}, which stand once in the file, beside `streams`")
    check_names(path, data, known)
    if isinstance(data.get("source"), int) and not isinstance(data["source"], bool):
        data["source"] = str(data["source"])  # a camera's number, which YAML reads as one
    check("source" in data, path, sorted(data), "a source among them")
    try:
        source = from_plain(SourceOptions, _those(data, names[SourceOptions]), path)
        live = from_plain(LiveOptions, {**_those(data, names[LiveOptions]), "source": source}, path)
        bounds = from_plain(StreamOptions, _those(data, names[StreamOptions]), path)
        return from_plain(StreamSettings, {**_those(data, own), "live": live, "bounds": bounds}, path)
    except ConfigError as error:
        words = str(error)
        raise ConfigError(words if words.startswith(path) else f"{path}: {words}") from None


def texts(data: Any) -> list[str]:
    """Every text in a tree of plain values: an address may stand anywhere, by mistake.

    Args:
        data: lists, mappings and the like, which may hold each other, and themselves: YAML has names for them.
    """
    found: list[str] = []
    left, seen = [data], set[int]()
    while left:
        one = left.pop()
        if isinstance(one, str):
            found.append(one)
        elif isinstance(one, (dict, list, tuple, set)) and id(one) not in seen:
            seen.add(id(one))
            left += [*one, *one.values()] if isinstance(one, dict) else one
    return found


def check_name(name: object) -> None:
    """Check what a stream is to be called: it stands in addresses, in names of files and in topics.

    Args:
        name: text.

    Raises:
        ConfigError: for another.
    """
    ok = isinstance(name, str) and 0 < len(name) <= LONGEST_NAME and name.isprintable() and "/" not in name
    ok = ok and name == str(name).strip() and name not in (".", "..")
    check(ok, "a stream's name", name, f"1 to {LONGEST_NAME} printable characters without /, not a number")


def shown_source(source: str) -> str:
    """A source as it may be printed.

    Args:
        source: as the settings have it.
    """
    return source if source.startswith(("env:", "@")) else without_credentials(source)


def _over(defaults: dict[str, Any], data: Any, path: str) -> dict[str, Any]:
    """A stream's fields over those of all; its dials over theirs."""
    own = _mapping(data, path)
    merged = {**defaults, **own}
    for name in ("dials", "capacity"):
        if isinstance(defaults.get(name), dict) and isinstance(own.get(name), dict):
            merged[name] = {**defaults[name], **own[name]}
    return merged


def _mapping(data: Any, path: str) -> dict[str, Any]:
    if data is None:
        return {}
    check(isinstance(data, dict), path, data, "a mapping")
    return dict(data)


def _those(data: dict[str, Any], names: set[str]) -> dict[str, Any]:
    return {name: value for name, value in data.items() if name in names}


def _loader(yaml: Any) -> Any:
    """YAML that refuses a name that stands twice, of which PyYAML would keep the last without a word."""

    class Loader(yaml.SafeLoader):  # type: ignore[misc]
        def compose_mapping_node(self, anchor: Any) -> Any:
            node = super().compose_mapping_node(anchor)  # as it is written: `<<` has not brought its names yet
            seen = set()
            for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
                if (key.tag, key.value) in seen:
                    raise yaml.MarkedYAMLError(problem=f"{key.value!r} stands twice", problem_mark=key.start_mark)
                seen.add((key.tag, key.value))
            return node

    return Loader
