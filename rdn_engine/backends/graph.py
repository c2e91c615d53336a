"""What a backend gives: graphs with named arrays in and named arrays out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from rdn_engine.kernels.cuda.view import View


BackendName = Literal["onnxruntime", "openvino", "tensorrt", "tensorrt_rtx", "torch"]

BackendChoice = Literal["auto", "onnxruntime", "openvino", "tensorrt", "tensorrt_rtx", "torch"]
"""`auto` is the fastest on this machine (rdn_engine.host.fastest)"""

Device = Literal["cpu", "cuda"]


MOST_THREADS = 256
"""The largest number of CPU threads of one call; the kernels stop there too."""


class Graph(Protocol):
    """A loaded graph. Calls from several threads at once are allowed."""

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of what a call reads."""
        ...

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of what a call gives."""
        ...

    def __call__(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Run the graph, and wait for it.

        Args:
            feeds: every input by name.

        Returns:
            Every output by name.

        Raises:
            RDNError: for a call that fails.
        """
        ...


class TensorSpec(NamedTuple):
    """Shape and type of an array."""

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
        """What `run` fills: shapes follow from those of `inputs`, types are the graph's own."""
        ...

    @property
    def capturable(self) -> bool:
        """Whether `run` only starts work on the stream it is given, and so may be captured in a CUDA graph, once it
        has run before.
        """
        ...

    def run(self, feeds: Mapping[str, View], outputs: Mapping[str, View], stream: int) -> None:
        """Start the graph and return without waiting. Captured, it reads and fills the same addresses again.

        Args:
            feeds: dense device arrays, the caller's: every name of `inputs`, in its shape and type.
            outputs: dense device arrays to fill, the caller's, in the shapes and types of `outputs`; a name may be left
                out.
            stream: address of the cudaStream_t; the work comes in order with what else is on it.

        Raises:
            RDNError: for arrays that do not fit, or a start that fails.
        """
        ...


class DeviceGraph(Protocol):
    """A graph loaded on the current device: its weights, shared by what is bound. `bind` may be called from several
    threads at once.
    """

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of what the graph reads."""
        ...

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of what the graph fills."""
        ...

    def bind(self, shapes: Mapping[str, tuple[int, ...]]) -> BoundGraph:
        """Make the graph ready for inputs of one shape, with memory of its own.

        Args:
            shapes: of every input by name.

        Raises:
            RDNError: for shapes that the graph or its plan does not take.
            BackendUnavailable: where the device has no room for it.
        """
        ...


class Backend(Protocol):
    """What runs the graphs of a bundle, opened for one device."""

    @property
    def name(self) -> str:
        """As `load_backend` takes it."""
        ...

    def load(self, path: Path) -> Graph:
        """Load a graph whose calls take and give arrays of the host.

        Args:
            path: an ONNX file.

        Raises:
            BundleError: for a file that is no graph this backend can run.
            BackendUnavailable: for an operator or a device that this build does not have.
        """
        ...

    def load_device(self, path: Path) -> DeviceGraph:
        """Load a graph for arrays that stay on the current device.

        Args:
            path: an ONNX file.

        Raises:
            BundleError: for a file that is no graph this backend can run.
            BackendUnavailable: on device 'cpu', and for an operator that this build does not have.
        """
        ...
