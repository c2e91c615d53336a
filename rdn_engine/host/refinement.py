"""The sliding refinement of one stream: what its advanced support proposals have summed over their windows."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rdn_engine.config import RelationConfig
from rdn_engine.host.features import SupportPool
from rdn_engine.kernels import cpu
from rdn_engine.kernels.cpu.arrays import Float


class Refinement:
    """Sums of every row of the ring, and the frames that they hold; DESIGN section 3, point 5.

    Only what changes from one window to the next is computed: the frame that came, the one that went, and the rows that
    were not refined before. A row that goes unrefined for a while, or whose window changes altogether, begins anew.
    """

    def __init__(self, config: RelationConfig, *, slots: int, room: int) -> None:
        """Room for the sums; nothing is held yet.

        Args:
            config: says M and D, and whether there is an advanced stage; without one no room is taken.
            slots: of the ring.
            room: rows of a slot.
        """
        heads, dim, room = config.heads, config.dim, room if config.advanced else 0
        rows = slots * room
        per_head = rows, heads
        self._sums = cpu.RunningSums(
            np.zeros((rows, dim)), np.zeros(per_head), np.zeros(per_head), np.zeros(per_head, np.float32)
        )
        self._included = np.zeros((rows, slots), np.float32)  # how often a row's sums hold the frame of a slot
        self._counts = np.zeros(slots, np.int64)  # support proposals of those frames
        self._room = room

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays; always the same."""
        return self._included.nbytes + self._counts.nbytes + sum(array.nbytes for array in self._sums)

    def forget(self) -> None:
        """Every row begins anew."""
        self._included[:] = 0

    def forget_slot(self, slot: int) -> None:
        """Forget a slot before another frame takes it: its rows begin anew, and those that still hold what it has now.

        Args:
            slot: 0..slots - 1.
        """
        self._included[slot * self._room : (slot + 1) * self._room] = 0
        self._included[self._included[:, slot] != 0] = 0

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
            [A, D], and [A] which of them have to be computed from the whole pool instead, because something is not
            finite.
        """
        rows, slots, counts = pool.advanced_rows, pool.slots, pool.slot_counts
        self._included[self._included[:, counts != self._counts].any(1)] = 0
        self._counts[:] = counts
        wanted = np.zeros(len(counts), np.float32)
        wanted[slots] = pool.repeats
        held = self._included[rows]
        change = wanted - held
        restart = ~held.any(1) | (np.count_nonzero(change, 1) >= np.count_nonzero(wanted))
        change[restart] = wanted
        # Held by nobody, should the kernel fail half way.
        self._included[rows] = 0

        def refine(part: NDArray[np.bool_], change: Float, restart: NDArray[np.bool_]) -> cpu.Refined:
            touched = np.flatnonzero(change.any(0))
            return cpu.relation_refine(
                pool.refine_query,
                pool.features,
                rows[part],
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

        out, status = refine(np.ones(len(rows), np.bool_), change, restart)
        again = (status == cpu.CANCELLED) & ~restart
        if again.any():
            whole = np.tile(wanted, (int(again.sum()), 1))
            out[again], status[again] = refine(again, whole, np.ones(len(whole), np.bool_))
        self._included[rows[status == cpu.RIGHT]] = wanted
        return out, status != cpu.RIGHT
