"""The relation plugin on a CPU: its shell compiled against a double of TensorRT's header, over the emulated kernels;
and the relation graph that is made of it. With TENSORRT_ROOT it is compiled against the real header, too.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from numpy.typing import NDArray
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

from benchmarks.frame.models import draw_relation
from export.graphs import describe, export_graph
from rdn_engine.backends.tensorrt.plugin_graph import relation_with_plugin
from rdn_engine.bundle.contract import fused_shapes
from rdn_engine.bundle.directory import Bundle
from rdn_engine.bundle.manifest import GRAPHS
from rdn_engine.config import BackboneConfig, RDNConfig, RelationConfig
from rdn_engine.errors import ConfigError
from tests import cuda_machines, reference_relation
from training.model.rdn import RDN

ROOT = Path(__file__).resolve().parents[3]
ENGINES = ROOT / "models" / "rdn_tiny" / "engines"
PLUGIN = ROOT / "csrc" / "tensorrt" / "relation_plugin.cpp"
DOUBLE = ROOT / "tests" / "tensorrt_double"
FLAGS = ("-std=c++17", "-O1", "-fPIC", "-fvisibility=hidden", "-Wall", "-Wextra", "-Werror")

Array = NDArray[Any]


def compile_(source: Path, target: Path, *includes: Path) -> Path:
    every = [ROOT / "csrc" / "include", ROOT / "csrc" / "tensorrt", *includes]
    command = ["c++", *FLAGS, *(f"-I{i}" for i in every), "-c", str(source), "-o", str(target)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return target


@pytest.fixture(scope="module")
def plugin(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    folder = tmp_path_factory.mktemp("plugin")
    kernels = Path(str(cuda_machines.emulated_module().__file__)).parent
    objects = [*kernels.glob("*.cu.o"), kernels / "emulator.cpp.o", compile_(PLUGIN, folder / "plugin.o", DOUBLE)]
    driver = folder / "drive.cpp"
    # What Python calls has to be seen.
    driver.write_text(f'#pragma GCC visibility push(default)\n#include "{DOUBLE / "drive.cpp"}"\n')
    objects.append(compile_(driver, folder / "drive.o", DOUBLE))
    library = folder / "plugin.so"
    subprocess.run(["c++", "-shared", *map(str, objects), "-o", str(library)], check=True)
    return ctypes.CDLL(str(library))


def case(n: int, s: int, heads: int = 4, head_dim: int = 16, seed: int = 0) -> dict[str, Array]:
    rng, dim = np.random.default_rng(seed), heads * head_dim
    found: dict[str, Array] = {
        "query": rng.standard_normal((n, dim)),
        "boxes": reference_relation.boxes_of_kind(rng, n, "any"),
        "keys": rng.standard_normal((s, dim)),
        "values": rng.standard_normal((s, dim)),
        "support_boxes": reference_relation.boxes_of_kind(rng, s, "any"),
        "multiplicity": rng.integers(0, 4, s),
        "geometry_weight": rng.standard_normal((heads, 64)) / 8,
        "geometry_bias": rng.standard_normal(heads),
        "value_bias": rng.standard_normal(dim),
    }
    found["multiplicity"][0] = 1
    return {name: np.ascontiguousarray(array, np.float32) for name, array in found.items()}


def drive(
    library: ctypes.CDLL, given: dict[str, Array], omega: int, heads: int = 4, more: int = 0
) -> tuple[int, list[Array]]:
    shapes = np.zeros((9, 3), np.int64)
    for row, array in zip(shapes, given.values(), strict=True):
        row[: array.ndim] = array.shape
    n, s = len(given["query"]), len(given["keys"])
    outputs = [np.full(given["query"].shape, np.nan, np.float32), np.full((n, s), np.nan, np.float32)][: 1 + omega]
    pointers = [(ctypes.c_void_p * len(side))(*(a.ctypes.data for a in side)) for side in (given.values(), outputs)]
    status = library.drive(heads, omega, shapes.ctypes.data_as(ctypes.c_void_p), ctypes.c_int64(more), *pointers)
    return status, outputs


@pytest.mark.parametrize(("n", "s", "more"), [(5, 33, 0), (1, 1, 0), (3, 1030, 0), (4, 20, 7)])
def test_it_computes_the_definition(n: int, s: int, more: int, plugin: ctypes.CDLL) -> None:
    given = case(n, s)
    status, (got, omega) = drive(plugin, given, 1, more=more)
    assert status == 0
    one = (given["query"], given["boxes"], given["keys"])
    exact = reference_relation.relation(
        *one, given["values"], given["support_boxes"], np.arange(s), given["multiplicity"],
        given["geometry_weight"], given["geometry_bias"],
    )  # fmt: skip
    np.testing.assert_allclose(got, exact + given["value_bias"], atol=2e-4)
    weights = reference_relation.softmax_weights(
        *one, given["support_boxes"], given["multiplicity"], given["geometry_weight"], given["geometry_bias"]
    )
    np.testing.assert_allclose(omega, weights.mean(0), atol=2e-4)
    status, [alone] = drive(plugin, given, 0, more=more)
    assert status == 0
    np.testing.assert_array_equal(alone, got)


def test_inputs_that_do_not_fit_are_refused(plugin: ctypes.CDLL) -> None:
    given = case(5, 8)
    for name in list(given)[1:]:
        wrong = given | {name: given[name][:-1].copy()}
        assert drive(plugin, wrong, 1)[0] == 1, name
    assert drive(plugin, given | {"boxes": np.zeros((5, 5), np.float32)}, 1)[0] == 1
    assert drive(plugin, given | {"multiplicity": np.zeros((8, 1), np.float32)}, 1)[0] == 1
    assert drive(plugin, given, 1, heads=3)[0] == 1  # 64 channels


def test_only_dense_float32_is_taken(plugin: ctypes.CDLL) -> None:
    for position in range(11):
        for kind in range(4):
            for form in range(3):
                assert plugin.takes(position, kind, form) == (kind == form == 0)


@pytest.mark.parametrize("omega", [0, 1])
def test_outputs_have_the_sizes_of_the_inputs(omega: int, plugin: ctypes.CDLL) -> None:
    found = (ctypes.c_int32 * 4)(-1, -1, -1, -1)
    assert plugin.shapes_of_outputs(omega, found) == 1 + omega
    # The query's; rows of the query by rows of the keys.
    assert list(found) == [0, 1, *((0, 4) if omega else (-1, -1))]


@pytest.mark.parametrize(
    ("fields", "made"),
    [
        ({"heads": (16, 5), "omega": (0, 5)}, 1),
        ({"heads": (16, 5), "omega": (1, 5), "plugin_version": (1, 5)}, 1),
        ({"heads": (16, 5)}, 0),
        ({"omega": (1, 5)}, 0),
        ({"heads": (0, 5), "omega": (1, 5)}, 0),
        ({"heads": (16, 5), "omega": (2, 5)}, 0),
        ({"heads": (16, 1), "omega": (1, 5)}, 0),  # a float
        ({}, 0),
    ],
)
def test_attributes(fields: dict[str, tuple[int, int]], made: int, plugin: ctypes.CDLL) -> None:
    count = len(fields)
    names = (ctypes.c_char_p * count)(*(name.encode() for name in fields))
    values, types = ((ctypes.c_int32 * count)(*(f[i] for f in fields.values())) for i in (0, 1))
    assert plugin.makes(names, values, types, count) == made


def test_the_creator_tells_its_attributes(plugin: ctypes.CDLL) -> None:
    plugin.name_of_field.restype = ctypes.c_char_p
    assert [plugin.name_of_field(i) for i in range(3)] == [b"heads", b"omega", None]
    assert plugin.getCreators is not None  # TensorRT looks for both by name
    assert plugin.setLoggerFinder is not None


@pytest.mark.skipif("TENSORRT_ROOT" not in os.environ, reason="wants TensorRT's headers: TENSORRT_ROOT")
def test_it_compiles_against_the_real_header(tmp_path: Path) -> None:
    cuda = Path(os.environ.get("CUDA_HOME", "/usr/local/cuda"))
    # The header's own warnings are not ours.
    includes = [f"-isystem{Path(os.environ['TENSORRT_ROOT']) / 'include'}", f"-isystem{cuda / 'include'}"]
    ours = [f"-I{ROOT / 'csrc' / part}" for part in ("include", "tensorrt")]
    command = ["c++", *FLAGS, *ours, *includes, "-c", str(PLUGIN), "-o", str(tmp_path / "plugin.o")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(shutil.which("cmake") is None, reason="needs cmake")
@pytest.mark.parametrize("header", [False, True])
def test_cmake_says_what_the_plugin_wants(header: bool, tmp_path: Path) -> None:
    """The header, and the kernels."""
    import pybind11

    if header:
        (tmp_path / "include").symlink_to(DOUBLE)
    options = {"RDN_CUDA": "off", "TENSORRT_ROOT": tmp_path, "pybind11_DIR": pybind11.get_cmake_dir()}
    command = ["cmake", "-S", str(ROOT), "-B", str(tmp_path / "build"), *(f"-D{k}={v}" for k, v in options.items())]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    kernels = "the plugin wants the CUDA kernels' sources: RDN_CUDA=on"
    wanted = kernels if header else "which has no include/NvInferRuntime.h"
    assert wanted in " ".join(done.stderr.split())


# The graph


class RdnRelation(OpRun):
    """The plugin, from its definition."""

    op_domain = "rdn_engine"

    def _run(self, *inputs: Array, heads: int, omega: int, **_: Any) -> tuple[Array, ...]:
        query, boxes, keys, values, support_boxes, multiplicity, wg, bg, value_bias = inputs
        assert len(bg) == heads
        rows = np.arange(len(keys))
        out = reference_relation.relation(query, boxes, keys, values, support_boxes, rows, multiplicity, wg, bg)
        found = ((out + value_bias).astype(np.float32),)
        if not omega:
            return found
        weights = reference_relation.softmax_weights(query, boxes, keys, support_boxes, multiplicity, wg, bg)
        return (*found, weights.mean(0).astype(np.float32))


def feeds_of(graph: onnx.GraphProto) -> dict[str, Array]:
    rng, sizes = np.random.default_rng(0), {"rows": 7, "supports": 12, "advanced": 5}
    feeds: dict[str, Array] = {}
    for value in graph.input:
        shape = [d.dim_value or sizes[d.dim_param] for d in value.type.tensor_type.shape.dim]
        array = rng.standard_normal(shape)
        if value.name.endswith("boxes"):
            array = reference_relation.boxes_of_kind(rng, shape[0], "any")
        if value.name.endswith("multiplicity"):
            array = np.log(rng.integers(1, 4, shape))
        feeds[value.name] = array.astype(np.float32)
    return feeds


def assert_equal_graphs(plain: onnx.ModelProto, made: bytes) -> None:
    model = onnx.load_from_string(made)
    onnx.checker.check_model(model)
    sides = [
        [(v.name, [d.dim_value or d.dim_param for d in v.type.tensor_type.shape.dim]) for v in values]
        for m in (plain, model)
        for values in (m.graph.input, m.graph.output)
    ]
    assert sides[:2] == sides[2:]
    feeds = feeds_of(plain.graph)
    wanted = ort.InferenceSession(plain.SerializeToString(), providers=["CPUExecutionProvider"]).run(None, feeds)
    got = ReferenceEvaluator(model, new_ops=[RdnRelation]).run(None, feeds)
    for a, b in zip(got, wanted, strict=True):
        assert np.abs(a - b).max() <= 1e-4 * np.abs(b).max()


def test_the_graph_of_plugins_computes_what_the_plain_one_does() -> None:
    bundle = Bundle.open(ENGINES)
    made = relation_with_plugin(bundle.config, bundle.arrays("weights"))
    assert_equal_graphs(onnx.load(ENGINES / GRAPHS["relation"]), made)
    nodes = [n.op_type for n in onnx.load_from_string(made).graph.node]
    assert nodes.count("RdnRelation") == bundle.config.relation.num_modules
    assert {"Softmax", "Sin", "MatMul"}.isdisjoint(nodes)
    assert relation_with_plugin(bundle.config, bundle.arrays("weights")) == made  # its hash names the plan


@pytest.mark.parametrize(
    "relation",
    [
        RelationConfig(dim=32, heads=2, num_basic=0),
        RelationConfig(dim=32, heads=2, num_basic=1, advanced=False),
    ],
)
def test_it_is_made_for_every_kind_of_model(relation: RelationConfig, tmp_path: Path) -> None:
    config = replace(
        Bundle.open(ENGINES).config, relation=relation, backbone=BackboneConfig("resnet18", width=0.25, norm="batch")
    )
    model = RDN(config).eval()
    draw_relation(model.relation)
    export_graph(describe(model)["relation"], "relation", tmp_path / "relation.onnx")
    state = model.relation.state_dict()
    weights = {name: state[name].numpy() for name in fused_shapes(config)}
    assert_equal_graphs(onnx.load(tmp_path / "relation.onnx"), relation_with_plugin(config, weights))


def test_a_model_without_relations_has_no_such_graph() -> None:
    single = RelationConfig(dim=32, heads=2, num_basic=0, advanced=False)
    with pytest.raises(ConfigError, match="no relation module"):
        relation_with_plugin(RDNConfig(("a",), relation=single), {})
