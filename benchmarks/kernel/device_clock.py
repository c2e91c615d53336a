"""How long work takes on a GPU, by its own events, and what the GPU can do at most, measured."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import numpy as np

REPLAYS, WARM_UP = 30, 5


def microseconds(runs: list[Callable[[int], None]], *, captured: bool = True) -> float:
    """Median time of one run, from replays of a graph of all of them; `captured=False`: of work that no graph takes."""
    import cupy

    stream = cupy.cuda.Stream(non_blocking=True)

    def every() -> None:
        for run in runs:
            run(stream.ptr)

    with stream:
        every()
        launch: Callable[[], object] = every
        if captured:
            stream.begin_capture()
            every()
            graph = stream.end_capture()
            launch = lambda: graph.launch(stream)  # noqa: E731
        times: list[float] = []
        for replay in range(WARM_UP + REPLAYS):
            start, stop = cupy.cuda.Event(), cupy.cuda.Event()
            start.record(stream)
            launch()
            stop.record(stream)
            stop.synchronize()
            if replay >= WARM_UP:
                times.append(1e3 * cupy.cuda.get_elapsed_time(start, stop) / len(runs))
    return statistics.median(times)


def emulated_microseconds(runs: list[Callable[[int], None]]) -> float:
    begin = time.perf_counter()
    for run in runs:
        run(0)
    return 1e6 * (time.perf_counter() - begin) / len(runs)


def ceilings() -> dict[str, float]:
    """Copy bandwidth, bytes read and written, in GB/s; float16 matrix rate in TFLOP/s.

    Not from graphs: cupy refuses its own products while a stream is captured, and these run for milliseconds.
    """
    import cupy

    source = cupy.ones(1 << 30, cupy.uint8)
    target = cupy.empty_like(source)
    copy = microseconds([lambda stream: cupy.copyto(target, source)], captured=False)
    # Random: zeros are multiplied faster than what a model has.
    a = cupy.asarray(np.random.default_rng(0).standard_normal((8192, 8192), np.float32).astype(np.float16))
    out = cupy.empty_like(a)
    product = microseconds([lambda stream: cupy.matmul(a, a, out=out)], captured=False)
    return {"copy_gb_per_s": 2 * source.nbytes / copy / 1e3, "matrix_tflop_per_s": 2 * 8192**3 / product / 1e6}
