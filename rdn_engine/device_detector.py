"""A detector whose streams live on the device."""

from __future__ import annotations

from collections.abc import Sequence

from rdn_engine.backends import Backend
from rdn_engine.bundle import Bundle
from rdn_engine.config import Dials
from rdn_engine.detector import Detector
from rdn_engine.device_batch import StreamBatch
from rdn_engine.device_encoder import DeviceGraphs
from rdn_engine.device_relation import DevicePrecision, DeviceRelation
from rdn_engine.device_stream import DeviceStages, DeviceStream
from rdn_engine.encoder import require_graphs
from rdn_engine.gpu import Gpu


class DeviceDetector(Detector):
    """What `Detector.from_pretrained(..., device="cuda")` gives: a Detector whose streams take and give device arrays
    too. Shared as a Detector is; a stream is of one thread at a time.
    """

    def __init__(self, stages: DeviceStages, threads: int) -> None:
        self.config = stages.config
        self.threads = threads
        self._device_stages = stages

    @classmethod
    def load(
        cls, bundle: Bundle, backend: Backend, gpu: Gpu, precision: DevicePrecision, threads: int
    ) -> DeviceDetector:
        """Put a model on the device. Raises as `from_pretrained`."""
        with gpu.current():
            graphs = DeviceGraphs(*(backend.load_device(bundle.path(role)) for role in ("backbone", "roi_head")))
            require_graphs(bundle.config, *graphs)
            relation = DeviceRelation(gpu, bundle.config, bundle.arrays("weights"), precision)
        return cls(DeviceStages(gpu, bundle.config, graphs, relation), threads)

    def open_stream(
        self, dials: Dials | None = None, *, capacity: Dials | None = None, source_id: str = ""
    ) -> DeviceStream:
        dials = self.config.dials if dials is None else dials
        return DeviceStream(self._device_stages, dials, dials if capacity is None else capacity, source_id)

    def open_streams(
        self, source_ids: Sequence[str], dials: Dials | None = None, *, capacity: Dials | None = None
    ) -> StreamBatch:
        """One stream for each name, whose frames are encoded as one batch."""
        dials = self.config.dials if dials is None else dials
        return StreamBatch(self._device_stages, dials, dials if capacity is None else capacity, source_ids)
