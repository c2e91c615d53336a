"""The ring and the queue against a list that forgets nothing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rdn_engine.config import Dials, RelationConfig
from rdn_engine.errors import ConfigError
from rdn_engine.host.features import EncodedFrame
from rdn_engine.host.window import Window
from rdn_engine.kernels import cpu
from rdn_engine.kernels.cpu.arrays import Float
from rdn_engine.stream.order import span
from tests.fakes import encoded
from tests.reference import sample_advanced

CONFIG = RelationConfig(dim=16, heads=1, num_basic=1)


def frame(t: int, n: int, k: int, config: RelationConfig, rng: np.random.Generator) -> EncodedFrame:
    """Frame t with n random proposals, of which k serve as support; channel 0 says t, channel 1 the proposal."""

    def noise(like: Float) -> Float:
        return rng.random(like.shape, np.float32)

    plain = encoded(t, n, min(n, k), config)
    return replace(
        plain,
        boxes=noise(plain.boxes),
        objectness=np.sort(rng.choice([0.1, 0.2, 0.3, 0.4], n).astype(np.float32))[::-1],
        query=noise(plain.query),
        keys=noise(plain.keys),
        values=noise(plain.values),
        refine_query=noise(plain.refine_query),
    )


def frames_of_window(t: int, last: int, dials: Dials) -> list[int]:
    """One entry for every place of the window, as the paper and the public checkpoints fill it."""
    wanted = range(t - dials.window, t + dials.frames_ahead + 1)
    if dials.edges == "replicate":
        return [min(max(j, 0), last) for j in wanted]
    return [j for j in wanted if 0 <= j <= last]


@st.composite
def some_dials(draw: st.DrawFn, capacity: Dials) -> Dials:
    window = draw(st.integers(0, capacity.window))
    num_support = draw(st.integers(1, capacity.num_support))
    return Dials(
        window=window,
        look_ahead=draw(st.none() | st.integers(0, window)),
        num_support=num_support,
        num_reference=draw(st.integers(num_support, capacity.num_reference)),
        advanced_ratio=draw(st.sampled_from([1 / num_support, 0.5, 1.0]).filter(lambda r: int(num_support * r) >= 1)),
        sampling=draw(st.sampled_from(["per_frame", "global"])),
        edges=draw(st.sampled_from(["replicate", "clip"])),
    )


@settings(deadline=None, max_examples=80)
@given(st.data())
def test_every_pool_is_the_one_of_a_list_that_forgets_nothing(data: st.DataObject) -> None:
    """Dials change at every step; frames have any number of proposals, zero included; the epoch ends at a flush."""
    capacity = Dials(window=data.draw(st.integers(0, 3), "T"), num_support=4, num_reference=6, advanced_ratio=0.5)
    advanced = data.draw(st.booleans(), "advanced")
    config = replace(CONFIG, advanced=advanced)
    window = Window(config, capacity)
    rng = np.random.default_rng(0)
    kept: list[EncodedFrame] = []
    due = 0

    def check(t: int, dials: Dials) -> None:
        last = len(kept) - 1
        places = frames_of_window(t, last, dials)
        wanted = sorted(set(places))
        assert list(span(t, window.newest, dials)) == wanted
        pool = window.pool(t, dials)
        parts = [kept[j] for j in wanted]
        takes = [min(len(f.refine_query), dials.num_support) for f in parts]
        counts = np.repeat([places.count(j) for j in wanted], takes)
        np.testing.assert_array_equal(pool.multiplicity, counts)
        for name in ("boxes", "features", "refine_query"):
            rows = np.concatenate([getattr(f, name)[:k] for f, k in zip(parts, takes, strict=True)])
            np.testing.assert_array_equal(getattr(pool, name)[pool.rows], rows)
        plain = dict(zip(("keys", "values"), pool.plain(), strict=True))
        for name in ("keys", "values"):
            rows = np.concatenate([getattr(f, name)[:, :k] for f, k in zip(parts, takes, strict=True)], 1)
            np.testing.assert_array_equal(plain[name], rows)
        if advanced:
            objectness = np.concatenate([f.objectness[:k] for f, k in zip(parts, takes, strict=True)])
            starts = [0, *np.cumsum(takes).tolist()]
            taken = sample_advanced(
                objectness, counts, starts, dials.advanced_ratio, dials.num_support, dials.sampling
            )  # fmt: skip
        else:
            taken = {}
        np.testing.assert_array_equal(pool.advanced_rows, pool.rows[list(taken)])
        np.testing.assert_array_equal(pool.advanced_multiplicity, list(taken.values()))
        reference = window.reference(t, dials.num_reference)
        for name in ("boxes", "features", "query"):
            np.testing.assert_array_equal(getattr(reference, name), getattr(kept[t], name)[: dials.num_reference])

    for t in range(data.draw(st.integers(1, 10), "frames")):
        dials = data.draw(some_dials(capacity), "dials")
        n = data.draw(st.integers(0, capacity.num_reference), "proposals")
        kept.append(frame(t, n, capacity.num_support, config, rng))
        assert window.append(kept[-1]) == t
        while due + dials.frames_ahead <= t:
            check(due, dials)
            due += 1
    dials = data.draw(some_dials(capacity), "dials")
    for t in range(due, len(kept)):
        check(t, dials)


def test_replicated_edges_of_the_paper_setting() -> None:
    """T = 2 over 6 frames: 0 0 [0] 1 2, ..., 3 4 [5] 5 5."""
    dials = Dials(window=2, num_support=1, num_reference=1, advanced_ratio=1)
    window = Window(CONFIG, dials)
    rng = np.random.default_rng(0)

    def places(t: int) -> list[int]:
        pool = window.pool(t, dials)
        repeated: list[int] = np.repeat(pool.features[pool.rows, 0], pool.multiplicity.astype(int)).astype(int).tolist()
        return repeated

    seen = []
    for t in range(6):
        window.append(frame(t, 1, 1, CONFIG, rng))
        if t >= 2:
            seen.append(places(t - 2))
    seen += [places(4), places(5)]
    assert seen == [
        [0, 0, 0, 1, 2],
        [0, 0, 1, 2, 3],
        [0, 1, 2, 3, 4],
        [1, 2, 3, 4, 5],
        [2, 3, 4, 5, 5],
        [3, 4, 5, 5, 5],
    ]


def test_a_reset_forgets() -> None:
    dials = Dials(window=1, num_support=2, num_reference=2, advanced_ratio=0.5)
    window = Window(CONFIG, dials)
    rng = np.random.default_rng(0)
    for t in range(5):
        window.append(frame(t, 2, 2, CONFIG, rng))
    window.reset()
    assert window.append(frame(7, 1, 2, CONFIG, rng)) == 0
    pool = window.pool(0, dials)
    np.testing.assert_array_equal(pool.features[pool.rows, 0], [7])
    np.testing.assert_array_equal(pool.multiplicity, [3])


def test_a_window_without_any_proposal_is_empty() -> None:
    dials = Dials(window=1, num_support=2, num_reference=2, advanced_ratio=0.5)
    for sampling in ("per_frame", "global"):
        window = Window(CONFIG, dials)
        window.append(frame(0, 0, 2, CONFIG, np.random.default_rng(0)))
        pool = window.pool(0, replace(dials, sampling=sampling))
        assert len(pool.rows) == len(pool.multiplicity) == 0
        assert len(pool.advanced_rows) == len(pool.advanced_multiplicity) == 0
        assert len(window.reference(0, 2).boxes) == 0


@pytest.mark.parametrize(
    ("config", "widths"),
    [
        # numbers of a support row (D + 2 P D + D'), doubles of a row of sums (D + 2 M), numbers of a reference row
        # (D + D')
        (RelationConfig(dim=16, heads=1, num_basic=2), (16 + 6 * 16 + 16, 18, 32)),
        (RelationConfig(dim=16, heads=1, num_basic=1, advanced=False), (16 + 2 * 16, 0, 32)),
        (RelationConfig(dim=16, heads=1, num_basic=0, advanced=False), (16, 0, 16)),
    ],
)
@pytest.mark.parametrize("ring", ["float32", "float16"])
def test_nbytes_is_what_the_capacity_says(
    config: RelationConfig, widths: tuple[int, int, int], ring: cpu.RingPrecision
) -> None:
    dials = Dials(window=3, num_support=4, num_reference=6, advanced_ratio=0.5)
    window = Window(config, dials, ring=ring)
    numbers, doubles, reference = widths
    slots, rows, size = 8, 8 * 16, np.dtype(ring).itemsize
    # r K (2 T + 1) rows of sums, which know their row, their shift (M) and how often they hold each slot
    sums = 14 * (8 * doubles + 8 + 4 + 4 * slots) if config.advanced else 0
    counts = 8 * (slots + 4 + slots) + 4 * config.num_cached * slots
    boxes = 4 * (5 * rows + 4 * 4 * 6)
    assert window.nbytes == size * (rows * numbers + 4 * 6 * reference) + sums + counts + boxes
    before = window.nbytes
    for t in range(20):
        window.append(frame(t, 6, 4, config, np.random.default_rng(t)))
    assert window.nbytes == before


def test_the_paper_s_window_in_float16_takes_less_than_half() -> None:
    """Of the 164.8 MiB that a stream of the paper's dials took when every row of the ring had float64 sums."""
    relation, dials = RelationConfig(), Dials()
    assert Window(relation, dials, ring="float16").nbytes < 0.5 * 164.8 * 2**20
    assert Window(relation, dials).nbytes < 0.9 * 164.8 * 2**20


def test_a_window_that_memory_cannot_hold_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"T = 4096, K = 4096, N = 65536, r = 0.2 does not fit into memory"):
        Window(RelationConfig(dim=2**14, heads=16), Dials(window=4096, num_support=4096, num_reference=2**16))
