"""Tables of what was seen of Ray and other servers beyond one process."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from benchmarks.report import store
from benchmarks.report.store import Results, Unmeasured, load, table
from rdn_engine.config import Dials, RelationConfig
from rdn_engine.host.window import Window

NOT_MEASURED = "Not measured yet: `make scale` does."


def checks(results: Mapping[str, Results]) -> str:
    """Every check of every server.

    Args:
        results: name of the server -> what its program wrote, with `rows`.
    """
    rows = [
        [name, row["what"], row["wanted"], row["got"], "held" if row["held"] else "FAILED"]
        for name, result in results.items()
        for row in result.get("rows", [])
    ]
    return table(["server", "what", "wanted", "seen", ""], rows, "lllll")


def ray() -> str:
    """The checks of Ray, and what it costs."""
    try:
        result = load("scale_ray.json")
    except Unmeasured:
        return NOT_MEASURED
    costs = []
    if overhead := result.get("overhead"):
        seconds = overhead["seconds"]
        through = ", ".join(
            f"{1e3 * seconds[count]['p50']:.1f} ms with {count} in a call ({ratio:.3f} times as long)"
            for count, ratio in overhead["ratios"].items()
        )
        costs.append(
            f"A frame takes {1e3 * seconds['local']['p50']:.1f} ms in a local stream, and through Ray Serve {through}, "
            f"in turns; a call that does nothing takes {1e3 * seconds['empty call']['p50']:.1f} ms."
        )
    if videos := result.get("throughput"):
        costs.append(
            f"{videos['videos']} videos: {videos['ray']['p50']:.2f} a second on Ray Data, "
            f"{videos['plain']['p50']:.2f} by plain processes, {store.count(videos['rounds'], 'round')} in turns."
        )
    else:
        costs.append("Archives are not measured yet.")
    sources = [
        f"{part.capitalize()}: Ray {of['versions'].get('ray', 'unknown')}, rdn_tiny, {store.provenance(of, on=of)}"
        for part, of in result["parts"].items()
    ]
    return "\n".join([checks({"ray": result}), "", " ".join(costs), "", " ".join(sources)])


def sizes() -> str:
    """Bytes of a stream by T, K and precision: computed, of the paper's model, whose features have 1024 channels."""
    rows = []
    for support in (75, 150):
        for window in (4, 8, 18, 36):
            dials = Dials(window=window, num_support=support)
            row = [str(window), str(support)]
            for ring, products in (("float32", "float32"), ("float32", "bfloat16"), ("float16", "float32")):
                nbytes = Window(RelationConfig(), dials, products, ring).nbytes  # type: ignore[arg-type]
                row += [f"{nbytes / 2**20:.0f}", f"{2**30 // nbytes}"]
            rows.append(row)
    header = [
        "T",
        "K",
        "float32, MiB",
        "in a GiB",
        "bfloat16 products, MiB",
        "in a GiB",
        "float16 ring, MiB",
        "in a GiB",
    ]
    text = "Of a stream of a model with 1024 channels, N = 300, r = 20%; computed, as `Stream.nbytes` says it."
    return "\n".join([table(header, rows, "r" * len(header)), "", text])


BLOCKS: dict[str, Callable[[], str]] = {"scale-ray": ray, "scale-sizes": sizes}
