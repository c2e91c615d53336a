"""What device backends share: checks of a call's arrays, and a device graph that takes and gives arrays of numpy."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rdn_engine.backends.graph import BoundGraph, DeviceGraph, TensorSpec
from rdn_engine.errors import RDNError
from rdn_engine.kernels.cuda import load
from rdn_engine.kernels.cuda.view import View, view_of

Shapes = Mapping[str, tuple[int, ...]]


def check_shapes(name: str, inputs: tuple[str, ...], shapes: Shapes) -> None:
    """Check that there is a shape for every input and for nothing else.

    Args:
        name: of the graph, for the message.
        inputs: of the graph.
        shapes: input -> shape; only the names are looked at.

    Raises:
        RDNError: quotes both lists of names.
    """
    if set(shapes) != set(inputs):
        raise RDNError(f"{name} got the inputs {sorted(shapes)}; wanted {sorted(inputs)}")


def check_views(name: str, wanted: Mapping[str, TensorSpec], views: Mapping[str, View], *, some: bool = False) -> None:
    """Check names, shapes and types of a call's device arrays.

    Args:
        name: of the graph, for the message.
        wanted: what the graph reads or fills.
        views: what the caller gave.
        some: whether names may be left out.

    Raises:
        RDNError: quotes what was got and what was wanted.
    """
    fits = views.keys() <= wanted.keys() if some else views.keys() == wanted.keys()
    wrong = [n for n, view in views.items() if n not in wanted or (view.shape, view.dtype) != wanted[n]]
    if wrong or not fits:
        got = {n: str(view) for n, view in views.items()}
        raise RDNError(f"{name} got {got}; wanted { {n: f'{s.dtype} {list(s.shape)}' for n, s in wanted.items()} }")


class OnHost:
    """A device graph behind numpy (`rdn_engine.backends.graph.Graph`): copies in, runs, copies out, one call at a time.

    It is bound anew whenever the shapes change, and is for checks; streams keep their arrays on the device.
    """

    def __init__(self, graph: DeviceGraph, cupy: Any) -> None:
        self._graph, self._cupy = graph, cupy
        self._device = cupy.cuda.Device()
        self._stream = cupy.cuda.Stream(non_blocking=True)
        self._lock = threading.Lock()
        self._shapes: Shapes = {}
        self._bound: BoundGraph | None = None

    @property
    def inputs(self) -> tuple[str, ...]:
        return self._graph.inputs

    @property
    def outputs(self) -> tuple[str, ...]:
        return self._graph.outputs

    def __call__(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        cupy = self._cupy
        with self._lock, self._device, self._stream:
            bound = self._bind({name: tuple(array.shape) for name, array in feeds.items()})
            given = {n: cupy.asarray(np.ascontiguousarray(feeds[n], spec.dtype)) for n, spec in bound.inputs.items()}
            found = {name: cupy.empty(spec.shape, spec.dtype) for name, spec in bound.outputs.items()}
            bound.run(_views(given), _views(found), self._stream.ptr)
            return {name: cupy.asnumpy(array, stream=self._stream) for name, array in found.items()}

    def _bind(self, shapes: Shapes) -> BoundGraph:
        if self._bound is None or shapes != self._shapes:
            self._bound, self._shapes = self._graph.bind(shapes), shapes
        return self._bound


def _views(arrays: Mapping[str, Any]) -> dict[str, View]:
    return {name: view_of(array) for name, array in arrays.items()}


def load_cupy(name: str) -> Any:
    """Import cupy, for the device.

    Args:
        name: of the backend, for the message.

    Returns:
        The module.

    Raises:
        BackendUnavailable: without cupy or without a device.
    """
    return load.load_cupy(f"backend {name!r}")
