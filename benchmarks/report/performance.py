"""The blocks of docs/performance.md, from the results of latency.py, kernels.py, relation.py and cosine.py."""

from __future__ import annotations

import statistics
from collections.abc import Callable

from benchmarks.kernel.arithmetic import projection_operations, relation_operations
from benchmarks.report import interval_tables, price_tables, store, tables
from benchmarks.report.store import Results, Unmeasured
from rdn_engine.config import Dials, RelationConfig

FLOAT32, INT8 = "latency_r101_float32.json", "latency_r101_int8.json"
BASIC, BASIC_INT8 = "latency_r101_basic_float32.json", "latency_r101_basic_int8.json"
SIDES, BUNDLES, DEMO = "latency_r101_sides.json", "latency_r101_bundles.json", "latency_demo.json"
BUILDS, RING = "relation_builds_avx2*.json", "ring_accuracy.json"
KERNELS, RELATION, COMPARED = "kernels_cpu.json", "relation_cpu.json", "compare_demo.json"
COSINE = "cosine_cpu.json"

NOT_MEASURED = "Not measured yet: no results file of it is committed."


def _sweep_provenance(results: Results, name: str) -> str:
    """A file's sweeps may come from different runs."""
    found = results["sweeps"][name]
    return store.provenance(found["measured"], counted=store.count(_rounds(found), "round"))


def _rounds(sweep: Results) -> int:
    return max(len(p["rounds"]) for p in sweep["points"].values())


def stages() -> str:
    """Where a frame's time goes."""
    measured = store.having("T", float32=FLOAT32, INT8=INT8)
    body = tables.stage_table({title: (r, "T", "18") for title, r in measured.items()})
    runs = [f"{title}: {_sweep_provenance(r, 'T')}" for title, r in measured.items()]
    machine = store.machine(next(iter(measured.values())))
    return "\n".join([body, "", f"Medians. {machine}.", "", *(f"- {run}" for run in runs)])


def sides(file: str) -> str:
    """The straightforward implementation and ours, in one run."""
    results = store.having("baseline", sides=file)["sides"]
    found = results["sweeps"]["baseline"]
    run = store.provenance(found["measured"], counted=store.count(_rounds(found), "round"), on=results)
    return "\n".join([tables.side_table(results), "", run])


def relation() -> str:
    """The relation stage by itself: every side of relation.py against its baseline."""
    results = store.load(RELATION)
    rows = []
    for name, side in results.items():
        if isinstance(side, dict) and "median_ms" in side:
            error = max(e for errors in side["relative_error"].values() for e in errors.values())
            ratio = results["baseline"]["median_ms"] / side["median_ms"]
            ends = (tables.milliseconds(side[f"{end}_ms"]) for end in ("median", "min", "max"))
            rows.append([name, *ends, f"{ratio:.1f}", f"{error:.1e}", f"{side['peak_mb']:.0f}"])
    header = ["relation stage", "ms, median", "shortest", "longest", "times faster", "error against float64", "peak MB"]
    gflops = store.load(KERNELS)["rates"]["gflops"]
    dials, config = Dials(**results["dials"]), RelationConfig(**results["relation"])
    counted = relation_operations(config, dials, results["classes"] + 1) + projection_operations(config, dials)
    ms = counted / (1e6 * gflops)
    least = (
        f"The multiply-adds alone are {counted / 1e9:.1f} GFLOP (`benchmarks/kernel/arithmetic.py`): {ms:.0f} ms in "
        f"float32 at the {gflops:.0f} GFLOP/s that one core was measured to reach. That would be "
        f"{results['baseline']['median_ms'] / ms:.1f} times faster than the baseline, if logarithms, exponentials and "
        "memory took no time."
    )
    run = store.provenance(results, counted=store.count(results["rounds"], "round"), on=results)
    return "\n".join([store.table(header, rows), "", least, "", run])


def builds() -> str:
    """A table for each machine that builds.py ran on."""
    files = sorted(path.name for path in store.RESULTS.glob(BUILDS))
    if not files:
        raise Unmeasured(BUILDS)
    return "\n\n".join(_builds(store.load(file)) for file in files)


def _builds(results: Results) -> str:
    """The relation stage of an earlier commit and of this one, with either ring."""
    titles = {"before": f"commit {results['before_is']}", "now": "now", "now_float16_ring": "now, ring in float16"}
    header = ["relation stage", "ms, median", "shortest", "before over this, frame by frame", "error against float64",
              "MiB a stream"]  # fmt: skip
    rows = []
    for name, side in results["sides"].items():
        error = max(e for errors in side["relative_error"].values() for e in errors.values())
        ratio = f"{side['before_over_this']['p50']:.2f}"
        ends = (tables.milliseconds(side["ms"][end]) for end in ("p50", "min"))
        rows.append([titles[name], *ends, ratio, f"{error:.1e}", f"{side['nbytes'] / 2**20:.1f}"])
    rounds = len(results["sides"]["now"]["rounds"])
    run = store.provenance(results, counted=store.count(rounds, "round"), on=results)
    return "\n".join([store.table(header, rows), "", run])


def ring() -> str:
    """What a float16 ring changes of detections."""
    results = store.load(RING)
    header = ["ring of rdn_tiny", "AP50", f"detections of {results['confidence']} or more in common", "MiB a stream"]
    rows = [[name, f"{r['AP50']:.1f}", f"{r['in_common']:.2%}", f"{r['nbytes'] / 2**20:.2f}"]
            for name, r in results["rings"].items()]  # fmt: skip
    detections = results["rings"]["float32"]["detections"]
    run = store.provenance(results, counted=f"{results['data']}, {detections} detections")
    return "\n".join([store.table(header, rows), "", run])


def cosine() -> str:
    """YOLOV's relation stage by itself: every side of cosine.py against ours."""
    results = store.load(COSINE)
    rows, notes = [], []
    for case in results["cases"]:
        for name in ("ours", *case["ratios"]):
            side = case[name]
            ratio = case["ratios"].get(name, {"median_ratio": 1.0, "median_cpu_ratio": 1.0})
            ends = (tables.milliseconds(side[f"{end}_ms"]) for end in ("median", "min", "max"))
            error = max(side["relative_error"].values())
            rows.append(
                [
                    f"{case['proposals']} proposals, {name}",
                    *ends,
                    *(f"{ratio[f'median_{kind}']:.1f}" for kind in ("ratio", "cpu_ratio")),
                    f"{error:.1e}",
                    f"{side['peak_mb']:.0f}",
                ]
            )
        taken = sum(case["taken"]) / len(case["taken"])
        notes.append(
            f"{case['proposals']} proposals: {case['frames']} frames, {store.count(case['rounds'], 'round')}; the "
            f"second round takes {taken:.0%} of the pairs; a window is {case['window_bytes'] / 1e6:.1f} MB."
        )
    header = ["YOLOV's stage, D = 128", "ms, median", "shortest", "longest", "times as long", "in processor time",
              "error against float64", "peak MB"]  # fmt: skip
    run = store.provenance(results, counted=store.count(len(results["cases"]), "size"), on=results)
    return "\n".join([store.table(header, rows), "", *(f"- {note}" for note in notes), "", run])


def compared() -> str:
    """An earlier commit and this one on the demo model."""
    results = store.load(COMPARED)
    before, now, ratio = results["before"]["ms"], results["now"]["ms"], results["now_over_before"]
    header = ["demo model, its own dials", "ms a frame", "p90", "now over before, frame by frame"]
    rows = [
        [f"commit {results['before_is']}", tables.milliseconds(before["p50"]), tables.milliseconds(before["p90"]), ""],
        ["now", *(tables.milliseconds(now[p]) for p in ("p50", "p90")), f"{ratio['p50']:.3f}"],
    ]
    run = store.provenance(results, counted=store.count(results["frames"], "frame"), on=results)
    return "\n".join([store.table(header, rows), "", run])


def summary() -> str:
    """README's: the paper's model on one core, against the straightforward implementation, and how its cost grows."""
    results = store.having("baseline", sides=SIDES)["sides"]
    header = ["RDN, ResNet-101, 600 x 1000, one core", "ms a frame", "times faster", "peak MB"]
    rows = []
    for name, point in {
        "straightforward torch implementation": "baseline",
        "rdn_engine, float32": "r101/float32, 1 thread",
        "rdn_engine, INT8": "r101/int8, 1 thread",
    }.items():
        found = results["sweeps"]["baseline"]["points"][point]
        faster = statistics.median(tables.speed_ups(results, point))
        rows.append([name, tables.milliseconds(found["ms"]["p50"]), f"{faster:.1f}", f"{found['peak_mb']:.0f}"])
    measured = results["sweeps"]["baseline"]["measured"]
    run = f"First table: {store.provenance(measured, on=results)}"
    return "\n".join([store.table(header, rows), "", tables.growth_table(growth_measured()), "", run])


def growth() -> str:
    """The dials' ends, beside the paper's."""
    gflops = store.load(KERNELS)["rates"]["gflops"]
    least = (
        "Least: if the relation stage were its multiply-adds alone (`benchmarks/kernel/arithmetic.py` counts them; no "
        f"logarithm, exponential or division), at the {gflops:.0f} GFLOP/s that one core was measured to reach. The "
        "rest of the frame is what it is at the reference point."
    )
    return f"{tables.growth_table(growth_measured(), gflops)}\n\n{least}"


def growth_measured() -> dict[str, dict[str, Results]]:
    """title -> dial -> results that hold it. Raises Unmeasured where none does."""
    measured = {}
    for title, (full, basic) in {"float32": (FLOAT32, BASIC), "INT8": (INT8, BASIC_INT8)}.items():
        found = store.there(T=full, r=full, K=basic)
        if any(name in results["sweeps"] for name, results in found.items()):
            measured[title] = found
    if not measured:
        raise Unmeasured("growth")
    return measured


def sweep(file: str, name: str) -> str:
    """One sweep of one file."""
    results = store.having(name, it=file)["it"]
    return _with_run(tables.sweep_table(results, name), results, name)


def dial(name: str) -> str:
    """One dial, float32 and INT8 below each other."""
    files = {"float32": BASIC, "INT8": BASIC_INT8} if name == "K" else {"float32": FLOAT32, "INT8": INT8}
    return _titled({t: _with_run(tables.sweep_table(r, name), r, name) for t, r in store.having(name, **files).items()})


def throughput(name: str) -> str:
    """Frames a second along a dial that leaves the encoder out, of every model and machine."""
    found = price_tables.priced(name)
    return _titled({title: _with_run(tables.throughput_table(r, name), r, name) for title, r in found.items()})


def first() -> str:
    """From the first frame to the first result."""
    found = store.having("first", float32=FLOAT32, INT8=INT8)
    return _titled({t: _with_run(tables.first_table(r), r, "first") for t, r in found.items()})


def _with_run(table: str, results: Results, name: str) -> str:
    return f"{table}\n\n{_sweep_provenance(results, name)}"


def _titled(parts: dict[str, str]) -> str:
    return "\n\n".join(f"{title}:\n\n{part}" for title, part in parts.items())


def kernels() -> str:
    """Each kernel, its floor and its peers."""
    results = store.load(KERNELS)
    peers = ("torch eager", "torch.compile", "ONNX Runtime")
    rows, notes = [], []
    for k in results["kernels"]:
        times = {name: t["ms"]["p50"] for name, t in k["times"].items()}
        others = [f"{tables.milliseconds(ms)} ({name})" for name, ms in times.items() if name not in (*peers, "ours")]
        cells = [tables.milliseconds(times[p]) if p in times else "-" for p in peers]
        best = min(ms for name, ms in times.items() if name != "ours")
        rows.append([k["kernel"], tables.milliseconds(times["ours"]), tables.milliseconds(k["floor_ms"]),
                     f"{k['of_floor']:.0%}", *cells, "; ".join(others), f"{best / times['ours']:.1f}"])  # fmt: skip
        notes += [f"{k['kernel']}, {peer}: {why}." for peer, why in k["left_out"].items()]
    header = ["kernel, ms", "ours", "floor", "floor / ours", *peers, "another", "best of them / ours"]
    rates = results["rates"]
    floor = (
        f"Floor: counted bytes at {rates['copy_gbs']:.1f} GB/s or counted operations at {rates['gflops']:.0f} GFLOP/s, "
        "whichever takes longer; both rates are measured on one core in the same run. Sines, exponentials, logarithms "
        "and comparisons are not counted."
    )
    return "\n".join([store.table(header, rows), "", floor, "", *(f"- {note}" for note in notes), "",
                      store.provenance(results, on=results)])  # fmt: skip


def picture(name: str, title: str) -> str:
    """The link to a picture that `performance_plots.draw` has drawn."""
    if not (store.ROOT / "docs" / "media" / name).exists():
        raise Unmeasured(name)
    return f"![{title}](media/{name})"


def _or_unmeasured(block: Callable[[], str]) -> Callable[[], str]:
    def make() -> str:
        try:
            return block()
        except Unmeasured:
            return NOT_MEASURED

    return make


_BLOCKS: dict[str, Callable[[], str]] = {
    "perf-stages": stages,
    "perf-sides": lambda: sides(SIDES),
    "perf-demo": lambda: sides(DEMO),
    "perf-compared": compared,
    "perf-relation": relation,
    "perf-builds": builds,
    "perf-ring": ring,
    "perf-cosine": cosine,
    "perf-growth": growth,
    "perf-T": lambda: dial("T"),
    "perf-K": lambda: dial("K"),
    "perf-r": lambda: dial("r"),
    "perf-N": lambda: dial("N"),
    "perf-first": first,
    "perf-executor": lambda: dial("executor"),
    "perf-backend": lambda: sweep(FLOAT32, "backend"),
    "perf-resolution": lambda: dial("resolution"),
    "perf-threads": lambda: dial("threads"),
    "perf-streams": lambda: dial("streams"),
    "perf-batch": lambda: dial("batch"),
    "perf-bundles": lambda: sweep(BUNDLES, "bundles"),
    "perf-prices": price_tables.prices,
    "perf-interval": lambda: throughput("interval"),
    "perf-still": lambda: throughput("still"),
    "interval-accuracy": interval_tables.interval,
    "interval-bounds": interval_tables.bounds,
    "still-accuracy": interval_tables.still,
    "perf-kernels": kernels,
    "perf-stages-picture": lambda: picture("performance_stages.svg", "Stages of a steady frame"),
    "perf-dials-picture": lambda: picture("performance_dials.svg", "Growth along T, K and r"),
    "perf-kernels-picture": lambda: picture("performance_kernels.svg", "Kernels against their floor"),
}

BLOCKS = {name: _or_unmeasured(block) for name, block in _BLOCKS.items()}
TUNING = {"tune-accuracy": _or_unmeasured(price_tables.tuning)}
README = {"perf-summary": _or_unmeasured(summary)}
