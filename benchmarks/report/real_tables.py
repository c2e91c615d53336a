"""Tables of docs/real_videos.md and of self-labels from benchmarks/results, for `report.py`."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import mean

from benchmarks.report import accuracy_tables, store
from benchmarks.report.accuracy_tables import spread
from benchmarks.report.store import Results, table

COLUMNS = ("AP50", "AP", "slow", "medium", "fast")
WINDOW = 8
"""T of the model, in frames"""
SPEEDS = ("slow", "medium", "fast")
HEADS = {"single": "single frames", "rdn": "relations (RDN)"}
LINKS = {
    "seq_nms": "RDN + Seq-NMS",
    "boxes": "RDN + tube linking, no relations",
    "relations": "RDN + tube linking with relations",
    "gaps": "RDN + tube linking, identities over gaps of up to 30 frames",
}
IDENTITIES = ("HOTA", "DetA", "AssA", "IDF1", "switches")


def measured() -> list[Results]:
    """Of each seed for which both heads were measured"""
    every = [store.load(f"real_videos-{seed}.json") for seed in store.seeds("real_videos")]
    return [result for result in every if {"single", "rdn"} <= set(result)]


def stages() -> str:
    """Both heads, and what relations gain seed by seed."""
    known = measured()
    rows = [[title, *(_spread([one[head][c] for one in known]) for c in COLUMNS)] for head, title in HEADS.items()]
    gains = [_gain(one) for one in known]
    rows += [[f"relations less single frames, seed {i}", *_signed(gain)] for i, gain in enumerate(gains)]
    rows.append(["mean", *_signed(_mean_gain(known))])
    val = known[0]["data"]["val"]
    header = [f"{val['images']} frames, {val['annotations']} flies, {store.count(len(known), 'seed')}", *COLUMNS]
    return "\n".join([table(header, rows), "", _source(known)])


def look_ahead() -> str:
    """RDN by look-ahead, mean over the seeds for which it was measured, of the lengths that all of them have."""
    known = [{**one["look_ahead"], str(WINDOW): one["rdn"]} for one in measured() if "look_ahead" in one]
    lengths = [str(length) for length in range(WINDOW + 1) if all(str(length) in one for one in known)]
    rows = [
        [length, *(_mean([one[length][c] for one in known]) for c in COLUMNS), _promised_ahead(int(length))]
        for length in lengths
    ]
    rendered = f"rendered: seed 0 of [accuracy](accuracy.md#dials), {_commit('accuracy/full-0.json')}"
    text = f"Mean of {store.count(len(known), 'seed')}; {rendered}."
    return "\n".join([table(["L", *COLUMNS, "AP50, rendered"], rows), "", text])


def _promised_ahead(ahead: int) -> str:
    settings = accuracy_tables.load("full", 0)["settings"]
    own = settings["own"]["dials"]["window"]
    label = "own" if ahead == own else f"L={ahead}"
    return f"{accuracy_tables.figures(settings[label])['all']:.1f}" if label in settings else ""


def linking() -> str:
    """Each way of linking: AP and how lasting identities are, beside what rendered videos said."""
    known, rendered = measured(), store.load("linking_accuracy.json")["rows"]
    columns = ("AP50", *IDENTITIES)
    rows = [["RDN", _spread([one["rdn"]["AP50"] for one in known]), *[""] * len(IDENTITIES)]]
    for method, title in LINKS.items():
        if all(method in one["linking"] for one in known):
            rows.append([title, *(_spread([one["linking"][method][c] for one in known]) for c in columns)])
    for method, title in LINKS.items():
        if method in rendered:
            cells = [f"{rendered[method][c]:.1f}" for c in columns[:-1]]
            rows.append([f"rendered videos: {title}", *cells, str(rendered[method]["switches"])])
    source = f"rendered: [linking](linking.md), {_commit('linking_accuracy.json')}"
    text = f"{known[0]['identity']}. {store.count(len(known), 'seed')}, linked over the whole video; {source}."
    return "\n".join([table(["", *columns], rows), "", text])


def calibration() -> str:
    """Confidences before and after, beside what rendered videos said."""
    known, rendered = measured(), store.load("confidence_accuracy.json")["rows"]
    columns = {"D_ECE": "D-ECE", "D_ECE_certain": "of 0.3 or more", "AP50": "AP50", "oLRP": "oLRP"}
    made = {seed: one["calibration"] for seed, one in enumerate(known) if "refused" not in one["calibration"]}
    rows = [
        [f"seed {seed}, {name}", *_calibrated(one[name], list(columns))]
        for seed, one in made.items()
        for name in ("before", "after")
    ]
    rows += [[f"rendered videos, {name}", *_calibrated(rendered[name], list(columns))] for name in ("before", "after")]
    parts = [
        f"Seed {seed} was refused: {one['calibration']['refused']}."
        for seed, one in enumerate(known)
        if "refused" in one["calibration"]
    ]
    if made:
        test = next(iter(made.values()))["test"]
        parts.append(
            "Of the held-out video, every other stretch of two seconds gives the maps "
            f"({test['fitted_frames']} frames) and tests them ({test['tested_frames']}); they are judged on the "
            "stretches between."
        )
    parts.append(
        f"Rendered: [evaluation](evaluation.md#calibrating-confidences), {_commit('confidence_accuracy.json')}."
    )
    return "\n".join([table(["", *columns.values()], rows), "", " ".join(parts)])


def promised() -> str:
    """What relations gained on rendered videos, on frozen features as here and with everything trained."""
    frozen = store.load("frozen_detector.json")["rows"]
    heads = [[r for r in frozen if (r["head"] == "relations") == related] for related in (False, True)]
    rows = [["real, as above", *_signed(_mean_gain(measured()))]]
    alone, related = ({c: mean(r[c] for r in rows) for c in ("AP50", *SPEEDS)} for rows in heads)
    cells = [f"{related[c] - alone[c]:+.1f}" if c in alone else "" for c in COLUMNS]
    rows.append(["rendered, a detector that stays as it is ([own_detector](own_detector.md#relations-on-it))", *cells])
    both = [(accuracy_tables.setting("single", "own", s), accuracy_tables.setting("full", "own", s)) for s in (0, 1, 2)]
    names = {"AP50": "all", "AP": "COCO AP"}
    cells = [f"{mean(b[names.get(c, c)] - a[names.get(c, c)] for a, b in both):+.1f}" for c in COLUMNS]
    rows.append(["rendered, all of it trained ([accuracy](accuracy.md))", *cells])
    text = f"{_commit('frozen_detector.json')}; {_commit('accuracy/full-0.json')}."
    return "\n".join([table(["relations less single frames, mean", *COLUMNS], rows), "", text])


def self_labels() -> str:
    """Students of few annotated videos, with and without self-labels of others."""
    known = [store.load(f"self_labels-{seed}.json") for seed in store.seeds("self_labels")]
    result = known[0]
    titles = {
        "teacher": "teacher: annotated videos",
        "annotated": "annotated videos, trained on",
        "self": "annotated videos and self-labels",
        "true": "annotated videos and true labels of the others",
    }
    settings = list(known[0]["rows"]["teacher"])
    header = ["", *(f"{s.replace('=', ' = ')}, {c}" for s in settings for c in ("AP50", "AP", "fast"))]
    rows = []
    for name, title in titles.items():
        cells = [_spread([k["rows"][name][s][c] for k in known]) for s in settings for c in ("AP50", "AP", "fast")]
        rows.append([title, *cells])
    gains = [
        [k["rows"]["self"][s][c] - k["rows"]["annotated"][s][c] for s in settings for c in ("AP50", "AP", "fast")]
        for k in known
    ]
    rows.append(["self-labels, gain", *(spread(column, "+") for column in zip(*gains, strict=True))])
    quality = [k["labels"] for k in known]
    (few, frames), (others, _) = result["annotated"], result["others"]
    text = (
        f"{few} annotated videos and {others} others of {frames} frames, {store.count(len(known), 'seed')}; the "
        f"teacher after {2 * result['teacher_steps']} steps, the others {result['steps']} steps later; judged on "
        f"{result['held_out'][0]} videos of {result['held_out'][1]} frames. Of the self-labels "
        f"{mean(q['precision'] for q in quality):.0f}% are right, and {mean(q['recall'] for q in quality):.0f}% of the "
        f"objects have one. {store.provenance(result, on=result)}"
    )
    return "\n".join([table(header, rows), "", text])


def _gain(one: Results) -> dict[str, float]:
    """What relations gain, of the columns that both heads have"""
    a, b = one["single"], one["rdn"]
    return {c: b[c] - a[c] for c in COLUMNS if a[c] is not None and b[c] is not None}


def _mean_gain(known: Sequence[Results]) -> dict[str, float]:
    gains = [_gain(one) for one in known]
    return {c: mean(gain[c] for gain in gains) for c in gains[0]}


def _signed(values: dict[str, float]) -> list[str]:
    return [f"{values[c]:+.1f}" if c in values else "" for c in COLUMNS]


def _spread(values: Sequence[float | None]) -> str:
    known = [v for v in values if v is not None]
    return spread(known) if known else ""


def _mean(values: Sequence[float | None]) -> str:
    known = [v for v in values if v is not None]
    return f"{mean(known):.1f}" if known else ""


def _calibrated(row: Results, columns: Sequence[str]) -> list[str]:
    return [f"{row[c]:.4f}" if c.startswith("D_") else f"{row[c]:.2f}" for c in columns]


def _commit(name: str) -> str:
    return f"`{name}` of commit {store.commit(store.load(name))}"


def _source(known: Sequence[Results]) -> str:
    result = known[0]
    return (
        f"Trained on {result['data']['train']['images']} frames of two videos: {result['start_steps']} steps of twelve "
        f"images for the start, then {result['steps']} of {3 * result['clips']} for each head, at {result['side']} x "
        f"{result['side']} pixels. {store.provenance(result, on=result)}"
    )


BLOCKS = {
    "real-stages": stages,
    "real-promised": promised,
    "real-look-ahead": look_ahead,
    "real-linking": linking,
    "real-calibration": calibration,
}
