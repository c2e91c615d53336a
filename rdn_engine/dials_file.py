"""The file of dials and options that `rdn-engine tune` writes, and `predict` and `run` take (docs/tuning.md)."""

from __future__ import annotations

import dataclasses
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rdn_engine.backends.graph import MOST_THREADS, BackendChoice
from rdn_engine.bundle.manifest import Manifest
from rdn_engine.config import Dials
from rdn_engine.detector import RelationPrecision
from rdn_engine.errors import ConfigError
from rdn_engine.kernels.cpu import RingPrecision
from rdn_engine.plain import check, check_fields, check_names, from_plain
from rdn_engine.text import read_text


@dataclass(frozen=True)
class DialsFile:
    """How a model is to run. What is None, or not among the dials, is as it would be without the file."""

    dials: dict[str, Any] = field(default_factory=dict)
    """Those that are set; the others stay as the model has them"""
    precision: str | None = None
    """Of the bundle that these hold for; None for any"""
    backend: BackendChoice | None = None
    threads: int | None = None
    """CPU threads of one call"""
    relation_precision: RelationPrecision | None = None
    ring_precision: RingPrecision | None = None
    measured: dict[str, Any] = field(default_factory=dict)
    """What came out, for people; nothing reads it"""

    def __post_init__(self) -> None:
        """Check every value.

        Raises:
            ConfigError: says which is of another type or out of its range, or which dial there is not.
        """
        check_fields(self, "the file", threads=(1, MOST_THREADS))
        check_names("dials", self.dials, {f.name for f in dataclasses.fields(Dials)})

    @property
    def options(self) -> dict[str, Any]:
        """Those of `Detector.from_pretrained` that the file has."""
        given = {name: getattr(self, name) for name in ("backend", "threads", "relation_precision", "ring_precision")}
        return {name: value for name, value in given.items() if value is not None}

    def check_bundle(self, directory: Path) -> None:
        """Check that an engine directory is of the precision that the file was measured with.

        Args:
            directory: of the bundle.

        Raises:
            ConfigError: for another precision.
            BundleError: for a manifest that is missing or damaged.
        """
        if self.precision is not None:
            got, wanted = Manifest.read(directory).precision, self.precision
            check(got == wanted, f"the precision of {directory}", got, f"{wanted}, as the dials file has it")


def read_dials_file(path: Path) -> DialsFile:
    """The dials and options in a file.

    Args:
        path: of a JSON file.

    Raises:
        ConfigError: for what is no JSON, or a field that is unknown, of another type or out of its range.
        OSError: for a file that cannot be read.
    """
    try:
        data = json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path} is no JSON: {error}; wanted a dials file, as `rdn-engine tune` writes it") from None
    try:
        check(isinstance(data, dict), "the file", data, "a mapping with dials")
        return from_plain(DialsFile, data, "")
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None


def write_dials_file(path: Path, dials: DialsFile) -> None:
    """Write a file; one that was there stays whole until the new one is.

    Args:
        path: of the file.
        dials: what it is to hold.

    Raises:
        OSError: where it cannot be written.
    """
    held = {name: value for name, value in dataclasses.asdict(dials).items() if value is not None}
    part = path.with_name(path.name + ".part")
    part.write_text(json.dumps(held, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    os.replace(part, path)
