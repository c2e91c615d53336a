"""TensorRT without a GPU: graphs compiled by TensorRT-RTX, types against the real bindings, plans kept and rebuilt.

What runs a plan needs a GPU, and is not tested here.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import onnx
import pytest
from typer.testing import CliRunner

from export import float8
from export.calibration import CalibrationFrames
from export.half import convert
from export.int8 import quantize
from rdn_engine.backends import load_backend
from rdn_engine.backends.tensorrt import library as tensorrt_library
from rdn_engine.backends.tensorrt.backend import PlanBuilder
from rdn_engine.backends.tensorrt.plans import Limits, PlanCache, graph_hash
from rdn_engine.bundle.directory import Bundle
from rdn_engine.bundle.manifest import GRAPHS
from rdn_engine.cli import app as cli
from rdn_engine.cli.exits import NO_BACKEND, USAGE
from rdn_engine.errors import BackendUnavailable, BundleError
from scripts.tensorrt_stubs import write_stubs
from training.data.synthetic import SyntheticVideos

ROOT = Path(__file__).parents[3]
ENGINES = ROOT / "models" / "rdn_tiny" / "engines"
LIMITS = Limits(2, 128, 224, 224, proposals=64, support=24, window=17, refined=6)
BINDINGS = ("10.16.1.11", "11.4.0.106")
CHECKED = ("rdn_engine/backends/tensorrt/backend.py", "rdn_engine/backends/tensorrt/library.py")


# Graphs in TensorRT-RTX


@pytest.fixture(scope="module")
def builder(tmp_path_factory: pytest.TempPathFactory) -> PlanBuilder:
    return PlanBuilder("tensorrt_rtx", PlanCache(tmp_path_factory.mktemp("plans")))


@pytest.fixture(scope="module")
def quantized(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """rdn_tiny in the int8 that TensorRT takes."""
    directory = tmp_path_factory.mktemp("int8")
    quantize(ENGINES, directory, Bundle.open(ENGINES).config, calibration(), lambda step: None, symmetric=True)
    return directory


@pytest.fixture(scope="module")
def of_codes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """rdn_tiny in fp8."""
    directory, emulated = tmp_path_factory.mktemp("fp8"), tmp_path_factory.mktemp("emulated")
    float8.quantize(ENGINES, directory, emulated, Bundle.open(ENGINES).config, calibration(), lambda step: None)
    return directory


def calibration() -> CalibrationFrames:
    return CalibrationFrames(list(SyntheticVideos("calibration", num_videos=1, num_frames=2)[0].frames), [])


@pytest.mark.parametrize("role", GRAPHS)
@pytest.mark.parametrize("precision", ["float32", "fp16", "bf16"])
def test_every_graph_compiles_in_every_floating_precision(role: str, precision: str, builder: PlanBuilder) -> None:
    model = onnx.load(ENGINES / GRAPHS[role])
    if precision != "float32":
        model = convert(model, "fp16" if precision == "fp16" else "bf16")
    steps: list[str] = []
    plan = builder.compile(model.SerializeToString(), GRAPHS[role], LIMITS, steps.append)
    exact = sum(t.ByteSize() for t in onnx.load(ENGINES / GRAPHS[role]).graph.initializer)
    # The weights are in it: whole, or half of them.
    assert len(plan) > (exact if precision == "float32" else exact / 2)
    assert steps[0].startswith(GRAPHS[role])


@pytest.mark.parametrize("role", ["backbone", "roi_head"])
def test_quantised_graphs_compile(role: str, quantized: Path, builder: PlanBuilder) -> None:
    graph = onnx.load(quantized / GRAPHS[role])
    kinds = {t.name: t.data_type for t in graph.graph.initializer}
    nodes = [n for n in graph.graph.node if n.op_type == "QuantizeLinear"]
    assert nodes
    assert {kinds[n.input[2]] for n in nodes} == {onnx.TensorProto.INT8}
    assert builder.compile(graph.SerializeToString(), GRAPHS[role], LIMITS)


@pytest.mark.parametrize("role", GRAPHS)
def test_graphs_of_codes_compile(role: str, of_codes: Path, builder: PlanBuilder) -> None:
    graph = onnx.load(of_codes / GRAPHS[role])
    kinds = {t.name: t.data_type for t in graph.graph.initializer}
    nodes = [n for n in graph.graph.node if n.op_type == "QuantizeLinear"]
    assert bool(nodes) == (role != "relation")
    assert {kinds[n.input[2]] for n in nodes} <= {onnx.TensorProto.FLOAT8E4M3FN}
    assert builder.compile(graph.SerializeToString(), GRAPHS[role], LIMITS)


def test_a_graph_that_does_not_parse_is_named(builder: PlanBuilder) -> None:
    with pytest.raises(BundleError, match=r"tensorrt_rtx 1\.\d.* cannot parse broken\.onnx: .+"):
        builder.compile(b"no graph at all", "broken.onnx", LIMITS)
    model = onnx.load(ENGINES / GRAPHS["roi_head"])
    model.graph.node[0].op_type = "NoSuchOperator"
    with pytest.raises(BundleError, match=r"cannot parse odd\.onnx: .*NoSuchOperator"):
        builder.compile(model.SerializeToString(), "odd.onnx", LIMITS)
    model = onnx.load(ENGINES / GRAPHS["roi_head"])
    for value in (*model.graph.input, *model.graph.output):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param == "rows":
                dim.dim_param = "lines"
    with pytest.raises(BundleError, match=r"axis 0 of pooled is called 'lines'; wanted \["):
        builder.compile(model.SerializeToString(), "renamed.onnx", LIMITS)


def test_ctrl_c_ends_a_build(builder: PlanBuilder) -> None:
    def interrupt(step: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises((KeyboardInterrupt, BundleError)):
        builder.compile((ENGINES / GRAPHS["roi_head"]).read_bytes(), "roi_head.onnx", LIMITS, interrupt)


def run(*arguments: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(cli.app, list(arguments), env={"COLUMNS": "300"})
    return result.exit_code, result.stdout, result.stderr


def test_the_build_command_builds_once_for_each_set_of_limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RDN_ENGINE_CACHE", str(tmp_path))
    build = ("build", str(ENGINES), "--backend", "tensorrt_rtx")
    code, printed, _ = run(*build)
    assert (code, printed.count("built")) == (0, 3)
    assert len(list(tmp_path.glob("*.plan"))) == 3
    code, printed, _ = run(*build)
    assert (code, printed.count("was there")) == (0, 3)
    # A damaged plan counts as none.
    damaged = max(tmp_path.glob("*.plan"))
    damaged.write_bytes(damaged.read_bytes()[:-1])
    code, printed, _ = run(*build)
    assert (code, printed.count("was there"), printed.count("built")) == (0, 2, 1)


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (("--size", "7by3"), USAGE, "size is '7by3'; wanted HEIGHTxWIDTH"),
        (("--batch", "0"), USAGE, "batch of a plan is 0"),
        (("--ratio", "2"), USAGE, "ratio 2; wanted"),
        (("--backend", "tensorrt"), NO_BACKEND, "'tensorrt' cannot be loaded"),
        (("--backend", "onnxruntime"), NO_BACKEND, "compiles nothing"),
        (("--relation", "plugin"), NO_BACKEND, "no relation plugin for tensorrt_rtx; build it with RDN_CUDA=on"),
    ],
)
def test_what_cannot_be_built_is_one_message(options: tuple[str, ...], code: int, message: str) -> None:
    if options[-1] == "tensorrt" and _installed("tensorrt"):
        pytest.skip("TensorRT is installed here")
    got, _, said = run("build", str(ENGINES), "--backend", "tensorrt_rtx", *options)
    assert got == code
    assert message in said


def _installed(name: str) -> bool:
    try:
        tensorrt_library.Library(name)
    except BackendUnavailable:
        return False
    return True


# Types


@pytest.mark.parametrize("version", BINDINGS)
def test_types_are_those_of_the_real_bindings(version: str, pytestconfig: pytest.Config, tmp_path: Path) -> None:
    directory = pytestconfig.cache.mkdir("tensorrt-stubs") / version
    if not (directory / "tensorrt" / "__init__.pyi").exists():
        write_stubs(version, directory)
    wrong = tmp_path / "wrong.py"
    wrong.write_text(
        "import tensorrt as trt\n\n\ndef f(builder: trt.Builder, network: trt.INetworkDefinition) -> int:\n"
        "    plan = builder.build_serialized_network(network, builder.create_builder_config())\n"
        "    return plan.nbytes + network.no_such_thing\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "mypy", *CHECKED, str(wrong)],
        cwd=ROOT,
        env=os.environ | {"MYPYPATH": str(directory)},
        capture_output=True,
        text=True,
        check=False,
    )
    errors = [line for line in done.stdout.splitlines() if ": error:" in line]
    assert [e for e in errors if "wrong.py" not in e] == []
    # The stubs are what is checked against: both mistakes are found.
    assert any('"None" of "IHostMemory | None" has no attribute "nbytes"' in e for e in errors)
    assert any('"INetworkDefinition" has no attribute "no_such_thing"' in e for e in errors)


# Libraries that are missing or too old


@pytest.mark.parametrize("name", ["tensorrt", "tensorrt_rtx"])
def test_a_missing_library_says_what_to_install(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(module: str) -> ModuleType:
        raise ImportError(f"lib{module}.so.11 is not here")

    monkeypatch.setattr(tensorrt_library.importlib, "import_module", missing)
    with pytest.raises(BackendUnavailable, match=rf"'{name}' cannot be loaded .*lib{name}\.so\.11.*pip install"):
        tensorrt_library.Library(name)


def test_an_old_library_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    old = ModuleType("tensorrt")
    old.__version__ = "10.9.0.34"  # type: ignore[attr-defined]
    monkeypatch.setattr(tensorrt_library.importlib, "import_module", lambda name: old)
    with pytest.raises(BackendUnavailable, match=r"tensorrt is 10\.9\.0\.34 here; wanted 10\.16 or newer"):
        tensorrt_library.Library("tensorrt")


def test_plans_run_on_cuda_only() -> None:
    with pytest.raises(BackendUnavailable, match="runs on device 'cuda'; got device 'cpu'"):
        load_backend("tensorrt", "cpu", 1)


def fake_tensorrt(loads: list[str], handle: object) -> ModuleType:
    """As much of TensorRT as the library looks at before it compiles anything."""
    module = ModuleType("tensorrt")
    registry = SimpleNamespace(load_library=lambda path: loads.append(path) or handle)

    class Logger:
        Severity = SimpleNamespace(ERROR=1, INTERNAL_ERROR=0)

    for name, value in {"__version__": "11.4.0", "ILogger": Logger, "get_plugin_registry": lambda: registry}.items():
        setattr(module, name, value)
    return module


def test_the_plugin_is_loaded_once_and_its_content_names_the_plans(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library, loads = tmp_path / "librdn_tensorrt.so", []
    monkeypatch.setattr(tensorrt_library, "LIBRARY", library)
    monkeypatch.setattr(tensorrt_library.importlib, "import_module", lambda _: fake_tensorrt(loads, "handle"))
    tensorrt_library._load_plugin.cache_clear()
    assert tensorrt_library.Library("tensorrt").plugin == ""
    tensorrt_library._load_plugin.cache_clear()
    library.write_bytes(b"plugin")
    assert [tensorrt_library.Library("tensorrt").plugin for _ in range(2)] == [graph_hash(b"plugin")] * 2
    assert loads == [str(library)]
    tensorrt_library._load_plugin.cache_clear()
    monkeypatch.setattr(tensorrt_library.importlib, "import_module", lambda _: fake_tensorrt(loads, None))
    with pytest.raises(BackendUnavailable, match=r"tensorrt 11\.4\.0 cannot load librdn_tensorrt\.so; wanted one that"):
        tensorrt_library.Library("tensorrt")
    tensorrt_library._load_plugin.cache_clear()
