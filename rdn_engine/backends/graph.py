"""What a backend gives: graphs with named arrays in and named arrays out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from rdn_engine.kernels.cuda.view import View

BackendName = Literal["onnxruntime", "tensorrt", "tensorrt_rtx", "torch"]


Device = Literal["cpu", "cuda"]


MOST_THREADS = 256
"""Of one call; the kernels stop there too."""


class Graph(Protocol):
    """A loaded graph. Calls from several threads at once are allowed."""

    @property
    def inputs(self) -> tuple[str, ...]: ...

    @property
    def outputs(self) -> tuple[str, ...]: ...

    def __call__(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Every input by name -> every output by name."""
        ...


class TensorSpec(NamedTuple):
    shape: tuple[int, ...]
    dtype: np.dtype[Any]


class BoundGraph(Protocol):
    """A graph made ready for inputs of one shape, with the memory it works in: of one stream, never shared."""

    @property
    def inputs(self) -> Mapping[str, TensorSpec]:
        """What `run` reads, as `bind` was told; types are the graph's own."""
        ...

    @property
    def outputs(self) -> Mapping[str, TensorSpec]:
        """What `run` fills."""
        ...

    @property
    def capturable(self) -> bool:
        """Whether `run` only starts work on the stream it is given, and so may be captured in a CUDA graph, once it
        has run before.
        """
        ...

    def run(self, feeds: Mapping[str, View], outputs: Mapping[str, View], stream: int) -> None:
        """Reads dense device arrays and fills others, all the caller's, in order with what else is on `stream`
        (address of a cudaStream_t); returns without waiting. Captured, it reads and fills the same addresses again.

        Both hold every name of `inputs` and `outputs`, in their shapes and types. Raises RDNError.
        """
        ...


class DeviceGraph(Protocol):
    """A graph loaded on the current device: its weights, shared by what is bound. `bind` may be called from several
    threads at once.
    """

    @property
    def inputs(self) -> tuple[str, ...]: ...

    @property
    def outputs(self) -> tuple[str, ...]: ...

    def bind(self, shapes: Mapping[str, tuple[int, ...]]) -> BoundGraph:
        """shapes: of every input by name. Raises RDNError for shapes that the graph or its plan does not take."""
        ...


class Backend(Protocol):
    @property
    def name(self) -> str: ...

    def load(self, path: Path) -> Graph:
        """Raises BundleError for a file that is no graph this backend can run."""
        ...

    def load_device(self, path: Path) -> DeviceGraph:
        """The same for arrays that stay on the device. Raises BackendUnavailable on device 'cpu'."""
        ...
