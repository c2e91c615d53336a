"""A session of ONNX Runtime, opened with its refusals as typed errors."""

from __future__ import annotations

import contextlib
import ctypes
import functools
from pathlib import Path

import onnxruntime as ort

from rdn_engine.backends.threads import check_threads, refusal
from rdn_engine.errors import BackendUnavailable, BundleError

_FATAL_ONLY = 4  # what fails is raised, so the library need not print it too


# It makes integers of fp8 layers' biases, with scales that float16 cannot hold.
_DISABLED = ["WeightBiasQuantization"]


_GROW_AS_ASKED = {"arena_extend_strategy": 1}  # instead of to the next power of two


Providers = list[str | tuple[str, dict[str, str]]]


CPU: Providers = ["CPUExecutionProvider"]


def open_session(path: Path, threads: int, providers: Providers) -> ort.InferenceSession:
    """Open a graph.

    Args:
        path: an ONNX file.
        threads: bounds the CPU threads of each call.
        providers: in the order in which operators are offered to them.

    Raises:
        BundleError: for what is no graph.
        BackendUnavailable: for a graph with an operator that no provider has, and where the system refuses the threads.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = _FATAL_ONLY
    # Idle threads that spin take the cores from the kernels and from BLAS, which run between two graphs.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # A pattern is kept for every input shape met, and the number of proposals changes from frame to frame.
    options.enable_mem_pattern = False
    fallback = {}
    if providers == CPU:
        # It would try the same once more, and print about it where results may be printed.
        fallback = {"enable_fallback": 0}
        _share_arena()
        options.add_session_config_entry("session.use_env_allocators", "1")
    check_threads(threads)
    try:
        session = ort.InferenceSession(
            str(path), options, providers=providers, disabled_optimizers=_DISABLED, **fallback
        )
    except Exception as error:
        # No narrower class: findings/onnxruntime_errors_have_no_base.sh
        if "NOT_IMPLEMENTED" in str(error):
            raise BackendUnavailable(
                f"ONNX Runtime {ort.__version__} has no kernel that {path.name} needs, as for bf16 on a CPU: {error}; "
                "a bundle in that precision runs with backend='torch', 'tensorrt' or 'tensorrt_rtx'"
            ) from error
        if "pthread_create" in str(error):  # another took the threads in between
            raise BackendUnavailable(refusal(threads, error)) from error
        raise BundleError(f"ONNX Runtime {ort.__version__} cannot load {path.name}: {error}") from error
    _trim()
    return session


@functools.cache
def _share_arena() -> None:
    """One arena of the process for what graphs work in. Those of a frame run one after the other, and an arena gives
    nothing back to the system: with one each, a frame would hold the memory of all of them.
    """
    place = ort.OrtMemoryInfo("Cpu", ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, ort.OrtMemType.DEFAULT)
    # Some versions refuse a second one: then what the application registered itself is shared.
    with contextlib.suppress(RuntimeError):
        ort.create_and_register_allocator(place, ort.OrtArenaCfg(_GROW_AS_ASKED))


def _trim() -> None:
    """Return to the system what reading a graph took: glibc keeps it otherwise."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
