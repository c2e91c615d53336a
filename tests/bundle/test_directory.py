"""An engine directory is used whole and unchanged, or not at all."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rdn_engine.bundle.directory import Bundle, write_bundle
from rdn_engine.bundle.manifest import GRAPHS, MANIFEST, VERSION, WEIGHTS
from rdn_engine.errors import BundleError
from tests.fakes import fill_bundle, tiny_config


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    path = tmp_path / "engines"
    path.mkdir()
    fill_bundle(path, tiny_config())
    return path


def edit(directory: Path, **changes: Any) -> None:
    path = directory / MANIFEST
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_what_was_written_is_read_back(directory: Path) -> None:
    bundle = Bundle.open(str(directory))
    assert bundle.config == tiny_config()
    assert bundle.manifest.tolerances == {"logits": 1e-4}
    assert bundle.manifest.parameters["roi_head"] == 2
    assert bundle.path("roi_head") == directory / "roi_head.onnx"
    assert set(bundle.manifest.files) == {*GRAPHS.values(), "relation.npz", "golden.npz"}
    assert bundle.arrays("weights")["classify.weight"].shape == (3, 32)


@pytest.mark.parametrize("name", [*GRAPHS.values(), "relation.npz", "golden.npz"])
def test_a_changed_byte_is_found(directory: Path, name: str) -> None:
    data = bytearray((directory / name).read_bytes())
    data[len(data) // 2] ^= 1
    (directory / name).write_bytes(data)
    with pytest.raises(BundleError, match=rf"'{name}' has SHA-256 [0-9a-f]{{64}}; the manifest says"):
        Bundle.open(directory)


def test_a_shortened_file_is_found_by_its_size(directory: Path) -> None:
    (directory / "backbone.onnx").write_bytes(b"a")
    with pytest.raises(BundleError, match=r"'backbone.onnx' has 1 bytes; the manifest says 20"):
        Bundle.open(directory)


def test_a_missing_graph_is_named(directory: Path) -> None:
    (directory / "relation.onnx").unlink()
    with pytest.raises(BundleError, match=r"'relation.onnx' is missing"):
        Bundle.open(directory)


@pytest.mark.parametrize("name", ["../escape.onnx", "/etc/passwd", "sub/graph.onnx", "..", "a\\b.onnx", "", "a\0b"])
@pytest.mark.parametrize("place", ["graphs", "weights", "files"])
def test_names_that_leave_the_directory_are_refused(directory: Path, name: str, place: str) -> None:
    manifest = json.loads((directory / MANIFEST).read_text())
    record = manifest["files"]["backbone.onnx"]
    (directory.parent / "escape.onnx").write_bytes((directory / "backbone.onnx").read_bytes())
    if place == "graphs":
        edit(directory, graphs=manifest["graphs"] | {"backbone": name}, files=manifest["files"] | {name: record})
    elif place == "weights":
        edit(directory, weights=name)
    else:
        edit(directory, files=manifest["files"] | {name: record})
    with pytest.raises(BundleError, match="leaves the engine directory; wanted a plain file name"):
        Bundle.open(directory)


def test_a_graph_without_a_checksum_is_refused(directory: Path) -> None:
    files = json.loads((directory / MANIFEST).read_text())["files"]
    del files["roi_head.onnx"]
    edit(directory, files=files)
    with pytest.raises(BundleError, match=r"no checksum of 'roi_head\.onnx'"):
        Bundle.open(directory)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"version": VERSION + 1}, f"newer manifest: version is {VERSION + 1}"),
        ({"version": VERSION - 1}, f"older manifest: version is {VERSION - 1}, .* build the engines anew"),
        ({"version": True}, "version is True; wanted a int"),
        ({"format": "other"}, "format is 'other'; wanted 'rdn-engine'"),
        ({"opset": "18"}, "opset is '18'; wanted a int"),
        ({"graphs": {"backbone": "backbone.onnx"}}, "graphs are"),
        ({"files": ["backbone.onnx"]}, "files is"),
        ({"files": {"backbone.onnx": {"sha256": "0"}}}, "files.backbone.onnx.bytes is None"),
        ({"config": {"class_names": ["a", "a"]}}, "distinct names"),
        ({"config": {"class_names": ["a"], "colour": 1}}, "unknown fields"),
        ({"tolerances": {"logits": float("inf")}}, "tolerances.logits is inf; wanted a finite number"),
        ({"tolerances": {"logits": 0.0}}, "tolerances.logits is 0.0"),
        ({"quantization_error": {"logits": 0.3}}, "quantization_error.logits is 0.3; wanted 0..0.2"),
        ({"quantization_error": {"logits": 10**400}}, "quantization_error.logits is 1000.*; wanted a finite number"),
        ({"tolerances": {"logits": 10**400}}, "tolerances.logits is 1000.*; wanted a finite number"),
        ({"precision": "float16"}, "precision is 'float16'; this version runs"),
        ({"tolerances": {"logits": "small"}}, "tolerances.logits is 'small'"),
    ],
)
def test_a_manifest_of_another_kind_is_refused(directory: Path, changes: dict[str, Any], message: str) -> None:
    edit(directory, **changes)
    with pytest.raises(BundleError, match=message):
        Bundle.open(directory)


@pytest.mark.parametrize("keep", [0, 1, 40, 400])
def test_a_manifest_cut_short_is_refused(directory: Path, keep: int) -> None:
    path = directory / MANIFEST
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(BundleError, match="not JSON, perhaps cut short"):
        Bundle.open(directory)


@pytest.mark.parametrize("text", ["[" * 100_000, "\udcff", "[]", "3"])
def test_a_manifest_that_is_no_mapping_is_refused(directory: Path, text: str) -> None:
    (directory / MANIFEST).write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(BundleError):
        Bundle.open(directory)


def test_a_place_without_a_bundle_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="is not a directory"):
        Bundle.open(tmp_path / "nowhere")
    with pytest.raises(BundleError, match="'' is not a directory"):
        Bundle.open("")
    with pytest.raises(BundleError) as caught:
        Bundle.open(tmp_path)
    assert str(caught.value) == f"'{tmp_path}' has no {MANIFEST}; wanted an engine directory"


def test_pickles_are_refused(tmp_path: Path) -> None:
    with write_bundle(tmp_path / "engines") as staging:
        fill_bundle(staging, tiny_config())
    bundle = Bundle.open(tmp_path / "engines")
    np.savez(bundle.path("weights"), **{"classify.weight": np.array([{"a": 1}], dtype=object)})
    with pytest.raises(BundleError, match=f"{WEIGHTS} cannot be read as an npz of plain arrays"):
        bundle.arrays("weights")
    bundle.path("weights").write_bytes(b"PK\x03\x04 not an archive")
    with pytest.raises(BundleError, match=f"{WEIGHTS} cannot be read as an npz of plain arrays"):
        bundle.arrays("weights")


def test_a_build_that_fails_leaves_the_old_bundle(tmp_path: Path) -> None:
    target = tmp_path / "made" / "engines"
    with write_bundle(target) as staging:
        fill_bundle(staging, tiny_config(), b"first")

    def fail() -> None:
        with write_bundle(target) as staging:
            (staging / "backbone.onnx").write_bytes(b"half")
            raise RuntimeError("disk")

    with pytest.raises(RuntimeError, match="disk"):
        fail()
    assert (target / "backbone.onnx").read_bytes().startswith(b"first")
    with write_bundle(target) as staging:
        fill_bundle(staging, tiny_config(), b"second")
    assert (target / "backbone.onnx").read_bytes().startswith(b"second")
    assert [p.name for p in target.parent.iterdir()] == ["engines"]


def test_a_build_without_a_manifest_is_not_put_in_place(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=f"has no {MANIFEST}"), write_bundle(tmp_path / "engines"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_directory_of_other_things_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(BundleError, match="no engine directory"), write_bundle(tmp_path):
        pass
    assert (tmp_path / "thesis.tex").exists()


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_manifest_may_begin_with_a_byte_order_mark(directory: Path, encoding: str) -> None:
    wanted = Bundle.open(directory).manifest
    (directory / MANIFEST).write_text((directory / MANIFEST).read_text(), encoding=encoding)
    assert Bundle.open(directory).manifest == wanted


def test_a_volume_of_kubernetes_opens(directory: Path) -> None:
    """Each name is a link into `..data`, which is a link to the folder of the newest version."""
    version = directory / "..2026_11_29_08_00_00.123"
    version.mkdir()
    for path in [path for path in directory.iterdir() if path.is_file()]:
        path.rename(version / path.name)
        (directory / path.name).symlink_to(Path("..data") / path.name)
    (directory / "..data").symlink_to(version.name)
    bundle = Bundle.open(directory)
    assert bundle.arrays("weights")["classify.weight"].shape == (3, 32)
    assert bundle.path("backbone") == directory / "backbone.onnx"


@pytest.mark.parametrize("inside", [".", "engines"])
def test_a_cache_of_hugging_face_opens(directory: Path, inside: str) -> None:
    """Each file of a snapshot is a link to a blob, outside of the engine directory; the manifest too."""
    repository = directory.parent / "hub" / "models--maker--rdn"
    snapshot = repository / "snapshots" / ("0" * 40) / inside
    snapshot.mkdir(parents=True)
    (repository / "blobs").mkdir()
    for path in directory.iterdir():
        blob = repository / "blobs" / hashlib.sha256(path.read_bytes()).hexdigest()
        path.rename(blob)
        (snapshot / path.name).symlink_to(os.path.relpath(blob, snapshot))
    bundle = Bundle.open(snapshot)
    assert bundle.arrays("weights")["classify.weight"].shape == (3, 32)
    assert bundle.path("backbone").name == "backbone.onnx"


@pytest.mark.parametrize("size", ["same", "other"])
def test_a_link_to_another_file_is_refused_and_tells_nothing_of_it(directory: Path, size: str) -> None:
    outside = directory.parent / "secret"
    outside.write_bytes(b"s" * ((directory / "backbone.onnx").stat().st_size + (size == "other")))
    (directory / "backbone.onnx").unlink()
    (directory / "backbone.onnx").symlink_to(outside)
    with pytest.raises(BundleError, match=r"a link to '.*/secret', another file than the one") as caught:
        Bundle.open(directory)
    assert hashlib.sha256(outside.read_bytes()).hexdigest() not in str(caught.value)


@pytest.mark.parametrize("name", ["backbone.onnx", MANIFEST])
@pytest.mark.parametrize("target", ["nowhere", ".", "/dev/zero", "itself", "pipe"])
def test_a_link_that_leads_to_no_file_is_refused(directory: Path, name: str, target: str) -> None:
    """Not followed for ever, not waited for."""
    os.mkfifo(directory / "pipe")
    (directory / name).unlink()
    (directory / name).symlink_to(name if target == "itself" else target)
    with pytest.raises(BundleError, match=r"which is no file|is no file; wanted the manifest|cannot be read"):
        Bundle.open(directory)


def test_a_pointer_in_the_place_of_a_graph_is_recognised(directory: Path) -> None:
    """A repository that was cloned without Git LFS."""
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:" + "4d7a" * 16 + "\nsize 259214342\n"
    (directory / "backbone.onnx").write_text(pointer)
    with pytest.raises(BundleError, match=r"'backbone.onnx' is a Git LFS pointer.* `git lfs pull`"):
        Bundle.open(directory)
