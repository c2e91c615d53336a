"""The engine directory (manifest, graphs, relation weights, golden results): read, verified and written here."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import shutil
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rdn_engine.bundle.confidence import ConfidenceMap
from rdn_engine.bundle.manifest import GOLDEN, MANIFEST, WEIGHTS, Agreement, FileRecord, Manifest, graphs_of
from rdn_engine.config import RDNConfig
from rdn_engine.errors import BundleError
from rdn_engine.text import what_came_instead


@dataclass(frozen=True)
class Bundle:
    """An engine directory whose files are all there and unchanged."""

    directory: Path
    manifest: Manifest
    """What `manifest.json` says"""

    @classmethod
    def open(cls, directory: str | Path) -> Bundle:
        """Read the manifest, then check name, size and SHA-256 of every file, before any of them is loaded.

        Directory and files may be links, as volumes of Kubernetes and the cache of Hugging Face have them: size and
        SHA-256 say what a file holds, wherever it lies. The manifest names files of its own directory only.

        Args:
            directory: of the bundle.

        Raises:
            BundleError: for a directory that is missing, damaged, of another version, or that names a file outside
                itself.
        """
        given, directory = directory, Path(directory)
        if given == "" or not directory.is_dir():  # `Path("")` would be the current folder
            raise BundleError(f"{str(given)!r} is not a directory; wanted an engine directory with {MANIFEST}")
        manifest = Manifest.read(directory)
        for name, record in manifest.files.items():
            _check_file(directory, name, record)
        return cls(directory, manifest)

    @property
    def config(self) -> RDNConfig:
        """Everything that decides what the model computes."""
        return self.manifest.config

    def path(self, role: str) -> Path:
        """The place of a file of the bundle.

        Args:
            role: of a graph, `weights` or `golden`.

        Raises:
            BundleError: for a role that no file of the bundle has.
        """
        names = {**self.manifest.graphs, "golden": self.manifest.golden}
        if self.manifest.weights is not None:
            names["weights"] = self.manifest.weights
        if role not in names:
            raise BundleError(f"{str(self.directory)!r} has no {role}; its model has {', '.join(names)}")
        return self.directory / names[role]

    def arrays(self, role: str) -> dict[str, NDArray[Any]]:
        """Load all arrays of a file.

        Args:
            role: `weights` or `golden`.

        Returns:
            Name -> array.

        Raises:
            BundleError: for a file that is no npz of plain arrays; pickled objects are refused.
        """
        path = self.path(role)
        try:
            with np.load(path, allow_pickle=False) as archive:
                return {name: archive[name] for name in archive.files}
        except (OSError, EOFError, ValueError, AttributeError, zipfile.BadZipFile) as error:
            raise BundleError(f"{path.name} cannot be read as an npz of plain arrays: {error}") from error


def write_manifest(
    directory: str | Path,
    *,
    name: str,
    config: RDNConfig,
    precision: str,
    opset: int,
    producers: Mapping[str, str],
    source: Mapping[str, str],
    parameters: Mapping[str, int],
    tolerances: Mapping[str, float],
    agreement: Agreement | None = None,
    quantization_error: Mapping[str, float] | None = None,
) -> Manifest:
    """Record every file now in `directory` (size, SHA-256) and the facts about the model; the last step of a build.

    Args:
        directory: holds graphs, weights and golden results under their standard names, and no subdirectory.
        name: of the model, for people.
        config: of the model.
        precision: one of PRECISIONS.
        opset: of ONNX, of all graphs.
        producers: package -> version that wrote the bundle.
        source: file name and sha256 of the checkpoint.
        parameters: graph -> how many weights it holds.
        tolerances: stage -> largest relative error that `verify` accepts, in (0, LARGEST_TOLERANCE].
        agreement: of a reduced precision with float32; None for float32.
        quantization_error: of int8, `rdn_engine.verify.quantization_error`; None for other precisions.

    Returns:
        What was written.

    Raises:
        BundleError: for facts or files that `Manifest.from_dict` would refuse; nothing is written then.
    """
    directory = Path(directory)
    files = {p.name: _record(p) for p in sorted(directory.iterdir()) if p.name != MANIFEST}
    manifest = Manifest(
        name=name,
        config=config,
        precision=precision,
        opset=opset,
        graphs=graphs_of(config),
        weights=None if config.alone else WEIGHTS,
        golden=GOLDEN,
        files=files,
        producers=dict(producers),
        source=dict(source),
        parameters=dict(parameters),
        tolerances=dict(tolerances),
        agreement=agreement,
        quantization_error=dict(quantization_error or {}),
    )
    return _write(directory, manifest)


def write_calibrated(bundle: Bundle, directory: str | Path, confidence: ConfidenceMap) -> None:
    """A bundle anew, with maps of its confidences.

    Args:
        bundle: whose files were checked.
        directory: of the new one, as `write_bundle` takes it; it may be the bundle's own.
        confidence: the maps.

    Raises:
        BundleError: as `write_bundle`.
    """
    with write_bundle(directory) as staging:
        for name in bundle.manifest.files:
            shutil.copyfile(bundle.directory / name, staging / name)
        _write(staging, replace(bundle.manifest, confidence=confidence))


def _write(directory: Path, manifest: Manifest) -> Manifest:
    manifest = Manifest.from_dict(manifest.to_dict())
    part = directory / f".{MANIFEST}.part"
    part.write_text(json.dumps(manifest.to_dict(), indent=2) + "\n", encoding="utf-8")
    os.replace(part, directory / MANIFEST)
    return manifest


@contextlib.contextmanager
def write_bundle(directory: str | Path) -> Iterator[Path]:
    """Give a fresh directory to fill (graphs, weights, golden, then `write_manifest`), renamed to `directory` at the
    end.

    A block that raises leaves `directory` as it was.

    Args:
        directory: a new name, an empty directory, or an older bundle, which is replaced.

    Returns:
        A context manager of the directory to fill.

    Raises:
        BundleError: for anything else at `directory`, and at the end for a bundle that `Bundle.open` refuses.
    """
    directory = Path(directory).absolute()
    if directory.exists() and not (directory.is_dir() and _replaceable(directory)):
        raise BundleError(f"{str(directory)!r} exists and is no engine directory; wanted a new name, or an old bundle")
    directory.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=directory.parent, prefix=f".{directory.name}.") as temporary:
        staging = Path(temporary) / "new"
        staging.mkdir()
        yield staging
        Bundle.open(staging)
        if directory.exists():
            directory.rename(Path(temporary) / "old")
        staging.rename(directory)


def _replaceable(directory: Path) -> bool:
    return (directory / MANIFEST).is_file() or not any(directory.iterdir())


def _check_file(directory: Path, name: str, record: FileRecord) -> None:
    path = directory / name
    if not path.is_file():
        if path.is_symlink():
            raise BundleError(f"{name!r} in {str(directory)!r} is a link to {os.readlink(path)!r}, which is no file")
        raise BundleError(f"{name!r} is missing from {str(directory)!r}")
    size = path.stat().st_size
    got = FileRecord("", size) if size != record.bytes else _record(path)  # a large file need not be read to be refused
    if got == record:
        return
    if not path.resolve().is_relative_to(directory.resolve()):
        # What is not the bundle's is nobody's business: neither its size nor its checksum is told.
        raise BundleError(f"{name!r} is a link to {os.readlink(path)!r}, another file than the one of the manifest")
    with _opened(path) as file:
        instead = what_came_instead(file.read(64))
    if instead is not None:
        raise BundleError(f"{name!r} is {instead}")
    if size != record.bytes:
        raise BundleError(f"{name!r} has {size} bytes; the manifest says {record.bytes}")
    raise BundleError(f"{name!r} has SHA-256 {got.sha256}; the manifest says {record.sha256}")


def _record(path: Path) -> FileRecord:
    with _opened(path) as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return FileRecord(digest, file.tell())


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[io.BufferedReader]:
    try:
        with path.open("rb") as file:
            yield file
    except OSError as error:
        raise BundleError(f"{str(path)!r} cannot be read: {error.strerror}") from error
