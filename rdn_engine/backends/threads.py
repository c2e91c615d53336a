"""Whether the system gives a library the threads of its pool, asked before the library asks."""

from __future__ import annotations

import threading
import time
from pathlib import Path

from rdn_engine.errors import BackendUnavailable


def check_threads(threads: int) -> None:
    """Start the threads of a pool, all at once, and end them.

    A library that is refused some of its threads is past saying so: ONNX Runtime waits for ever
    (findings/onnxruntime_waits_for_refused_threads.sh), torch's OpenMP ends the process. Our own kernels run with those
    that they got.

    Args:
        threads: of the pool, the caller's own among them; 1 or more.

    Raises:
        BackendUnavailable: says how many the system gave.
    """
    end = threading.Event()
    started: list[threading.Thread] = []
    try:
        for _ in range(threads - 1):
            thread = threading.Thread(target=end.wait, daemon=True)
            thread.start()
            started.append(thread)
    except RuntimeError as error:
        raise BackendUnavailable(refusal(threads, f"{error} after {len(started) + 1}")) from error
    finally:
        end.set()
        for thread in started:
            thread.join()
            # Python's join may return a moment before the system has ended the thread, which counts until then.
            while Path(f"/proc/self/task/{thread.native_id}").exists():
                time.sleep(0)


def refusal(threads: int, reason: object) -> str:
    """The message about threads that were refused.

    Args:
        threads: of the pool.
        reason: the system's words.
    """
    return (
        f"the system refuses {threads} threads ({reason}); wanted a higher limit (ulimit -u, a container's pids limit) "
        "or fewer threads"
    )
