"""The tables and the picture of docs/linking.md, from benchmarks/results."""

from __future__ import annotations

from pathlib import Path

from benchmarks.report import store
from benchmarks.report.store import Results, load, table

TITLES = {
    "off": "RDN",
    "seq_nms": "RDN + Seq-NMS",
    "boxes": "RDN + tube linking, no relations",
    "relations": "RDN + tube linking with relations",
}
ACCURACY = {"AP50": "AP50", "clear": "clear", "degraded": "blurred or dim", "slow": "slow", "medium": "medium",
            "fast": "fast"}  # fmt: skip
IDENTITIES = {"HOTA": "HOTA", "DetA": "DetA", "AssA": "AssA", "IDF1": "IDF1", "switches": "switches"}


def _table(result: Results, titles: dict[str, str], columns: dict[str, str]) -> str:
    rows = []
    for label, title in titles.items():
        values = [result["rows"][label].get(name) for name in columns]
        rows.append([title, *("" if v is None else str(v) if isinstance(v, int) else f"{v:.1f}" for v in values)])
    return table(["", *columns.values()], rows)


def accuracy() -> str:
    """Table 2 of the paper on the synthetic videos, what identities are worth, and how much relations can weigh."""
    result = load("linking_accuracy.json")
    linked = {label: title for label, title in TITLES.items() if label != "off"}
    factor = result["relation_factor"]
    return "\n".join(
        [
            _table(result, TITLES, ACCURACY),
            "",
            f"{result['protocol']}. {result['data']}, {result['frames']} frames; linked over whole videos.",
            "",
            _table(result, linked, IDENTITIES),
            "",
            f"{result['identity']}.",
            "",
            f"The factor e^omega of {factor['links']} pairs of boxes that may be linked: "
            f"{100 * factor['part_with_a_weight']:.0f}% have a weight at all; median {factor['p50']:.4f}, "
            f"90% below {factor['p90']:.3f}, 99% below {factor['p99']:.3f}, at most {factor['max']:.2f}. "
            f"Its mean is {factor['same_object_mean']:.4f} over the {factor['same_object']} pairs on one object, "
            f"{factor['other_object_mean']:.4f} over the {factor['other_object']} on two objects of a class. "
            f"Commit {store.commit(result)}, `{store.command(result)}`.",
        ]
    )


def delays() -> str:
    """The live version at several delays beside no linking and the whole video."""
    result = load("linking_accuracy.json")
    titles = {"off": "no linking"} | {n: n.replace("=", " = ") for n in result["rows"] if n.startswith("D=")}
    titles |= {"relations": "whole video"}
    columns = {"AP50": "AP50", "degraded": "blurred or dim", "HOTA": "HOTA", "IDF1": "IDF1", "switches": "switches"}
    return _table(result, titles, columns)


def cost() -> str:
    """CPU time of linking 300 boxes, and its part of a frame."""
    result = load("linking_cost.json")
    whole = [[f"{r['frames']:,}", f"{r['ms_per_frame']:.2f}"] for r in result["whole_video"]]
    live = []
    for r in result["live"]:
        parts = [f"{100 * r['ms_per_frame'] / s['frame_ms']:.2f}%" for s in result["streams"]]
        live.append([str(r["delay"]), f"{r['ms_per_frame']:.2f}", f"{r['bytes_at_the_end'] / 1e6:.2f}", *parts])
    columns = [f"part of a frame of {s['backbone']}, {s['frame_ms']:.0f} ms" for s in result["streams"]]
    header = ["live, D", "CPU ms a frame", "MB held", *columns]
    memory = " and ".join(f"{m['bytes'] / 1e6:.2f} MB after {m['frames']:,} frames" for m in result["live_memory"])
    streams = "; ".join(
        f"{s['backbone']} {s['linking_ms']:.2f} ms of linking for {s['boxes']:.0f} boxes beside a frame of "
        f"{s['frame_ms']:.0f} ms ({100 * s['linking_ms'] / s['frame_ms']:.2f}%)"
        for s in result["streams"]
        if s["linking_ms"] is not None
    )
    return "\n".join(
        [
            table(["whole video, frames", "CPU ms a frame"], whole, "rr"),
            "",
            table(header, live, "r" * len(header)),
            "",
            f"{result['boxes']} boxes of {result['classes']} classes in tubes as long as the video. "
            f"At D = 8 the linker holds {memory}. In a real stream at the default delay: {streams}. "
            f"{result['machine']['cpu']}, one thread; commit {store.commit(result)}, `{store.command(result)}`.",
        ]
    )


WAYS = {
    "boxes": "no relations",
    "window": "share of the window (the paper, `relations`)",
    "of_the_frame": "share of the next frame",
    "by_head": "softmax over the next frame, by head",
    "before_softmax": "scores before the softmax",
}


def relations() -> str:
    """Ways of taking omega, on each seed."""
    result = load("linking_relations.json")
    seeds = result["seeds"].values()
    header = ["omega", *(f"AP50, seed {seed}" for seed in result["seeds"]), "mean", "IDF1, mean", "switches, sum"]
    rows = []
    for way, title in WAYS.items():
        of = [seed[way] for seed in seeds]
        ap50 = [row["AP50"] for row in of]
        rows.append([
            title,
            *(f"{value:.2f}" for value in [*ap50, sum(ap50) / len(ap50)]),
            f"{sum(row['IDF1'] for row in of) / len(of):.1f}",
            str(sum(row["switches"] for row in of)),
        ])  # fmt: skip
    return "\n".join(
        [
            table(header, rows),
            "",
            f"{result['data']}; linked over whole videos. {store.provenance(result, on=result)}",
        ]
    )


TRACKING = ("HOTA", "DetA", "AssA", "MOTA", "IDF1")
GAPS = {
    "off": "24, no gap",
    "off, the same boxes": "24, no gap, the same boxes",
    "G=30": "24, G = 30",
    "G=30, place alone": "24, G = 30, without features",
    "D=0, off": "0, no gap",
    "D=0, off, the same boxes": "0, no gap, the same boxes",
    "D=0, G=30": "0, G = 30",
    "annotated": "24, the same boxes named by annotations",
    "D=0, annotated": "0, the same boxes named by annotations",
}


def identity() -> str:
    """Identities with a gap and without, where objects are hidden, and on ordinary videos."""
    result = load("identity_accuracy.json")
    rows = []
    for part, word in (("hidden", "hidden"), ("ordinary", "ordinary")):
        seeds = list(result[part].values())
        for label in (label for label in GAPS if label in seeds[0]["rows"]):
            of = [seed["rows"][label] for seed in seeds]
            figures = [f"{sum(row[name] for row in of) / len(of):.1f}" for name in TRACKING]
            each = " ".join(str(row["switches"]) for row in of)
            rows.append([word, GAPS[label], *figures, f"{sum(row['switches'] for row in of)} ({each})"])
    header = ["videos", "D", *TRACKING, "switches (of each seed)"]
    hidden, ordinary = (list(result[part].values()) for part in ("hidden", "ordinary"))
    gaps, long = (sum(seed[name] for seed in hidden) for name in ("gaps", "gaps_of_5_to_30"))
    ap50 = [f"{sum(s['rows']['off']['AP50'] for s in part) / len(part):.1f}" for part in (hidden, ordinary)]
    return "\n".join(
        [
            table(header, rows, "ll" + "r" * (len(TRACKING) + 1)),
            "",
            f"{store.count(len(hidden), 'seed')}, means of all but switches. Hidden: {hidden[0]['frames']} frames a "
            f"seed, {gaps} gaps in all, {long} of them of 5 to 30 frames. Ordinary: {ordinary[0]['frames']} frames a "
            "seed. The same boxes: those that have an identity with a gap have their tubes', all others none; named by "
            "annotations: where they lie on an object they have its identity. "
            f"AP50 at D = 24, with a gap and without: {ap50[0]} and {ap50[1]}. {result['identity']}. "
            f"{store.provenance(result, on=result)}",
        ]
    )


def identity_cost() -> str:
    """CPU time and memory of a gap beside linking without one."""
    result = load("identity_cost.json")
    header = ["live, D", "linking, CPU ms a frame", "with a gap", "more", "more, 90% below", "more MB held"]
    rows = [
        [
            str(r["delay"]),
            *(f"{r[name]:.2f}" for name in ("ms_without", "ms_with", "more_ms", "more_p90_ms")),
            f"{r['more_bytes'] / 1e6:.2f}",
        ]
        for r in result["rows"]
    ]
    return "\n".join(
        [
            table(header, rows, "r" * len(header)),
            "",
            f"{result['objects']} objects of {result['classes']} classes, {result['rows'][0]['boxes']:.0f} of them in "
            f"sight on the mean, features of {result['width']} numbers; G = {result['gap']}. "
            f"{store.provenance(result, on=result)}",
        ]
    )


BLOCKS = {
    "linking-accuracy": accuracy,
    "linking-delay": delays,
    "linking-cost": cost,
    "linking-relations": relations,
    "identity-accuracy": identity,
    "identity-cost": identity_cost,
}


def draw(path: Path) -> None:
    """AP50 of the live version against its delay."""
    # Here, because the tables need no pictures.
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    rows = load("linking_accuracy.json")["rows"]
    points = sorted((int(label[2:]), row["AP50"]) for label, row in rows.items() if label.startswith("D="))
    plt.rcParams |= {"svg.hashsalt": "rdn", "font.size": 9}
    figure, axis = plt.subplots(figsize=(4.6, 2.9), layout="constrained")
    axis.plot(*zip(*points, strict=True), "o-", color="#4477aa", label="live, with relations")
    axis.axhline(rows["relations"]["AP50"], color="#222222", linewidth=1, label="whole video")
    axis.axhline(rows["off"]["AP50"], color="#cc3355", linewidth=1, linestyle="--", label="no linking")
    axis.set_xlabel("delay D, frames")
    axis.set_ylabel("AP50, VID protocol")
    axis.legend(frameon=False, fontsize=8)
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)
