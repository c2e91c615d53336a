"""The relation stage as a graph on a backend: standard operators only, so that any runtime can run it."""

from __future__ import annotations

import numpy as np

from rdn_engine.backends.graph import Graph
from rdn_engine.config import RDNConfig
from rdn_engine.errors import BundleError
from rdn_engine.host.features import RelationOutput, SupportPool
from rdn_engine.kernels import cpu
from rdn_engine.kernels.cpu.arrays import Float


class GraphRelation:
    """The relation graph on a backend: standard operators only, so that any runtime can run it."""

    precision: cpu.Precision = "float32"

    def __init__(self, config: RDNConfig, graph: Graph) -> None:
        known = {"features", "query", "boxes", "support_boxes", "keys", "values", "log_multiplicity",
                 "advanced_boxes", "advanced_features", "advanced_query", "advanced_log_multiplicity"}  # fmt: skip
        wanted = {"logits", "deltas"} | ({"omega"} if config.relation.num_basic else set())
        if not set(graph.inputs) <= known or not wanted <= set(graph.outputs):
            raise BundleError(
                f"graph relation has inputs {list(graph.inputs)} and outputs {list(graph.outputs)}; wanted inputs "
                f"among {sorted(known)} and outputs {sorted(wanted)}"
            )
        self._graph = graph
        self._num_logits = config.num_logits
        self._has_omega = config.relation.num_basic > 0

    def __call__(
        self, boxes: Float, features: Float, query: Float, pool: SupportPool, omega_rows: tuple[int, int] | None = None
    ) -> RelationOutput:
        asked = omega_rows if self._has_omega else None
        # A graph need not accept zero rows. A frame with proposals is in its own window, so its pool is never empty.
        if not len(features):
            return RelationOutput.of_no_rows(self._num_logits, asked)
        advanced = pool.queries(pool.advanced_rows)
        keys, values = pool.plain()
        feeds = {
            "features": features,
            "query": query,
            "boxes": boxes,
            "support_boxes": pool.boxes[pool.rows],
            "keys": keys,
            "values": values,
            "log_multiplicity": np.log(pool.multiplicity),
            "advanced_boxes": advanced.boxes,
            "advanced_features": advanced.residual,
            "advanced_query": advanced.query,
            "advanced_log_multiplicity": np.log(pool.advanced_multiplicity),
        }
        found = self._graph({name: np.ascontiguousarray(feeds[name]) for name in self._graph.inputs})
        omega = found["omega"][:, asked[0] : asked[1]] if asked is not None else None
        return RelationOutput(found["logits"], found["deltas"], omega)
