"""What a training run is told: one YAML file, with single values replaced from the command line (docs/training.md)."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from rdn_engine.bundle.manifest import Manifest
from rdn_engine.config import RDNConfig
from rdn_engine.errors import ConfigError
from rdn_engine.plain import from_plain
from training.checkpoints.files import read_config
from training.data.videos import Source, class_names_of
from training.model.fcos import FCOSConfig

Relation = Literal["none", "basic", "full"]
References = Literal["all", "first"]

DETECTOR = "_detector"
"""Ends the name of the file of a detector that is trained with its relations"""
MAY_CHANGE = ("accumulate", "save_every", "log_every", "images_every", "evaluate_every")
"""Fields that may differ when a run is resumed."""


@dataclass(frozen=True)
class Phase:
    name: str
    iterations: int
    learning_rate: float
    """Reached after the warm-up."""
    relation: Relation
    """`none`: backbone, proposals and heads; `basic`: with the basic stage, heads on it; `full`: everything."""
    clips: int = 4
    """Clips in a step, over all processes and accumulated parts together."""
    frames_per_clip: int = 3
    references: References = "all"
    """`all`: each frame serves as the reference once, the whole clip as its support. `first`: the first frame is the
    reference and bears all losses, the others are its support, drawn from -T..T (the paper's temporal dropout)."""
    drops: tuple[int, ...] = ()
    """Iterations of this phase at which the learning rate falls to a tenth, with the schedule `step`."""


@dataclass(frozen=True)
class DataSettings:
    train: tuple[Source, ...]
    """All of them mixed, in proportion to their frames (`references: first`) or videos (`all`)."""
    validation: tuple[Source, ...] = ()
    flip: bool = True
    """Mirror half of the clips."""
    exchange_colours: bool = False
    """Permute the colour channels of every clip at random; for data whose classes do not depend on colour."""


@dataclass(frozen=True)
class Settings:
    """The whole YAML file; `model` may leave out the class names, which are then those of the data."""

    model: RDNConfig
    data: DataSettings
    phases: tuple[Phase, ...]
    optimizer: Literal["adamw", "sgd"] = "adamw"
    momentum: float = 0.9
    """Of `sgd`."""
    weight_decay: float = 0.05
    """Of weights; biases and norms do not decay."""
    schedule: Literal["cosine", "step"] = "cosine"
    """Within a phase: half a cosine down to a twentieth, or a tenth at each of `drops`."""
    warm_up: int = 100
    """Iterations at the start of every phase."""
    warm_up_factor: float = 0.0
    """0..1: part of the learning rate from which the warm-up rises linearly."""
    rois_per_frame: int = 128
    """Of a reference; at most a quarter are foreground."""
    frozen_stages: int = 0
    """Of the backbone, not trained: 1 is the stem, 2 the stem and conv2, up to 5."""
    accumulate: int = 1
    """Parts in which a step is computed one after the other, to save memory."""
    clip_gradient: float = 10.0
    """Largest norm of a step's gradient; 0 for no limit."""
    bf16: bool = True
    """Convolutions in bfloat16; boxes, RoI head and relations stay in float32."""
    detector: str = ""
    """Engine directory of a detector that was attached (export/attach.py): relations are trained on it. Input and
    proposals are then its own."""
    detector_checkpoint: str = ""
    """The small FCOS that `detector` was made from (`fcos`): it is trained with the relations, by its own losses and
    through the map that features are pooled from. Empty: the detector stays as it is."""
    fcos: FCOSConfig | None = None
    """A small detector of single frames in place of RDN, on the first stages of the backbone; relations are trained on
    it once it is attached."""
    teacher: str = ""
    """Checkpoint of an RDN whose feature map `fcos.map_channels` is learnt from, beside what it is told of objects."""
    features: str = ""
    """Folder for what it makes of the training videos; `features` in the run's own by default."""
    seed: int = 0
    half: bool = False
    """The finished model in float16: half the size, and what is exported and evaluated is what was stored."""
    save_every: int = 250
    log_every: int = 25
    images_every: int = 1000
    """Iterations between sample images for TensorBoard; 0 for none."""
    evaluate_every: int = 0
    """Iterations between evaluations on `data.validation`, of which the best model is kept; 0 for none."""

    @classmethod
    def read(cls, path: Path, overrides: Sequence[str] = ()) -> Settings:
        """The settings in a file.

        Args:
            path: of the YAML file.
            overrides: each `field.field=value`, with numbers for places in lists.

        Returns:
            Settings that have been checked.

        Raises:
            ConfigError: a field is unknown or out of range; it names the file and the field.
            DatasetError: class names are to come from data that cannot be read.
        """
        raw = read_config(path)
        for text in overrides:
            override(raw, text)
        try:
            return cls.from_plain(raw)
        except ConfigError as error:
            raise ConfigError(f"{path}: {error}") from None

    @classmethod
    def from_plain(cls, raw: dict[str, Any]) -> Settings:
        """The inverse of `to_plain`; ConfigError names the field."""
        if isinstance(raw.get("model"), dict) and "class_names" not in raw["model"] and "data" in raw:
            sources = from_plain(DataSettings, raw["data"], "settings.data").train
            names = list(class_names_of(sources[0])) if sources else ["none"]
            raw = {**raw, "model": {"class_names": names, **raw["model"]}}
        if raw.get("detector"):
            raw = {**raw, "model": _on_detector(raw["detector"], raw.get("model"))}
        settings = from_plain(cls, raw, "settings")
        settings._check()
        return settings

    def to_plain(self) -> dict[str, Any]:
        """Plain numbers, strings and lists, as YAML and JSON hold them."""
        fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.init}
        return {name: _plain(value) for name, value in fields.items()}

    def write(self, path: Path) -> None:
        path.write_text(yaml.safe_dump(self.to_plain(), sort_keys=False, default_flow_style=None), encoding="utf-8")

    @property
    def total(self) -> int:
        """Iterations of all phases."""
        return sum(p.iterations for p in self.phases)

    def phase_at(self, iteration: int) -> tuple[Phase, int]:
        """Where in the phases a run is.

        Args:
            iteration: steps that are done, 0 or more.

        Returns:
            The phase of the next step, and how many of its iterations are done.

        Raises:
            IndexError: the run is at its end.
        """
        for phase in self.phases:
            if iteration < phase.iterations:
                return phase, iteration
            iteration -= phase.iterations
        raise IndexError(f"{iteration} iterations after the end; the run has {self.total}")

    def clips_before(self, iteration: int) -> int:
        """Clips of all phases drawn in the first `iteration` steps."""
        clips = 0
        for phase in self.phases:
            clips += phase.clips * min(max(iteration, 0), phase.iterations)
            iteration -= phase.iterations
        return clips

    def _check(self) -> None:
        if not self.data.train:
            raise ConfigError("data.train is empty; wanted one source or more")
        names = [p.name for p in self.phases]
        _require(
            self.phases and min(p.iterations for p in self.phases) >= 1 and len(set(names)) == len(names),
            f"phases are {self.phases}; wanted one or more, of 1 iteration or more and of distinct names",
        )
        for phase in self.phases:
            _check_phase(phase, self)
        at_least = dict.fromkeys(("rois_per_frame", "accumulate", "save_every", "log_every"), 1) | dict.fromkeys(
            ("warm_up", "images_every", "evaluate_every", "clip_gradient", "weight_decay", "seed"), 0
        )
        for name, least in at_least.items():
            _require(getattr(self, name) >= least, f"{name} is {getattr(self, name)}; wanted {least} or more")
        _require(0 <= self.warm_up_factor <= 1, f"warm_up_factor is {self.warm_up_factor}; wanted 0..1")
        _require(0 <= self.momentum < 1, f"momentum is {self.momentum}; wanted 0 or more, below 1")
        _require(0 <= self.frozen_stages <= 5, f"frozen_stages is {self.frozen_stages}; wanted 0..5")
        attention = self.model.relation.attention
        _require(attention == "relation", f"model.relation.attention is {attention!r}; wanted 'relation': YOLOV's "
                 "checkpoints are imported (export/attach_yolov.py), not trained here")  # fmt: skip
        attached = self.model.attached is not None
        _require(attached == bool(self.detector), f"detector is {self.detector!r}; wanted one where model.attached is")
        if self.fcos is not None:
            self._check_fcos()
        map_channels = self.fcos.map_channels if self.fcos is not None else 0
        _require(bool(self.teacher) == bool(map_channels), f"teacher is {self.teacher!r} and fcos.map_channels "
                 f"{map_channels}; wanted both or none: the map is learnt from the teacher's")  # fmt: skip
        frozen = attached and not self.detector_checkpoint
        _require(attached or not self.detector_checkpoint, f"detector_checkpoint is {self.detector_checkpoint!r} "
                 "without detector; wanted the engine directory that was made from it")  # fmt: skip
        augmented = [name for name in ("flip", "exchange_colours") if getattr(self.data, name)]
        _require(not (frozen and augmented), f"data.{', data.'.join(augmented)} is true; wanted false with a "
                 "detector that stays as it is: its features are computed once, of frames as they are")  # fmt: skip
        if self.evaluate_every and not self.data.validation:
            raise ConfigError(f"evaluate_every is {self.evaluate_every} without data.validation; wanted a source")

    def _check_fcos(self) -> None:
        _require(not self.detector, f"detector is {self.detector!r} with fcos; wanted one of the two")
        backbone = self.model.backbone
        _require(backbone.name == "resnet18", f"model.backbone.name is {backbone.name}; wanted resnet18 with fcos")
        for phase in self.phases:
            got = f"relation {phase.relation!r}, frames_per_clip {phase.frames_per_clip}"
            _require(phase.relation == "none" and phase.frames_per_clip == 1, f"phases: {phase.name!r}: {got}; wanted "
                     "relation 'none' and frames_per_clip 1 with fcos, which sees single frames")  # fmt: skip


def _on_detector(directory: Any, model: Any) -> dict[str, Any]:
    """The model's settings with those of the detector that it stands on."""
    if not isinstance(directory, str) or not isinstance(model, dict):
        raise ConfigError(f"detector is {directory!r} and model {model!r}; wanted an engine directory and a mapping")
    found = Manifest.read(Path(directory)).config
    if found.attached is None or not found.attached.features:
        raise ConfigError(
            f"detector {directory} has no features of an attached detector; wanted a directory that export/attach.py "
            "wrote, with --features where it found none"
        )
    told = found.to_dict()
    own = {name: told[name] for name in ("input", "roi")} | {"attached": told["attached"] | {"relations": True}}
    for name, value in own.items():
        if name in model and model[name] != value:
            raise ConfigError(f"model.{name} is {model[name]}; wanted that of detector {directory}, or none: {value}")
    return {**model, **own}


def _check_phase(phase: Phase, settings: Settings) -> None:
    where = f"phases: {phase.name!r}"
    plain_name = phase.name.replace("_", "").replace("-", "").isalnum()
    reserved = ("model", "best", "last", "previous")
    _require(plain_name and phase.name not in reserved, f"{where} is a file's name; wanted letters, digits, _ and -, "
             f"and none of {reserved}")  # fmt: skip
    _require(not (settings.detector_checkpoint and phase.name.endswith(DETECTOR)), f"{where} ends with {DETECTOR}; "
             "wanted another name: the detectors of the other phases have files of such names")  # fmt: skip
    _require(phase.learning_rate > 0, f"{where}: learning_rate is {phase.learning_rate}; wanted more than 0")
    _require(phase.clips >= 1, f"{where}: clips is {phase.clips}; wanted 1 or more")
    _require(phase.clips % settings.accumulate == 0,
             f"{where}: clips is {phase.clips}; wanted a multiple of accumulate = {settings.accumulate}")  # fmt: skip
    least = 2 if phase.references == "first" and phase.relation != "none" else 1
    most = 1 if phase.references == "first" and phase.relation == "none" else math.inf
    _require(
        least <= phase.frames_per_clip <= most,
        f"{where}: frames_per_clip is {phase.frames_per_clip} with references {phase.references!r} and relation "
        f"{phase.relation!r}; wanted {'1' if most == 1 else f'{least} or more'}",
    )
    ordered = list(phase.drops) == sorted(set(phase.drops)) and all(0 < d < phase.iterations for d in phase.drops)
    _require(ordered, f"{where}: drops are {phase.drops}; wanted growing iterations below {phase.iterations}")
    _require(not phase.drops or settings.schedule == "step", f"{where} has drops; wanted schedule: step")


def _require(ok: object, message: str) -> None:
    if not ok:
        raise ConfigError(message)


def override(raw: dict[str, Any], text: str) -> None:
    """Puts one value into plain settings.

    Args:
        raw: plain settings as YAML gives them; they are changed.
        text: `field.field=value`, with numbers for places in lists; the value is YAML.

    Raises:
        ConfigError: there is no such place, or the value is no YAML.
    """
    path, equals, value = text.partition("=")
    if not equals or not all(path.split(".")):
        raise ConfigError(f"--set {text}; wanted field=value or field.field=value, such as phases.0.iterations=10")
    names = path.split(".")
    place: Any = raw
    for i, name in enumerate(names):
        last = i == len(names) - 1
        if isinstance(place, list):
            if not name.isdecimal() or int(name) >= len(place):
                wanted = f"wanted 0..{len(place) - 1}"
                raise ConfigError(f"--set {text}: {name} is no place in a list of {len(place)}; {wanted}")
            if last:
                place[int(name)] = _value(value, text)
            else:
                place = place[int(name)]
        elif isinstance(place, dict):
            if last:
                place[name] = _value(value, text)
            else:
                place = place.setdefault(name, {})
        else:
            raise ConfigError(f"--set {text}: {name} stands below {place!r}; wanted a field of a mapping")


def _value(value: str, text: str) -> Any:
    try:
        read = yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise ConfigError(f"--set {text} cannot be read as YAML: {error}") from error
    if isinstance(read, str):  # YAML 1.1 takes 1e-3 for text
        try:
            return float(read)
        except ValueError:
            return read
    return read


def differences(mine: Any, other: Any, path: str = "") -> list[str]:
    """The fields in which two plain settings differ, each as `field is A here, B there`."""
    if isinstance(mine, dict) and isinstance(other, dict):
        keys = sorted(set(mine) | set(other), key=str)
        return [d for k in keys for d in differences(mine.get(k), other.get(k), f"{path}.{k}" if path else str(k))]
    if isinstance(mine, list) and isinstance(other, list) and len(mine) == len(other):
        return [d for i, (a, b) in enumerate(zip(mine, other, strict=True)) for d in differences(a, b, f"{path}.{i}")]
    return [] if mine == other else [f"{path} is {mine!r} here, {other!r} there"]


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    return value
