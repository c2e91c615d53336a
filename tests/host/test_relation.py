"""The relation executors against the definition."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from rdn_engine import BackendUnavailable, BundleError, ConfigError
from rdn_engine.bundle.contract import fused_shapes
from rdn_engine.config import Dials, RDNConfig, RelationConfig
from rdn_engine.host.features import EncodedFrame, SupportPool
from rdn_engine.host.relation import FusedRelation, Relation
from rdn_engine.host.relation_graph import GraphRelation
from rdn_engine.host.window import Window
from rdn_engine.kernels import _C, cpu
from rdn_engine.kernels.cpu.arrays import Float
from tests.fakes import FakeGraph, random_boxes, relation_weights, tiny_config
from tests.reference_relation import relation_stage

Weights = dict[str, Float]
INPUTS = ("features", "query", "boxes", "support_boxes", "keys", "values", "log_multiplicity")
ADVANCED_INPUTS = ("advanced_boxes", "advanced_features", "advanced_query", "advanced_log_multiplicity")


def linear(weights: Weights, name: str, x: Float) -> Float:
    return (x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]).astype(np.float32)


def encode(weights: Weights, config: RelationConfig, x: Float) -> dict[str, Float]:
    """What the roi_head graph makes of features x [n, D], every row a support row."""
    cached = range(config.num_cached)
    first = 0 if config.num_basic else config.num_cached
    empty = np.zeros((len(x), 0), np.float32)
    return {
        "query": linear(weights, f"rel.{first}.query", x) if config.num_modules else empty,
        "keys": np.stack([x @ weights[f"rel.{i}.key.weight"].T for i in cached]) if cached else x[None][:0],
        "values": np.stack([x @ weights[f"rel.{i}.value.weight"].T for i in cached]) if cached else x[None][:0],
        "refine_query": linear(weights, f"rel.{config.num_basic}.query", x) if config.advanced else empty,
    }


def to_bfloat16(x: Float) -> Float:
    bits = x.view(np.uint32)
    return (bits + 0x7FFF + (bits >> 16 & 1) & np.uint32(0xFFFF0000)).view(np.float32)


def case(
    config: RDNConfig,
    weights: Weights,
    n: int,
    seed: int,
    rows: int = 40,
    products: cpu.Precision = "float32",
    ring: cpu.RingPrecision = "float32",
    rounded: bool = False,
) -> tuple[Any, ...]:
    """Reference arrays and the pool of a window whose ring holds more frames and proposals, with repeats counted.

    Also the positions of the advanced proposals in the pool. rounded: to bfloat16, before the ring takes it.
    """
    rng = np.random.default_rng(seed)
    r = config.relation
    dials = Dials(window=2, num_support=9, num_reference=9, advanced_ratio=0.34, edges="clip")
    window = Window(r, replace(dials, window=4, num_support=16, num_reference=16), products, ring)
    cuts = np.linspace(0, rows, 6).astype(int)  # 5 of the 6 frames are looked at
    for k in [*np.diff(cuts), 16]:
        x = np.maximum(rng.normal(0, 1, (k, r.dim)), 0).astype(np.float32)
        objectness = np.sort(rng.random(k, np.float32))[::-1]
        kept = {"features": x, **encode(weights, r, x)}
        if rounded:
            kept = {name: to_bfloat16(array) for name, array in kept.items()}
        window.append(EncodedFrame(random_boxes(rng, k), objectness, **kept))
    pool = window.pool(2, dials)
    pool = replace(
        pool,
        repeats=rng.integers(1, 4, len(pool.repeats)).astype(np.float32),
        advanced_multiplicity=rng.integers(1, 4, len(pool.advanced_rows)).astype(np.float32),
    )
    chosen = np.array([pool.rows.tolist().index(row) for row in pool.advanced_rows], np.int64)
    features = np.maximum(rng.normal(0, 1, (n, r.dim)), 0).astype(np.float32)
    return random_boxes(rng, n), features, encode(weights, r, features)["query"], pool, chosen


def expected(config: RDNConfig, weights: Weights, boxes: Float, features: Float, pool: SupportPool, chosen: Any) -> Any:
    return relation_stage(
        weights,
        config.relation,
        features,
        boxes,
        pool.features[pool.rows],
        pool.boxes[pool.rows],
        pool.multiplicity,
        chosen,
        pool.advanced_multiplicity,
    )


def reference_graph(config: RDNConfig, weights: Weights) -> FakeGraph:
    """The relation graph, computed by the definition: it recovers the support features from their keys."""
    r = config.relation

    def run(**feeds: NDArray[Any]) -> dict[str, NDArray[Any]]:
        features = feeds["features"]
        support, chosen, counts, advanced_counts = features[:0], np.arange(0), None, None
        support_boxes = feeds["boxes"][:0] if "boxes" in feeds else np.zeros((0, 4))
        if r.num_cached:
            support = np.linalg.solve(np.float64(weights["rel.0.key.weight"]), np.float64(feeds["keys"][0]).T).T
            support_boxes, counts = feeds["support_boxes"], np.exp(feeds["log_multiplicity"])
        if r.advanced:
            distance = np.abs(support[None] - feeds["advanced_features"][:, None]).sum(-1)
            chosen, advanced_counts = distance.argmin(1), np.exp(feeds["advanced_log_multiplicity"])
            np.testing.assert_array_equal(support_boxes[chosen], feeds["advanced_boxes"])
        boxes = feeds.get("boxes", support_boxes)
        stage = relation_stage(weights, r, features, boxes, support, support_boxes, counts, chosen, advanced_counts)
        return {name: stage[name].astype(np.float32) for name in ("logits", "deltas", "omega") if name in stage}

    inputs = ("features",)
    if r.num_modules:
        inputs = INPUTS + (ADVANCED_INPUTS if r.advanced else ())
    return FakeGraph(inputs, ("logits", "deltas", *(("omega",) if r.num_basic else ())), run)


CONFIGS = [
    RelationConfig(32, 2, num_basic=2, advanced=True, advanced_fc=True),
    RelationConfig(32, 1, num_basic=1, advanced=True, advanced_fc=False),
    RelationConfig(32, 2, num_basic=3, advanced=False),
    RelationConfig(32, 2, num_basic=0, advanced=True),
    RelationConfig(32, 2, num_basic=0, advanced=False),
]


@pytest.mark.parametrize("relation", CONFIGS)
@pytest.mark.parametrize("executor", ["fused", "graph"])
@pytest.mark.parametrize("n", [1, 7])
def test_executors_compute_the_definition(relation: RelationConfig, executor: str, n: int) -> None:
    config = tiny_config(relation)
    weights = relation_weights(config)
    boxes, features, query, pool, chosen = case(config, weights, n, seed=n)
    wanted = expected(config, weights, boxes, features, pool, chosen)
    run: Relation = FusedRelation(config, weights, 1)
    if executor == "graph":
        run = GraphRelation(config, reference_graph(config, weights))
    found = run(boxes, features, query, pool, (3, 9))
    np.testing.assert_allclose(found.logits, wanted["logits"], atol=1e-3, rtol=1e-3)
    np.testing.assert_allclose(found.deltas, wanted["deltas"], atol=1e-3, rtol=1e-3)
    assert found.logits.dtype == found.deltas.dtype == np.float32
    if relation.num_basic:
        assert found.omega is not None
        np.testing.assert_allclose(found.omega, wanted["omega"][:, 3:9], atol=1e-4)
    else:
        assert found.omega is None
    assert run(boxes, features, query, pool).omega is None


@pytest.mark.skipif(_C.isa != "avx512_bf16", reason="the processor has no bfloat16 products")
def test_bfloat16_computes_nearly_the_definition() -> None:
    """Rounding to 8 bits: seen 2e-3."""
    config = tiny_config(RelationConfig(128, 8))
    weights = relation_weights(config)
    boxes, features, query, pool, chosen = case(config, weights, 40, seed=0)
    wanted = expected(config, weights, boxes, features, pool, chosen)
    pool = case(config, weights, 40, seed=0, products="bfloat16")[3]
    found = FusedRelation(config, weights, 1, "bfloat16")(boxes, features, query, pool)
    for name in ("logits", "deltas"):
        error = np.linalg.norm(getattr(found, name) - wanted[name]) / np.linalg.norm(wanted[name])
        assert 1e-5 < error < 1e-2


def test_a_float16_ring_gives_nearly_the_definition() -> None:
    """Rounding to 11 bits; with the same rows rounded to bfloat16's 8 the error is several times larger."""
    config = tiny_config(RelationConfig(128, 8))
    weights = relation_weights(config)
    boxes, features, query, pool, chosen = case(config, weights, 40, seed=0)
    wanted = expected(config, weights, boxes, features, pool, chosen)
    run = FusedRelation(config, weights, 1)
    errors = {}
    for kept in ("float16", "bfloat16"):
        ring: cpu.RingPrecision = "float16" if kept == "float16" else "float32"
        pool = case(config, weights, 40, seed=0, ring=ring, rounded=kept == "bfloat16")[3]
        found = run(boxes, features, query, pool)
        errors[kept] = np.linalg.norm(found.logits - wanted["logits"]) / np.linalg.norm(wanted["logits"])
    assert 1e-5 < errors["float16"] < 2e-3
    assert errors["bfloat16"] > 3 * errors["float16"]


def test_the_graph_reads_a_float16_ring_in_float32() -> None:
    config = tiny_config(RelationConfig(128, 8))
    weights = relation_weights(config)
    boxes, features, query, pool, _ = case(config, weights, 5, seed=0, ring="float16")
    single = case(config, weights, 5, seed=0)[3]
    real, fed = reference_graph(config, weights), {}

    def run(**feeds: NDArray[Any]) -> dict[str, NDArray[Any]]:
        fed.update(feeds)
        return {name: np.zeros((5, 1), np.float32) for name in real.outputs}

    GraphRelation(config, FakeGraph(real.inputs, real.outputs, run))(boxes, features, query, pool)
    keys, values = single.plain()
    rows = single.queries(single.advanced_rows)
    exact = {"keys": keys, "values": values, "advanced_query": rows.query, "advanced_features": rows.residual}
    for name, array in exact.items():
        assert fed[name].dtype == np.float32
        np.testing.assert_array_equal(fed[name], array.astype(np.float16))


def test_a_precision_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    config = tiny_config()
    with pytest.raises(ConfigError, match="relation_precision is 'float16'; wanted 'float32' or 'bfloat16'"):
        FusedRelation(config, {}, 1, "float16")  # type: ignore[arg-type]
    monkeypatch.setattr(_C, "isa", "avx2")
    with pytest.raises(BackendUnavailable, match="wants the kernels of avx512_bf16; here are those of avx2"):
        FusedRelation(config, relation_weights(config), 1, "bfloat16")


@pytest.mark.parametrize("relation", CONFIGS)
def test_a_frame_without_proposals_has_outputs_without_rows(relation: RelationConfig) -> None:
    config = tiny_config(relation)
    weights = relation_weights(config)
    boxes, features, query, pool, _ = case(config, weights, 0, seed=0)
    graph = reference_graph(config, weights)
    for run in (FusedRelation(config, weights, 1), GraphRelation(config, graph)):
        found = run(boxes, features, query, pool, (2, 6))
        assert (found.logits.shape, found.deltas.shape) == ((0, 3), (0, 12))
        assert (found.omega is None) if not relation.num_basic else (found.omega.shape == (0, 4))


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 10**6), st.integers(1, 6), st.integers(2, 60), st.sampled_from(CONFIGS[:4]))
def test_fused_computes_the_definition_at_any_size(seed: int, n: int, rows: int, relation: RelationConfig) -> None:
    config = tiny_config(relation)
    weights = relation_weights(config, seed)
    boxes, features, query, pool, chosen = case(config, weights, n, seed, rows)
    found = FusedRelation(config, weights, 1)(boxes, features, query, pool)
    wanted = expected(config, weights, boxes, features, pool, chosen)
    np.testing.assert_allclose(found.logits, wanted["logits"], atol=5e-3, rtol=5e-3)
    np.testing.assert_allclose(found.deltas, wanted["deltas"], atol=5e-3, rtol=5e-3)


@pytest.mark.parametrize("relation", CONFIGS)
def test_no_support_adds_nothing(relation: RelationConfig) -> None:
    config = tiny_config(relation)
    weights = relation_weights(config)
    boxes, features, query, pool, _ = case(config, weights, 5, seed=0, rows=0)
    assert len(pool.rows) == 0
    found = FusedRelation(config, weights, 1)(boxes, features, query, pool)
    x = features
    for i in range(relation.num_basic - 1):
        x = np.maximum(linear(weights, f"basic_fc.{i}", x), 0)
    np.testing.assert_allclose(found.logits, linear(weights, "classify", x), rtol=1e-5, atol=1e-5)


def test_the_inputs_are_left_as_they_were() -> None:
    config = tiny_config()
    weights = relation_weights(config)
    arguments = case(config, weights, 6, seed=1)
    twin = case(config, weights, 6, seed=1)
    FusedRelation(config, weights, 1)(*arguments[:4])
    for a, b in zip(arguments[:3], twin[:3], strict=True):
        np.testing.assert_array_equal(a, b)
    for name, array in vars(arguments[3]).items():
        if name != "refinement":
            np.testing.assert_array_equal(array, getattr(twin[3], name))


@pytest.mark.parametrize("relation", CONFIGS)
def test_every_array_of_the_weights_matters_and_no_other(relation: RelationConfig) -> None:
    config = tiny_config(relation)
    everything = relation_weights(config)
    arguments = case(config, everything, 7, seed=3)[:4]
    read = {name: everything[name] for name in fused_shapes(config)}
    wanted = FusedRelation(config, everything, 1)(*arguments)

    def same(weights: Weights) -> bool:
        arguments[3].refinement.forget()  # its sums belong to other weights
        found = FusedRelation(config, weights, 1)(*arguments)
        return np.array_equal(found.logits, wanted.logits) and np.array_equal(found.deltas, wanted.deltas)

    assert same(read), "the arrays that older bundles hold besides are ignored"
    for name, array in read.items():
        assert not same(read | {name: np.full_like(array, np.nan)}), name


def test_a_relation_graph_that_does_not_fit_is_refused() -> None:
    with pytest.raises(BundleError, match="graph relation has inputs"):
        GraphRelation(tiny_config(), FakeGraph(("picture",), ("logits", "deltas", "omega"), dict))
    with pytest.raises(BundleError, match="graph relation has inputs"):
        GraphRelation(tiny_config(), FakeGraph(("features",), ("logits",), dict))
