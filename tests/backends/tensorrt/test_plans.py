"""Plans: which sizes they are made for, and how they are kept, refused and built again. No TensorRT."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rdn_engine.backends.tensorrt.plans import Limits, Machine, PlanCache, PlanKey, frame_size, graph_hash
from rdn_engine.bundle.directory import Bundle
from rdn_engine.bundle.manifest import GRAPHS
from rdn_engine.config import Dials
from rdn_engine.errors import BackendUnavailable, ConfigError

ENGINES = Path(__file__).parents[3] / "models" / "rdn_tiny" / "engines"
LIMITS = Limits(2, 128, 224, 224, proposals=64, support=24, window=17, refined=6)


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


def test_timings_are_those_of_the_machine(tmp_path: Path) -> None:
    cache = PlanCache(tmp_path)
    assert cache.timings(MACHINE) == b""
    cache.keep_timings(MACHINE, b"measured")
    assert cache.timings(MACHINE) == b"measured"
    assert all(cache.timings(o.machine) == b"" for o in OTHERS[:3])
    [path] = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:-1])
    assert cache.timings(MACHINE) == b""
