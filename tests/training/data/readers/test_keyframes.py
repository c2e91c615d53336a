"""Boxes between keyframes against a frame by frame answer."""

from hypothesis import given
from hypothesis import strategies as st

from training.data.readers.keyframes import Keyframe, at_frames


def by_frame(keyframes, t):
    """Of one frame: the last keyframe at or before it, and the one after"""
    before = [k for k in keyframes if k.t <= t]
    if not before:
        return None
    one = before[-1]
    if one.t == t:
        return (one.box, one.ignore) if one.shown else None
    if not one.alive:
        return None
    after = next((k for k in keyframes if k.t > t), None)
    if after is None:
        return one.box, one.ignore
    part = (t - one.t) / (after.t - one.t)
    return tuple(a + (b - a) * part for a, b in zip(one.box, after.box, strict=True)), one.ignore


@given(
    st.lists(st.tuples(st.integers(0, 20), st.booleans(), st.booleans(), st.integers(0, 90)), max_size=6),
    st.sets(st.integers(0, 25)),
)
def test_every_frame_has_the_box_of_its_stretch(rows, frames):
    keys = {t: Keyframe(t, (float(x), 0.0, x + 9.0, 9.0), alive, shown, x % 2 == 0) for t, alive, shown, x in rows}
    keyframes = [keys[t] for t in sorted(keys)]
    found = {t: (box, ignore) for t, box, ignore in at_frames(keyframes, sorted(frames))}
    assert found == {t: seen for t in sorted(frames) if (seen := by_frame(keyframes, t)) is not None}
