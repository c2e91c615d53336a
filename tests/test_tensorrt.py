"""TensorRT without a GPU: graphs compiled by TensorRT-RTX, types against the real bindings, plans kept and rebuilt.

What runs a plan needs a GPU, and is not tested here.
"""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace

import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from export import float8
from export.calibration import CalibrationFrames
from export.half import convert
from export.int8 import quantize
from rdn_engine import cli
from rdn_engine.backends import load_backend, tensorrt_library
from rdn_engine.backends.plans import Limits, Machine, PlanCache, PlanKey, frame_size, graph_hash
from rdn_engine.backends.tensorrt import PlanBuilder
from rdn_engine.bundle import GRAPHS, Bundle
from rdn_engine.config import Dials
from rdn_engine.errors import BackendUnavailable, BundleError, ConfigError
from scripts.tensorrt_stubs import write_stubs
from training.data.synthetic import SyntheticVideos

ROOT = Path(__file__).parents[1]
ENGINES = ROOT / "models" / "rdn_tiny" / "engines"
LIMITS = Limits(2, 128, 224, 224, proposals=64, support=24, window=17, refined=6)
BINDINGS = ("10.16.1.11", "11.4.0.106")
CHECKED = ("rdn_engine/backends/tensorrt.py", "rdn_engine/backends/tensorrt_library.py")


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
        (("--size", "7by3"), cli.USAGE, "size is '7by3'; wanted HEIGHTxWIDTH"),
        (("--batch", "0"), cli.USAGE, "batch of a plan is 0"),
        (("--ratio", "2"), cli.USAGE, "ratio 2; wanted"),
        (("--backend", "tensorrt"), cli.NO_BACKEND, "'tensorrt' cannot be loaded"),
        (("--backend", "onnxruntime"), cli.NO_BACKEND, "compiles nothing"),
        (("--relation", "plugin"), cli.NO_BACKEND, "no relation plugin for tensorrt_rtx; build it with RDN_CUDA=on"),
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


# Limits


def test_limits_are_those_of_the_dials() -> None:
    config = replace(
        Bundle.open(ENGINES).config,
        dials=Dials(window=18, num_support=75, num_reference=300, advanced_ratio=0.2),
    )
    ranges = Limits.of(config).ranges()
    assert ranges["batch"] == (1, 1, 1)
    assert (ranges["height"], ranges["width"]) == ((16, 128, 224), (16, 224, 224))
    assert ranges["rows"] == (1, 300, 300)
    assert ranges["support_rows"] == (1, 75, 75)
    assert ranges["supports"] == (1, 37 * 75, 37 * 75)
    assert ranges["advanced"] == (1, 37 * 15, 37 * 15)
    ranges = Limits.of(config, batch=4, size=(1920, 1080), proposals=100, support=150, window=2, ratio=0.001).ranges()
    assert (ranges["height"][1], ranges["width"][1]) == config.input.network_size(1920, 1080)
    assert ranges["rows"] == (1, 600, 600)  # never fewer proposals than support
    assert ranges["support_rows"] == (1, 600, 600)
    assert ranges["supports"] == (1, 750, 750)
    assert ranges["advanced"] == (1, 5, 5)
    assert {len(r) for r in ranges.values()} == {3}


@pytest.mark.parametrize("role", GRAPHS)
def test_every_changing_axis_of_the_graphs_has_a_range(role: str) -> None:
    graph = onnx.load(ENGINES / GRAPHS[role]).graph
    axes = {d.dim_param for i in graph.input for d in i.type.tensor_type.shape.dim if d.dim_param}
    assert axes
    assert axes <= LIMITS.ranges().keys()


@given(st.integers(-3, 300), st.integers(-3, 300), st.integers(-3, 40), st.floats(-1, 2))
@settings(deadline=None, max_examples=60)
def test_limits_are_in_order_or_refused(proposals: int, support: int, window: int, ratio: float) -> None:
    config = Bundle.open(ENGINES).config
    try:
        limits = Limits.of(config, proposals=proposals, support=support, window=window, ratio=ratio)
    except ConfigError:
        assert support < 1 or proposals < 1 or window < 0 or not 0 < ratio <= 1
        return
    assert all(1 <= low <= likely <= high for low, likely, high in limits.ranges().values())


@pytest.mark.parametrize("text", ["", "720", "720x", "x1280", "0x5", "-1x5", "7.5x3", "720X1280", "1x2x3"])
def test_a_size_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="wanted HEIGHTxWIDTH"):
        frame_size(text)
    assert frame_size("720x1280") == (720, 1280)


# Plans


MACHINE = Machine("tensorrt", "11.4.0", "H200, sm_90, 132 multiprocessors")
KEY = PlanKey(MACHINE, graph_hash(b"graph"), LIMITS)
OTHERS = [
    replace(KEY, machine=replace(MACHINE, version="11.4.1")),
    replace(KEY, machine=replace(MACHINE, gpu="H200, sm_90, 60 multiprocessors")),
    replace(KEY, machine=replace(MACHINE, library="tensorrt_rtx")),
    replace(KEY, graph=graph_hash(b"another graph")),
    replace(KEY, limits=replace(LIMITS, batch=3)),
    replace(KEY, plugin="ab" * 32),
]


class Compiler:
    """Counts its builds; a plan loads where it says what the machine wants."""

    def __init__(self, wanted: bytes = b"plan") -> None:
        self.builds, self.loads, self.wanted, self.makes = 0, 0, wanted, wanted

    def build(self) -> bytes:
        self.builds += 1
        return self.makes

    def load(self, plan: bytes) -> str | None:
        self.loads += 1
        return "engine" if plan == self.wanted else None

    def obtain(self, cache: PlanCache, key: PlanKey = KEY) -> str:
        return cache.obtain(key, self.build, self.load)


def test_a_plan_is_built_once(tmp_path: Path) -> None:
    cache, compiler = PlanCache(tmp_path / "deep" / "cache"), Compiler()
    assert [compiler.obtain(cache) for _ in range(3)] == ["engine"] * 3
    assert (compiler.builds, compiler.loads) == (1, 3)
    assert cache.has(KEY)


@pytest.mark.parametrize("other", OTHERS)
def test_another_version_gpu_graph_or_limit_has_a_plan_of_its_own(other: PlanKey, tmp_path: Path) -> None:
    cache, compiler = PlanCache(tmp_path), Compiler()
    for key in (KEY, other, KEY, other):
        compiler.obtain(cache, key)
    assert compiler.builds == 2
    assert PlanKey.from_dict(other.to_dict()) == other
    assert other.file != KEY.file


@pytest.mark.parametrize("other", OTHERS)
def test_a_plan_under_the_name_of_another_is_not_taken(other: PlanKey, tmp_path: Path) -> None:
    cache, compiler = PlanCache(tmp_path), Compiler()
    compiler.obtain(cache, other)
    (tmp_path / other.file).rename(tmp_path / KEY.file)
    assert not cache.has(KEY)
    compiler.obtain(cache)
    assert compiler.builds == 2
    assert cache.has(KEY)


@given(data=st.data())
@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_damaged_plan_is_built_again(tmp_path: Path, data: st.DataObject) -> None:
    cache, compiler = PlanCache(tmp_path), Compiler(bytes(range(256)))
    path = cache.store(KEY, compiler.wanted)
    whole = path.read_bytes()
    position = data.draw(st.integers(0, len(whole) - 1))
    cut = data.draw(st.booleans())
    path.write_bytes(
        whole[:position] if cut else whole[:position] + bytes([whole[position] ^ 1]) + whole[position + 1 :]
    )
    assert compiler.obtain(cache) == "engine"
    # What reached the library was what had been written.
    assert compiler.loads == 1
    assert path.read_bytes() == whole


def test_a_plan_that_does_not_load_is_built_again(tmp_path: Path) -> None:
    cache, compiler = PlanCache(tmp_path), Compiler()
    cache.store(KEY, b"from an older driver")
    assert compiler.obtain(cache) == "engine"
    assert (compiler.builds, compiler.loads) == (1, 2)
    compiler.obtain(cache)
    assert compiler.builds == 1


def test_a_new_plan_that_does_not_load_is_an_error_and_is_not_kept(tmp_path: Path) -> None:
    cache, compiler = PlanCache(tmp_path), Compiler()
    compiler.makes = b"broken"
    with pytest.raises(BackendUnavailable, match=r"tensorrt 11\.4\.0 built a plan that it cannot load on H200"):
        compiler.obtain(cache)
    assert list(tmp_path.iterdir()) == []


def test_a_cache_that_cannot_be_written_costs_a_rebuild_only(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("")
    cache, compiler = PlanCache(tmp_path / "file"), Compiler()
    assert [compiler.obtain(cache) for _ in range(2)] == ["engine"] * 2
    assert compiler.builds == 2
    assert "cannot be kept" in caplog.text


def test_loading_takes_the_plan_that_was_built_last(tmp_path: Path) -> None:
    cache = PlanCache(tmp_path)
    assert cache.newest(MACHINE, KEY.graph) is None
    larger = replace(KEY, limits=replace(LIMITS, batch=8))
    for second, key in enumerate((KEY, larger, *OTHERS[:4])):
        os.utime(cache.store(key, b"plan"), (second, second))
    assert cache.newest(MACHINE, KEY.graph) == larger
    os.utime(tmp_path / KEY.file, (100, 100))
    assert cache.newest(MACHINE, KEY.graph) == KEY
    (tmp_path / KEY.file).write_bytes(b"")
    assert cache.newest(MACHINE, KEY.graph) == larger


def test_a_plan_of_plugins_is_taken_where_the_same_plugin_is(tmp_path: Path) -> None:
    cache = PlanCache(tmp_path)
    of_plugins = replace(KEY, plugin="ab" * 32)
    for second, key in enumerate((KEY, of_plugins)):
        os.utime(cache.store(key, b"plan"), (second, second))
    assert cache.newest(MACHINE, KEY.graph, of_plugins.plugin) == of_plugins
    assert cache.newest(MACHINE, KEY.graph) == KEY  # a build without the plugin
    assert cache.newest(MACHINE, KEY.graph, "cd" * 32) == KEY  # with another one
    os.utime(tmp_path / KEY.file, (100, 100))
    assert cache.newest(MACHINE, KEY.graph, of_plugins.plugin) == KEY


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


def test_timings_are_those_of_the_machine(tmp_path: Path) -> None:
    cache = PlanCache(tmp_path)
    assert cache.timings(MACHINE) == b""
    cache.keep_timings(MACHINE, b"measured")
    assert cache.timings(MACHINE) == b"measured"
    assert all(cache.timings(o.machine) == b"" for o in OTHERS[:3])
    [path] = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:-1])
    assert cache.timings(MACHINE) == b""


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
