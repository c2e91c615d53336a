"""The memory of the cosine attention, step by step of a stream, against the float64 definition of each whole window."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from rdn_engine.errors import BundleError, ConfigError
from rdn_engine.host.cosine import CosineWindow
from rdn_engine.host.cosine_branch import CosineBranch, CosineSettings, branch_weights
from tests.cosine_cases import Float, Objects, Proposals, allowed, definition, make_weights, undecided

pytestmark = pytest.mark.isa

SMALL = CosineSettings(dim=32, heads=2)
KINDS = {
    "online": SMALL,
    "without objectness": replace(SMALL, objectness_on_key=False),
    "objectness branch": replace(SMALL, objectness_on_key=False, values="reg", value_similarity=0.9),
    "heads with room": CosineSettings(dim=36, heads=3),  # 12 channels in 16
    "wide": CosineSettings(dim=128, heads=2),  # 64 channels
}


def check(
    kind: CosineSettings,
    weights: dict[str, Float],
    memory: CosineWindow,
    reference: int,
    frames: Sequence[int],
    pushed: Sequence[Proposals],
    most: int | None = None,
) -> None:
    shown = [pushed[frame].first(most) for frame in frames]
    place = list(frames).index(reference)
    begin = sum(len(one.confidence) for one in shown[:place])
    rows = slice(begin, begin + len(shown[place].confidence))
    if not any(len(one.confidence) for one in shown):
        assert memory.relate(reference, frames, most).out.shape == (0, 4 * kind.dim)
        return
    found = definition(kind, weights, shown)
    if undecided(kind, found):
        return
    bound = allowed(kind, weights, found, rows)
    got = memory.stages(reference, frames, most)
    attention = (found["attn_cls"] + found["attn_reg"]).mean(0)[rows] / 2
    assert got.out.dtype == np.float32
    for name, wanted in (
        ("attention", attention),
        ("x", found["x"][rows]),
        ("weights", found["weights2"][rows]),
        ("out", found["out"][rows]),
    ):
        array = getattr(got, name)
        assert array.shape == wanted.shape
        assert (np.abs(array - wanted) <= bound[name]).all(), name
    assert (memory.relate(reference, frames, most).out == got.out).all()
    begin = 0
    for frame, one in zip(frames, shown, strict=True):
        related = memory.relate(reference, frames, most, frame)
        assert (related.out == got.out).all()
        assert related.omega is not None
        assert (related.omega == got.attention[:, begin : begin + len(one.confidence)]).all()
        begin += len(one.confidence)


@pytest.mark.parametrize("kind", KINDS)
@settings(deadline=None, max_examples=6)
@given(seed=st.integers(0, 2**32), behind=st.integers(0, 4), ahead=st.integers(0, 3), threads=st.integers(1, 2))
def test_every_step_of_a_stream_is_the_definition_s(kind, seed, behind, ahead, threads):
    rng, kind = np.random.default_rng(seed), KINDS[kind]
    weights, objects = make_weights(rng, kind), Objects(rng, kind.dim)
    branch = CosineBranch(kind, weights, threads)
    memory = CosineWindow(branch, frames=behind + ahead + 1, proposals=20)
    bytes_before = memory.nbytes
    for _ in range(2):  # two epochs
        pushed = []
        for newest in range(10):
            pushed.append(objects.frame(int(rng.integers(0, 21))))
            assert memory.append(*pushed[-1].arrays) == newest
            if newest >= ahead:
                t = newest - ahead
                check(kind, weights, memory, t, range(max(0, t - behind), newest + 1), pushed)
        for t in range(newest - ahead + 1, newest + 1):  # what is left when the epoch ends
            check(kind, weights, memory, t, range(max(0, t - behind), newest + 1), pushed)
        memory.clear()
    assert memory.nbytes == bytes_before == CosineWindow.nbytes_for(kind, frames=behind + ahead + 1, proposals=20)


@settings(deadline=None, max_examples=10)
@given(seed=st.integers(0, 2**32))
@example(seed=485)  # proposals that are left out would have a boundless attention
def test_frames_may_be_chosen_freely(seed):
    """In any order, with any gaps, with fewer proposals, as dials and the public memory have it."""
    rng = np.random.default_rng(seed)
    weights, objects = make_weights(rng, SMALL), Objects(rng, 32)
    memory, pushed = CosineWindow(CosineBranch(SMALL, weights), frames=8, proposals=16), []
    for newest in range(14):
        pushed.append(objects.frame(int(rng.integers(0, 17))))
        memory.append(*pushed[-1].arrays)
        held = memory.held
        assert held == list(range(max(0, newest - 8), newest + 1))
        frames = rng.permutation(held)[: int(rng.integers(1, 9))].tolist()
        most = None if rng.random() < 0.5 else int(rng.integers(0, 17))
        check(SMALL, weights, memory, int(rng.choice(frames)), frames, pushed, most)


def test_frames_that_are_kept_outlast_newer_ones():
    rng = np.random.default_rng(0)
    weights, objects = make_weights(rng, SMALL), Objects(rng, 32)
    memory, pushed = CosineWindow(CosineBranch(SMALL, weights), frames=3, proposals=16), []
    for newest in range(12):
        pushed.append(objects.frame(7))
        memory.append(*pushed[-1].arrays)
        frames = memory.held
        check(SMALL, weights, memory, newest, frames, pushed)
        memory.keep([0, newest, 99])
        assert memory.held == sorted({0, newest})


def test_a_frame_leaves_nothing_behind():
    """Long after a stream began its sums are those of a fresh one, to what float64 rounds."""
    rng = np.random.default_rng(1)
    weights, objects = make_weights(rng, SMALL), Objects(rng, 32)
    branch, frames = CosineBranch(SMALL, weights), [objects.frame(16) for _ in range(60)]
    old, fresh = (CosineWindow(branch, frames=5, proposals=16) for _ in range(2))
    for t, frame in enumerate(frames):
        old.append(*frame.arrays)
        out = old.relate(t, range(max(0, t - 4), t + 1)).out
    for frame in frames[-5:]:
        fresh.append(*frame.arrays)
    again = fresh.relate(4, range(5)).out
    assert np.abs(out - again).max() <= 4 * 2.0**-24 * np.abs(again).max()


def test_sums_begin_anew_where_a_frame_that_left_was_nearly_all_of_them():
    """A proposal whose key is its neighbours' query, sure of itself, then none but opposite ones: e^50 apart."""
    kind = CosineSettings(dim=16, heads=1)
    rng = np.random.default_rng(2)
    weights = make_weights(rng, kind)
    weights["qkv_cls.weight"][:32] = weights["qkv_reg.weight"][:32] = np.tile(np.eye(16, dtype=np.float32), (2, 1))
    memory = CosineWindow(CosineBranch(kind, weights), frames=3, proposals=4)
    one = rng.standard_normal((1, 16)).astype(np.float32)
    sure, unsure = np.ones(2, np.float32), np.zeros(2, np.float32)
    alike, opposite = np.repeat(one, 2, 0), np.repeat(-one, 2, 0)
    opposite[1] += np.float32(0.01)
    pushed = [
        Proposals(alike, alike, sure, sure),
        Proposals(alike, alike, unsure, unsure),
        *(Proposals(opposite, opposite, sure, sure) for _ in range(4)),
    ]
    for t, frame in enumerate(pushed):
        memory.append(*frame.arrays)
        # The second frame's own keys have no score, so that the first one's weigh e^25 to its 1.
        check(kind, weights, memory, t, range(max(0, t - 2), t + 1), pushed)
    assert t == 5


def test_values_of_no_length_keep_their_own():
    rng = np.random.default_rng(3)
    weights = make_weights(rng, SMALL)
    memory = CosineWindow(CosineBranch(SMALL, weights), frames=2, proposals=4)
    frame = Objects(rng, 32).frame(4)
    frame.features_cls[1] = 0
    memory.append(*frame.arrays)
    found, got = definition(SMALL, weights, [frame]), memory.stages(0, [0])
    assert not undecided(SMALL, found)
    bound = allowed(SMALL, weights, found, slice(4))
    assert (np.abs(got.x - found["x"]) <= bound["x"]).all()
    assert (np.abs(got.out - found["out"]) <= bound["out"]).all()
    assert (got.weights[1] == 0).all()


def test_no_proposals_at_all():
    rng = np.random.default_rng(4)
    memory = CosineWindow(CosineBranch(SMALL, make_weights(rng, SMALL)), frames=2, proposals=4)
    for t in range(4):
        memory.append(*Objects(rng, 32).frame(0).arrays)
        assert memory.relate(t, range(max(0, t - 1), t + 1)).out.shape == (0, 128)


def test_what_is_no_number_goes_with_its_frame():
    """A value can be past float32's range though the features are not."""
    rng = np.random.default_rng(5)
    weights, objects = make_weights(rng, SMALL), Objects(rng, 32)
    memory, pushed = CosineWindow(CosineBranch(SMALL, weights), frames=3, proposals=4), []
    for t in range(9):
        frame = objects.frame(4)
        if t == 2:
            frame.features_cls[0] = np.float32(3e38)
        pushed.append(frame)
        memory.append(*frame.arrays)
        with np.errstate(all="ignore"):
            out = memory.relate(t, range(max(0, t - 2), t + 1)).out
        if 2 <= t <= 4:
            assert not np.isfinite(out).all()
        else:
            check(SMALL, weights, memory, t, range(max(0, t - 2), t + 1), pushed)


def test_threads_change_no_bit():
    kind = CosineSettings(dim=128, heads=4)
    outs = []
    for threads in (1, 2, 5):
        rng = np.random.default_rng(6)
        weights, objects = make_weights(rng, kind), Objects(rng, 128)
        memory = CosineWindow(CosineBranch(kind, weights, threads), frames=6, proposals=75)
        for t in range(8):
            memory.append(*objects.frame(75).arrays)
            out = memory.relate(t, range(max(0, t - 5), t + 1)).out
        outs.append(out)
    assert (outs[0] == outs[1]).all()
    assert (outs[0] == outs[2]).all()


def test_bad_proposals_are_refused_and_change_nothing():
    rng = np.random.default_rng(7)
    weights, objects = make_weights(rng, SMALL), Objects(rng, 32)
    memory = CosineWindow(CosineBranch(SMALL, weights), frames=2, proposals=4)
    memory.append(*objects.frame(4).arrays)
    out = memory.relate(0, [0]).out
    good = objects.frame(3)
    for name, array, message in (
        ("features_cls", good.features_cls[:, :-1], r"features_cls is float32 \[3, 31\]; wanted float32 \[3, 32\]"),
        ("features_reg", good.features_reg[:2], r"features_reg is float32 \[2, 32\]"),
        ("features_reg", good.features_reg.astype(np.float64), "features_reg is float64"),
        ("features_cls", np.full((3, 32), np.nan, np.float32), "features_cls has a number that is not finite"),
        ("confidence", np.float32([0.5, 1.5, 0.2]), r"confidence lies in 0.2..1.5; wanted scores in 0..1"),
        ("objectness", np.float32([0.5, -1, 0.2]), "objectness lies in -1..0.5"),
        ("objectness", np.float32([0.5, np.nan, 0.2]), "objectness has a number that is not finite"),
    ):
        with pytest.raises(BundleError, match=message):
            memory.append(*replace(good, **{name: array}).arrays)
    with pytest.raises(BundleError, match="at most 4 rows"):
        memory.append(*objects.frame(5).arrays)
    assert memory.newest == 0
    assert (memory.relate(0, [0]).out == out).all()


def test_frames_that_are_not_held_are_refused():
    rng = np.random.default_rng(8)
    memory = CosineWindow(CosineBranch(SMALL, make_weights(rng, SMALL)), frames=1, proposals=4)
    for _ in range(4):
        memory.append(*Objects(rng, 32).frame(2).arrays)
    for reference, frames in ((3, [1, 3]), (3, [2]), (3, [3, 3]), (4, [3, 4])):
        with pytest.raises(ConfigError, match=r"those held: \[2, 3\]"):
            memory.relate(reference, frames)
    with pytest.raises(ConfigError, match=r"weights for frame 2 of the window \[3\]; wanted one of its frames"):
        memory.relate(3, [3], None, 2)


def test_bad_settings_are_refused():
    for wrong, message in (
        ({"dim": 30, "heads": 4}, "dim is 30 with 4 heads; wanted a positive multiple"),
        ({"dim": 0, "heads": 4}, "dim is 0"),
        ({"dim": 32, "values": "both"}, "values is 'both'; wanted 'cls' or 'reg'"),
        ({"dim": 32, "similarity": 1.0}, "similarity is 1.0; wanted a cosine"),
    ):
        with pytest.raises(ConfigError, match=message):
            CosineSettings(**wrong)
    with pytest.raises(ConfigError, match="window of 0 frames"):
        CosineWindow(CosineBranch(SMALL, make_weights(np.random.default_rng(0), SMALL)), frames=0, proposals=4)


def test_weights_go_by_the_public_names():
    weights = make_weights(np.random.default_rng(9), SMALL)
    public = {
        f"head.agg_iou.msa.{name}" if name.startswith("qkv") else f"head.agg_iou.{name.replace('.', '_obj.')}": array
        for name, array in weights.items()
    }
    found = branch_weights(public | {"head.other": weights["linear1.bias"]}, SMALL, "head.agg_iou", "_obj")
    assert all((found[name] == array).all() for name, array in weights.items())
    for name, changed, message in (
        ("head.agg_iou.linear1_obj.bias", None, r"linear1_obj.bias is missing; wanted \[64\]"),
        ("head.agg_iou.msa.qkv_reg.weight", np.zeros((96, 31)), r"qkv_reg.weight is \[96, 31\]; wanted \[96, 32\]"),
    ):
        broken = {n: a for n, a in public.items() if n != name} | ({} if changed is None else {name: changed})
        with pytest.raises(BundleError, match=message):
            branch_weights(broken, SMALL, "head.agg_iou", "_obj")
