"""What the command line prints, where a whole command would be too much."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import onnx
import pytest

from rdn_engine.cli.tables import graph_table
from rdn_engine.errors import BundleError


def bundle_of(folder: Path, **kinds: int) -> Any:
    """A bundle whose graphs add two arrays; role -> element type."""
    for role, kind in kinds.items():
        a, b, y = (onnx.helper.make_tensor_value_info(name, kind, ["n", 2]) for name in "aby")
        graph = onnx.helper.make_graph([onnx.helper.make_node("Add", ["a", "b"], ["y"])], "add", [a, b], [y])
        model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=10)
        onnx.save(model, folder / f"{role}.onnx")
    manifest = SimpleNamespace(graphs=list(kinds), precision="bf16")
    return SimpleNamespace(path=lambda role: folder / f"{role}.onnx", manifest=manifest)


def test_a_graph_without_a_kernel_here_is_a_row_all_the_same(tmp_path: Path) -> None:
    bundle = bundle_of(tmp_path, backbone=onnx.TensorProto.BFLOAT16, roi_head=onnx.TensorProto.FLOAT)
    columns = [list(column.cells) for column in graph_table(bundle).columns]
    assert columns == [
        ["backbone", "roi_head"],
        ["ONNX Runtime has no CPU kernel for bf16", "a [n, 2]\nb [n, 2]"],
        ["", "y [n, 2]"],
    ]


def test_a_file_that_is_no_graph_is_an_error(tmp_path: Path) -> None:
    bundle = bundle_of(tmp_path, backbone=onnx.TensorProto.FLOAT)
    (tmp_path / "backbone.onnx").write_bytes(b"no graph at all")
    with pytest.raises(BundleError, match=r"ONNX Runtime .* cannot load backbone\.onnx"):
        graph_table(bundle)
