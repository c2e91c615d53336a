"""manifest.json of an engine directory: what it says, read and checked."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from rdn_engine.bundle.confidence import ConfidenceMap, read_confidence
from rdn_engine.config import RDNConfig
from rdn_engine.errors import BundleError, ConfigError
from rdn_engine.plain import is_finite, shown
from rdn_engine.text import read_text

FORMAT = "rdn-engine"


VERSION = 2


MANIFEST = "manifest.json"


GRAPHS = {"backbone": "backbone.onnx", "roi_head": "roi_head.onnx", "relation": "relation.onnx"}


ENCODER = "encoder.onnx"
"""An attached detector, in place of the backbone."""


WEIGHTS = "relation.npz"


GOLDEN = "golden.npz"


PRECISIONS = ("float32", "fp16", "bf16", "int8", "fp8")


LARGEST_TOLERANCE = 0.2
"""The largest relative error of a stage that a bundle may allow itself: with more it proves nothing."""


_MANIFEST_LIMIT = 2**24  # bytes; a manifest is a few kilobytes, so a larger one is not read into memory


def graphs_of(config: RDNConfig) -> dict[str, str]:
    """The graphs of a bundle.

    Args:
        config: of its model.

    Returns:
        role -> file.
    """
    if config.attached is None:
        return dict(GRAPHS)
    # cosine_score takes the detector's features as they are.
    roles = ["relation"] if config.cosine_score else ["roi_head", "relation"]
    behind = {} if config.alone else {role: GRAPHS[role] for role in roles}
    return {"encoder": ENCODER, **behind}


@dataclass(frozen=True)
class FileRecord:
    """What the manifest says of a file."""

    sha256: str
    """64 lower-case hexadecimal digits"""
    bytes: int
    """Size of the file"""


@dataclass(frozen=True)
class Agreement:
    """How the detections of a reduced precision compare with float32's, on frames it was not calibrated on."""

    share: float
    """0..1: of the detections of either precision with a score of `score` or more, those that the other precision finds
    too: same class, IoU 0.5 or more, at least half that score; each counts once"""
    score_difference: float
    """Mean |difference of score| of the pairs"""
    score: float
    """0..1: the lowest score that was compared"""
    detections: int
    """How many were compared, of both precisions"""
    frames: int
    """How many were compared"""
    minimum: float
    """Share that was asked for; a bundle below it was accepted by name when it was built"""
    calibration: str
    """How the ranges of activations were chosen: minmax, percentile or entropy; `maxima` where they were only checked
    against the end of the precision's range"""
    calibration_frames: int
    """How many the ranges come from, none of them compared"""

    @classmethod
    def from_dict(cls, data: object) -> Agreement:
        """Read the `agreement` of a manifest.

        Args:
            data: parsed JSON.

        Raises:
            BundleError: names the field, what it holds and what was wanted.
        """
        if not isinstance(data, dict):
            raise BundleError(f"{MANIFEST}: agreement is {data!r}; wanted how the precision compares with float32")
        shares = {name: float(_field(data, name, (int, float), "agreement.")) for name in ("share", "minimum", "score")}
        for name, value in shares.items():
            if not 0 <= value <= 1:
                raise BundleError(f"{MANIFEST}: agreement.{name} is {value}; wanted 0..1")
        return cls(
            **shares,
            score_difference=float(_field(data, "score_difference", (int, float), "agreement.")),
            detections=_field(data, "detections", int, "agreement."),
            frames=_field(data, "frames", int, "agreement."),
            calibration=_field(data, "calibration", str, "agreement."),
            calibration_frames=_field(data, "calibration_frames", int, "agreement."),
        )


@dataclass(frozen=True)
class Manifest:
    """What `manifest.json` says."""

    name: str
    """The model's, for people"""
    config: RDNConfig
    precision: str
    """One of PRECISIONS. `int8`: of the convolutions and the FC behind RoI pooling, the relation stage is float32;
    `fp16` and `bf16`: of all products but those that make boxes and scores, which are float32 in every precision;
    `fp8`: `fp16` with eight bits (E4M3) for the same layers as `int8`."""
    opset: int
    """ONNX's, the same for all graphs"""
    graphs: dict[str, str]
    """role -> file: those of `graphs_of`"""
    weights: str | None
    """File of the relation stage's weights; None of a detector alone"""
    golden: str
    """File of the golden results"""
    files: dict[str, FileRecord]
    """Every file of the bundle but the manifest."""
    producers: dict[str, str]
    """package -> version that wrote the bundle"""
    source: dict[str, str]
    """checkpoint: file name, sha256"""
    parameters: dict[str, int]
    """graph -> how many weights it holds"""
    tolerances: dict[str, float]
    """stage -> largest relative error that `verify` accepts"""
    agreement: Agreement | None
    """How a reduced precision compares with float32; None for float32"""
    quantization_error: dict[str, float] = field(default_factory=dict)
    """Of int8: stage -> largest difference of the golden results from what float32 makes of the same inputs, relative
    like `tolerances`; empty for other precisions"""
    confidence: ConfidenceMap | None = None
    """What its confidences are worth; None where nobody calibrated them"""

    def to_dict(self) -> dict[str, Any]:
        """What `from_dict` reads, as JSON holds it."""
        files = {name: {"sha256": r.sha256, "bytes": r.bytes} for name, r in self.files.items()}
        agreement = {} if self.agreement is None else {"agreement": vars(self.agreement)}
        maps = {} if self.confidence is None else {"confidence": self.confidence.to_dict()}
        errors = {"quantization_error": self.quantization_error} if self.quantization_error else {}
        own = ("config", "files", "agreement", "quantization_error", "confidence")
        rest = {k: v for k, v in vars(self).items() if k not in own} | agreement | errors | maps
        return {"format": FORMAT, "version": VERSION, **rest, "config": self.config.to_dict(), "files": files}

    @classmethod
    def read(cls, directory: Path) -> Manifest:
        """Read the manifest of a bundle, without a look at the files it names.

        Args:
            directory: of the bundle.

        Raises:
            BundleError: for a manifest that is missing, damaged, or of another version.
        """
        return cls.from_dict(_read_json(directory / MANIFEST))

    @classmethod
    def from_dict(cls, data: object) -> Manifest:
        """Read and check a manifest.

        Args:
            data: parsed JSON.

        Raises:
            BundleError: names the field, what it holds and what was wanted.
        """
        if not isinstance(data, dict) or data.get("format") != FORMAT:
            got = data.get("format") if isinstance(data, dict) else data
            raise BundleError(f"{MANIFEST}: format is {got!r}; wanted {FORMAT!r}")
        version = _field(data, "version", int)
        if version > VERSION:
            raise BundleError(
                f"newer manifest: version is {version}, this rdn_engine reads {VERSION}; upgrade rdn_engine"
            )
        if version < VERSION:
            raise BundleError(
                f"older manifest: version is {version}, this rdn_engine reads {VERSION}; build the engines anew"
            )
        try:
            config = RDNConfig.from_dict(_field(data, "config", dict))
            confidence = read_confidence(data.get("confidence"), len(config.class_names))
        except ConfigError as error:
            raise BundleError(f"{MANIFEST}: {error}") from error
        graphs = _mapping(data, "graphs", str)
        if set(graphs) != set(graphs_of(config)):
            raise BundleError(f"{MANIFEST}: graphs are {sorted(graphs)}; wanted {sorted(graphs_of(config))}")
        records = {
            name: FileRecord(_field(r, "sha256", str, f"files.{name}."), _field(r, "bytes", int, f"files.{name}."))
            for name, r in _mapping(data, "files", dict).items()
        }
        manifest = cls(
            name=_field(data, "name", str),
            config=config,
            precision=_field(data, "precision", str),
            opset=_field(data, "opset", int),
            graphs=graphs,
            weights=None if config.alone else _field(data, "weights", str),
            golden=_field(data, "golden", str),
            files=records,
            producers=_mapping(data, "producers", str),
            source=_mapping(data, "source", str),
            parameters=_mapping(data, "parameters", int),
            tolerances=_numbers(data, "tolerances"),
            agreement=Agreement.from_dict(data.get("agreement")) if data.get("precision") in PRECISIONS[1:] else None,
            quantization_error=_quantization_error(data),
            confidence=confidence,
        )
        if manifest.precision not in PRECISIONS:
            raise BundleError(f"{MANIFEST}: precision is {manifest.precision!r}; this version runs {PRECISIONS}")
        for stage, tolerance in manifest.tolerances.items():
            if not 0 < tolerance <= LARGEST_TOLERANCE:
                raise BundleError(
                    f"{MANIFEST}: tolerances.{stage} is {tolerance}; wanted above 0, at most {LARGEST_TOLERANCE}"
                )
        named = [*manifest.graphs.values(), *([] if manifest.weights is None else [manifest.weights]), manifest.golden]
        for name in (*manifest.files, *named):
            _check_name(name)
        for name in named:
            if name not in manifest.files:
                raise BundleError(f"{MANIFEST}: no checksum of {name!r} under files: {sorted(manifest.files)}")
        return manifest


def _quantization_error(data: Mapping[str, Any]) -> dict[str, float]:
    errors = _numbers(data, "quantization_error") if "quantization_error" in data else {}
    for stage, error in errors.items():
        if not 0 <= error <= LARGEST_TOLERANCE:
            raise BundleError(f"{MANIFEST}: quantization_error.{stage} is {error}; wanted 0..{LARGEST_TOLERANCE}")
    return errors


def _read_json(path: Path) -> object:
    try:
        if not os.path.lexists(path):
            raise BundleError(f"{str(path.parent)!r} has no {path.name}; wanted an engine directory")
        if path.exists() and not path.is_file():  # a pipe or a device might be read for ever
            raise BundleError(f"{str(path)!r} is no file; wanted the manifest of an engine directory")
        if path.stat().st_size > _MANIFEST_LIMIT:
            raise BundleError(f"{path.name} has {path.stat().st_size} bytes; wanted at most {_MANIFEST_LIMIT}")
        return json.loads(read_text(path))
    except OSError as error:
        raise BundleError(f"{str(path)!r} cannot be read ({error.strerror}); wanted an engine directory") from error
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{str(path)!r} is not JSON, perhaps cut short: {error}") from error


def _check_name(name: str) -> None:
    if name in ("", ".", "..", MANIFEST) or any(c in name for c in "/\\\0"):
        raise BundleError(f"{MANIFEST}: file name {name!r} leaves the engine directory; wanted a plain file name")


_T = TypeVar("_T")


def _field(data: Mapping[str, Any], name: str, kind: type[_T] | tuple[type[_T], ...], where: str = "") -> _T:
    value = data.get(name)
    if not isinstance(value, kind) or isinstance(value, bool):
        wanted = " or ".join(k.__name__ for k in (kind if isinstance(kind, tuple) else (kind,)))
        raise BundleError(f"{MANIFEST}: {where}{name} is {value!r}; wanted a {wanted}")
    return value


def _numbers(data: Mapping[str, Any], name: str) -> dict[str, float]:
    values = _mapping(data, name, (int, float))
    for key, value in values.items():
        if not is_finite(value):
            raise BundleError(f"{MANIFEST}: {name}.{key} is {shown(value)}; wanted a finite number")
    return {key: float(value) for key, value in values.items()}


def _mapping(data: Mapping[str, Any], name: str, kind: type | tuple[type, ...]) -> dict[str, Any]:
    values = _field(data, name, dict)
    for key, value in values.items():
        if not isinstance(value, kind) or isinstance(value, bool):
            raise BundleError(f"{MANIFEST}: {name}.{key} is {value!r}; wanted {kind}")
    return dict(values)
