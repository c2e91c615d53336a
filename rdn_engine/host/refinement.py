"""The sliding refinement of one stream: what its advanced support proposals have summed over their windows."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rdn_engine.config import RelationConfig
from rdn_engine.host.features import SupportPool
from rdn_engine.kernels import cpu
from rdn_engine.kernels.cpu.arrays import Float, Index


class Refinement:
    """Sums of rows of the ring, and the frames that they hold; DESIGN section 3, point 5.

    Only what changes from one window to the next is computed: the frame that came, the one that went, and the rows that
    were not refined before. There are places for as many rows as the capacity lets a window refine. A row that goes
    unrefined for a while, or whose window changes altogether, begins anew.
    """

    def __init__(self, config: RelationConfig, *, slots: int, room: int, places: int) -> None:
        """Room for the sums; nothing is held yet.

        Args:
            config: says M and D, and whether there is an advanced stage; without one no room is taken.
            slots: of the ring.
            room: rows of a slot.
            places: rows whose sums are held at once; a window's rows beyond are left to the caller.
        """
        heads, dim, places = config.heads, config.dim, places if config.advanced else 0
        per_head = places, heads
        self._sums = cpu.RunningSums(
            np.zeros((places, dim)), np.zeros(per_head), np.zeros(per_head), np.zeros(per_head, np.float32)
        )
        self._row = np.full(places, -1)  # of the ring, whose sums are at a place; -1 where nobody's are
        self._included = np.zeros((places, slots), np.float32)  # how often the sums hold the frame of a slot
        self._counts = np.zeros(slots, np.int64)  # support proposals of those frames
        self._room = room

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays; always the same."""
        arrays = (self._row, self._included, self._counts, *self._sums)
        return sum(array.nbytes for array in arrays)

    def forget(self) -> None:
        """Every row begins anew."""
        self._row[:] = -1

    def forget_slot(self, slot: int) -> None:
        """Forget a slot before another frame takes it: its rows begin anew, and those that still hold what it has now.

        Args:
            slot: 0..slots - 1.
        """
        self._row[(self._row // self._room == slot) | (self._included[:, slot] != 0)] = -1

    def _places(self, rows: Index) -> Index:
        """Where the sums of distinct rows are, -1 of those that find no place; new ones take those of other rows."""
        place_of = np.full(len(self._counts) * self._room, -1)
        held = np.flatnonzero(self._row >= 0)
        place_of[self._row[held]] = held
        places = place_of[rows]
        free = np.ones(len(self._row), np.bool_)
        free[places[places >= 0]] = False
        taken = np.flatnonzero(free)[: np.count_nonzero(places < 0)]
        new = np.flatnonzero(places < 0)[: len(taken)]
        places[new], self._row[taken], self._included[taken] = taken, rows[new], 0
        return places

    def step(
        self, pool: SupportPool, module: int, value_bias: Float, geometry: cpu.Packed, threads: int
    ) -> tuple[Float, NDArray[np.bool_]]:
        """The refinement of the pool's advanced rows, a + rel_module(a, S); DESIGN section 2 (Stages).

        Args:
            pool: window of the frame; its counts may differ from those of the last step.
            module: of the refinement, among the cached ones.
            value_bias: [D] of its values.
            geometry: of its W_g, from `cpu.prepare_geometry`.
            threads: bounds the CPU threads.

        Returns:
            [A, D], and [A] which of them have to be computed from the whole pool instead, because there was no place
            for their sums, or something is not finite.
        """
        slots, counts = pool.slots, pool.slot_counts
        self._row[self._included[:, counts != self._counts].any(1)] = -1
        self._counts[:] = counts
        places = self._places(pool.advanced_rows)
        placed = np.flatnonzero(places >= 0)
        places = places[placed]
        queries = pool.queries(pool.advanced_rows[placed])
        wanted = np.zeros(len(counts), np.float32)
        wanted[slots] = pool.repeats
        held = self._included[places]
        change = wanted - held
        restart = ~held.any(1) | (np.count_nonzero(change, 1) >= np.count_nonzero(wanted))
        change[restart] = wanted
        # Held by nobody, should the kernel fail half way.
        self._included[places] = 0

        def refine(part: Index | slice, change: Float, restart: NDArray[np.bool_]) -> cpu.Refined:
            touched = np.flatnonzero(change.any(0))
            return cpu.relation_refine(
                cpu.QueryRows(*(array[part] for array in queries)),
                places[part],
                bank=pool.bank(module),
                slots=touched,
                counts=counts[touched],
                change=change[:, touched],
                restart=restart,
                geometry=geometry,
                value_bias=value_bias,
                sums=self._sums,
                threads=threads,
            )

        out, status = refine(slice(None), change, restart)
        again = np.flatnonzero((status == cpu.CANCELLED) & ~restart)
        if len(again):
            whole = np.tile(wanted, (len(again), 1))
            out[again], status[again] = refine(again, whole, np.ones(len(again), np.bool_))
        self._included[places[status == cpu.RIGHT]] = wanted
        if len(placed) == len(pool.advanced_rows):
            return out, status != cpu.RIGHT
        every, left = (
            np.zeros((len(pool.advanced_rows), out.shape[1]), np.float32),
            np.ones(len(pool.advanced_rows), np.bool_),
        )
        every[placed], left[placed] = out, status != cpu.RIGHT
        return every, left
