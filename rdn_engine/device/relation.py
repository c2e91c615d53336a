"""The relation stage on the device: its weights, and its steps for one stream with one setting of its dials."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rdn_engine.bundle.contract import relation_arrays
from rdn_engine.config import Dials, RDNConfig
from rdn_engine.device.gpu import Gpu, Queue
from rdn_engine.device.scratch import Scratch
from rdn_engine.device.window import DeviceWindow, in_groups
from rdn_engine.errors import ConfigError
from rdn_engine.kernels import cuda
from rdn_engine.kernels.cuda.relation import AttentionInputs, Partials, Queries, Supports
from rdn_engine.kernels.cuda.window import SlideLists

DevicePrecision = Literal["float32", "float16"]
_HALF_HEADS = (16, 32, 64, 128)  # channels of a head that tensor cores take


class DeviceRelation:
    """The weights of `relation.npz` on the device; shared by streams. precision: of what is stored and multiplied;
    boxes, geometry and sums are float32 in both.
    """

    def __init__(
        self, gpu: Gpu, config: RDNConfig, weights: Mapping[str, NDArray[Any]], precision: DevicePrecision
    ) -> None:
        if precision not in ("float32", "float16"):
            raise ConfigError(f"relation_precision is {precision!r}; device 'cuda' takes 'float32' or 'float16'")
        head_dim = config.relation.head_dim
        if precision == "float16" and config.relation.num_modules and head_dim not in _HALF_HEADS:
            raise ConfigError(
                f"heads have {head_dim} channels; relation_precision 'float16' wants one of {_HALF_HEADS}"
            )
        self.gpu, self.config, self.kind = gpu, config, np.dtype(precision)
        self._arrays: dict[str, Any] = {}
        geometry: dict[str, NDArray[Any]] = {}
        for name, array in relation_arrays(config, weights).items():
            if ".geometry." in name:
                geometry[name] = array
            else:
                exact = name.endswith(".bias")
                self._arrays[name] = gpu.put(array if exact else array.astype(self.kind, copy=False))
        modules = range(config.relation.num_modules)
        if modules:
            self.geometry_weight = gpu.put(np.stack([geometry[f"rel.{i}.geometry.weight"] for i in modules]))
            self.geometry_bias = gpu.put(np.stack([geometry[f"rel.{i}.geometry.bias"] for i in modules]))

    def value_bias(self, module: int) -> Any:
        return self._arrays[f"rel.{module}.value.bias"]

    def linear(self, queue: Queue, name: str, x: Any, out: Any, *, relu: bool = False, bias: bool = True) -> None:
        """out [n, m] = x [n, d] W^T + b."""
        queue.product(x, self._arrays[f"{name}.weight"], out)
        if bias:
            cuda.add_bias(self.gpu.kernels, out, self._arrays[f"{name}.bias"], relu=relu, stream=queue.ptr)


class _Advanced(NamedTuple):
    """The support proposals that were refined: A rows, those that count 0 among them."""

    features: Any
    """[A, D]"""
    rows: Any
    """int32 [A] of the ring"""
    counted: Any
    """float32 [A] how often each counts"""


class RelationSteps:
    """slide() after each append, prime() once before all when the ring has frames, result() for each result.

    All sizes are those of the dials, whatever there is: what is missing counts 0. All work is capturable. omega
    [N, stride]: weights of the reference proposals for those of the next frame, where the dials link by relations and
    the window reaches so far; else None. described [N, D]: features of the reference proposals as the encoder gave
    them, where the dials link over gaps; else None.
    """

    def __init__(self, weights: DeviceRelation, queue: Queue, window: DeviceWindow, dials: Dials) -> None:
        self._weights, self._queue, self._window, self._dials = weights, queue, window, dials
        self._kernels = weights.gpu.kernels
        r, empty = weights.config.relation, queue.empty
        self._relation = r
        self._ring = window.ring(dials)
        self.reference = window.reference(dials.num_reference)
        n, logits = dials.num_reference, weights.config.num_logits
        self._hidden, self._query = empty((n, r.dim), weights.kind), empty((n, r.dim), weights.kind)
        self.logits, self.deltas = empty((n, logits), np.float32), empty((n, 4 * logits), np.float32)
        frames = dials.window + dials.frames_ahead + 1
        self._rows, self._counted = empty((frames, window.stride), np.int32), empty((frames, window.stride), np.float32)
        self._slides = r.advanced and dials.sampling == "per_frame"
        advanced = 0
        if r.advanced:
            advanced = self._prepare_advanced(frames)
        # Where frame t + 1 is in the list of the window, for its links.
        begin = (dials.window + 1) * window.stride
        self._linked = begin, begin + window.stride
        self.omega = self._sums = None
        if dials.link == "relations" and r.num_basic and dials.frames_ahead:
            self.omega, self._sums = empty((n, window.stride), np.float32), empty((n, r.heads, 2), np.float32)
        self.described = empty((n, r.dim), weights.kind) if dials.over_gaps else None
        self._scratch = Scratch(queue, self._kernels, r, weights.kind)
        if r.num_basic:
            self._scratch.reserve(n, frames * window.stride, modules=min(r.num_basic, 2))
        if r.advanced:
            self._scratch.reserve(n, advanced)
            if self._slides:
                self._scratch.reserve(self._room, window.slots * window.stride, partials=False)
                self._scratch.reserve(advanced, window.stride, partials=False)
            else:
                self._scratch.reserve(advanced, frames * window.stride)
        self._scratch.allocate()

    def _prepare_advanced(self, frames: int) -> int:
        """Buffers of the advanced stage; returns A."""
        dials, window, empty, dim = self._dials, self._window, self._queue.empty, self._relation.dim
        slots = window.slots
        if self._slides:
            self._room = room = in_groups(dials.num_advanced)
            advanced = slots * room
            rows, times = (slots, window.stride), (slots, room)
            self._lists = SlideLists(
                rows=empty(rows, np.int32), multiplicity=empty(rows, np.float32),
                slot_repeats=empty(slots, np.float32),
                advanced_rows=empty(times, np.int32), advanced_multiplicity=empty(times, np.float32),
                new_slot=empty(1, np.int32), new_rows=empty(window.stride, np.int32),
                new_multiplicity=empty(window.stride, np.float32),
                new_advanced_rows=empty(room, np.int32), new_places=empty(room, np.int32),
            )  # fmt: skip
            self._kept = Partials(
                empty((slots, advanced, dim), np.float32), empty((slots, advanced, self._relation.heads, 2), np.float32)
            )
            self._slot_numbers = self._weights.gpu.put(np.arange(slots, dtype=np.int32))
        else:
            advanced = cuda.advanced_capacity(self._kernels, frames, dials)
            self._positions, self._taken = empty(advanced, np.int32), empty(advanced, np.int32)
            self._taken_counted = empty(advanced, np.float32)
        kind = self._weights.kind
        self._advanced_boxes = empty((advanced, 4), np.float32)
        self._refined, self._projected = empty((advanced, dim), kind), empty((2, advanced, dim), kind)
        return advanced

    @property
    def nbytes(self) -> int:
        """Bytes, all of which are there from the start."""
        held = [a for part in (self, self.reference) for a in vars(part).values() if a is not self._window]
        if self._slides:
            held += [*vars(self._lists).values(), self._kept.values, self._kept.weights]
        return sum(int(a.nbytes) for a in held if hasattr(a, "nbytes"))

    # The sliding refinement (docs/gpu.md)

    def slide(self) -> None:
        """After an append: what the newest frame adds to every row, and its own rows."""
        if not self._slides:
            return
        lists, window, stream = self._lists, self._window, self._queue.ptr
        cuda.list_slide(self._kernels, self._ring, lists, stream=stream)
        everything = Supports(window.boxes, lists.rows.reshape(-1), lists.multiplicity.reshape(-1))
        own = Queries(window.boxes, lists.new_advanced_rows)
        self._refine(own, everything, query_places=lists.new_places)
        newest = Supports(window.boxes, lists.new_rows, lists.new_multiplicity)
        self._refine(self._every_row(), newest, split_places=lists.new_slot)

    def prime(self) -> None:
        """Every row looks at every frame: where partial results of another dial setting, or none, would be found."""
        if not self._slides:
            return
        lists, window = self._lists, self._window
        cuda.list_slide(self._kernels, self._ring, lists, stream=self._queue.ptr)
        for slot in range(window.slots):
            frame = Supports(window.boxes, lists.rows[slot], lists.multiplicity[slot])
            self._refine(self._every_row(), frame, split_places=self._slot_numbers[slot : slot + 1])

    def _every_row(self) -> Queries:
        return Queries(self._window.boxes, self._lists.advanced_rows.reshape(-1))

    def _refine(self, queries: Queries, supports: Supports, **places: Any) -> None:
        window, module = self._window, self._relation.num_basic
        query, keys, values = window.refine_query, window.keys[module], window.values[module]
        attention = self._attention(module, queries, supports, query=query, keys=keys, values=values)
        cuda.attend(
            self._kernels, queries, supports, inputs=attention, split_size=window.stride, partials=self._kept, **places,
            workspace=self._scratch.geometry, stream=self._queue.ptr,
        )  # fmt: skip

    # A result

    def result(self) -> None:
        """From the reference proposals of the frame that the window's numbers name to `logits` and `deltas`."""
        r, window, dials, stream = self._relation, self._window, self._dials, self._queue.ptr
        window.load(self.reference)
        if self.described is not None:
            # Now, because the modules add to the features in place.
            self._queue.copy(self.described, self.reference.features)
        x, query = self.reference.features, self.reference.query
        if r.num_modules:
            cuda.list_window(self._kernels, self._ring, rows=self._rows, multiplicity=self._counted, stream=stream)
            if dials.sampling == "per_frame" and r.advanced:
                cuda.list_slide(self._kernels, self._ring, self._lists, stream=stream)
            x, query = self._basic(x, query)
        if r.advanced:
            self._distil(x, query)
        self._weights.linear(self._queue, "classify", x, self.logits)
        self._weights.linear(self._queue, "regress", x, self.deltas)

    def _basic(self, x: Any, query: Any) -> tuple[Any, Any]:
        queue, weights, window = self._queue, self._weights, self._window
        other = self._hidden
        queries, supports = Queries(self.reference.boxes), self._pool()
        for i in range(self._relation.num_basic):
            if i:
                weights.linear(queue, f"basic_fc.{i - 1}", x, other, relu=True)
                x, other = other, x
                weights.linear(queue, f"rel.{i}.query", x, self._query)
                query = self._query
            attention = self._attention(
                i,
                queries,
                supports,
                query=query,
                keys=window.keys[i],
                values=window.values[i],
                shared=self._relation.num_basic,
            )
            last = i == self._relation.num_basic - 1
            self._look(i, queries, supports, attention, out=x, residual=x, weight=self._sums if last else None)
            if last and self.omega is not None:
                cuda.average_weights(
                    self._kernels, queries, supports, inputs=attention, weight=self._sums, omega_range=self._linked,
                    omega=self.omega, workspace=self._scratch.geometry, stream=queue.ptr,
                )  # fmt: skip
        return x, query

    def _distil(self, x: Any, query: Any) -> None:
        """x + rel_{N_b+1}(x, a), in place."""
        r, queue, weights = self._relation, self._queue, self._weights
        module = r.num_basic + 1
        advanced = self._refined_by_frame() if self._slides else self._refined_whole()
        a, keys, values = advanced.features, self._projected[0], self._projected[1]
        if r.advanced_fc:
            weights.linear(queue, "advanced_fc", a, keys, relu=True)
            a, keys = keys, a
        weights.linear(queue, f"rel.{module}.key", a, keys, bias=False)
        weights.linear(queue, f"rel.{module}.value", a, values, bias=False)
        if r.num_basic:
            weights.linear(queue, f"rel.{module}.query", x, self._query)
            query = self._query
        cuda.take_rows(self._kernels, self._window.boxes, advanced.rows, out=self._advanced_boxes, stream=queue.ptr)
        queries = Queries(self.reference.boxes)
        supports = Supports(self._advanced_boxes, None, advanced.counted)
        attention = self._attention(module, queries, supports, query=query, keys=keys, values=values)
        self._look(module, queries, supports, attention, out=x, residual=x)

    def _refined_by_frame(self) -> _Advanced:
        """s_A + rel_{N_b}(s_A, S) from what each frame of the window contributes."""
        lists, rows = self._lists, self._lists.advanced_rows.reshape(-1)
        cuda.combine(
            self._kernels, self._kept, self._refined, split_count=lists.slot_repeats,
            value_bias=self._weights.value_bias(self._relation.num_basic), residual=self._window.features,
            residual_rows=rows, stream=self._queue.ptr,
        )  # fmt: skip
        return _Advanced(self._refined, rows, lists.advanced_multiplicity.reshape(-1))

    def _refined_whole(self) -> _Advanced:
        """The same for rows that the whole pool chose, which change from frame to frame."""
        window, dials, module = self._window, self._dials, self._relation.num_basic
        cuda.sample_advanced(
            self._kernels, window.objectness, rows=self._rows, multiplicity=self._counted, dials=dials,
            positions=self._positions, taken_rows=self._taken, counted=self._taken_counted, stream=self._queue.ptr,
        )  # fmt: skip
        queries, supports = Queries(window.boxes, self._taken), self._pool()
        attention = self._attention(
            module, queries, supports, query=window.refine_query, keys=window.keys[module], values=window.values[module]
        )
        self._look(
            module,
            queries,
            supports,
            attention,
            out=self._refined,
            residual=window.features,
            residual_rows=self._taken,
        )
        return _Advanced(self._refined, self._taken, self._taken_counted)

    def _pool(self) -> Supports:
        return Supports(self._window.boxes, self._rows.reshape(-1), self._counted.reshape(-1))

    def _attention(
        self, module: int, queries: Queries, supports: Supports, *, query: Any, keys: Any, values: Any, shared: int = 0
    ) -> AttentionInputs:
        """What a module attends with. The first `shared` modules look from the same boxes at the same boxes."""
        weight, bias = self._weights.geometry_weight, self._weights.geometry_bias
        if self._weights.kind == np.float32:
            return AttentionInputs(
                query=query, keys=keys, values=values, geometry_weight=weight[module], geometry_bias=bias[module]
            )
        n, count = queries_count(queries), supports_count(supports)
        first = module - module % 2 if module < shared else module
        pair = slice(first, min(first + 2, shared) if module < shared else first + 1)
        gates = self._scratch.gates((pair.stop - pair.start, self._relation.heads, n, count))
        if module == first:
            cuda.find_gates(
                self._kernels, queries, supports, geometry_weight=weight[pair], geometry_bias=bias[pair], gates=gates,
                workspace=self._scratch.geometry, stream=self._queue.ptr,
            )  # fmt: skip
        return AttentionInputs(query=query, keys=keys, values=values, gates=gates[module - first])

    def _look(
        self,
        module: int,
        queries: Queries,
        supports: Supports,
        inputs: AttentionInputs,
        *,
        out: Any,
        residual: Any,
        residual_rows: Any = None,
        weight: Any = None,
    ) -> None:
        """out = residual + rel_module(queries, supports); weight: as `cuda.combine`."""
        split, partials = self._scratch.partials(queries_count(queries), supports_count(supports))
        cuda.attend(
            self._kernels, queries, supports, inputs=inputs, split_size=split, partials=partials,
            workspace=self._scratch.geometry, stream=self._queue.ptr,
        )  # fmt: skip
        cuda.combine(
            self._kernels, partials, out, value_bias=self._weights.value_bias(module), residual=residual,
            residual_rows=residual_rows, weight=weight, stream=self._queue.ptr,
        )  # fmt: skip


def queries_count(queries: Queries) -> int:
    return int((queries.boxes if queries.rows is None else queries.rows).shape[0])


def supports_count(supports: Supports) -> int:
    return int((supports.boxes if supports.rows is None else supports.rows).shape[0])
