"""The runtime behind `device="cuda"`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rdn_engine.backends.graph import Backend
from rdn_engine.bundle.contract import require_graphs
from rdn_engine.bundle.directory import Bundle
from rdn_engine.config import Dials, RDNConfig
from rdn_engine.device.batch import DeviceStreamBatch
from rdn_engine.device.encoder import DeviceGraphs
from rdn_engine.device.gpu import Gpu
from rdn_engine.device.model import DeviceModel
from rdn_engine.device.relation import DevicePrecision, DeviceRelation
from rdn_engine.device.stream import DeviceStream
from rdn_engine.errors import BackendUnavailable
from rdn_engine.results import Detections


class DeviceRuntime:
    """A model on a device. Its streams take and give device arrays too."""

    def __init__(self, model: DeviceModel, threads: int) -> None:
        self.model, self.threads = model, threads

    @classmethod
    def load(
        cls, bundle: Bundle, backend: Backend, gpu: Gpu, *, precision: DevicePrecision, threads: int
    ) -> DeviceRuntime:
        """Put a model on the device.

        Args:
            bundle: whose files were checked.
            backend: runs its graphs.
            gpu: the device.
            precision: of what the relation stage stores and multiplies.
            threads: bounds the CPU threads of one call.

        Raises:
            BundleError: for a graph or a weight that is not what the configuration wants.
            BackendUnavailable: for an attached detector, a bundle with calibrated confidences, and a precision that is
                not to be had here.
            ConfigError: for an unknown precision.
        """
        if bundle.config.attached is not None:
            raise BackendUnavailable("an attached detector runs on device 'cpu' only; got device 'cuda'")
        if bundle.manifest.confidence is not None:
            raise BackendUnavailable(
                f"{bundle.directory} has calibrated confidences, which device='cuda' cannot map; wanted device='cpu', "
                "or the bundle that it was made from"
            )
        with gpu.current():
            graphs = DeviceGraphs(*(backend.load_device(bundle.path(role)) for role in ("backbone", "roi_head")))
            require_graphs(bundle.config, *graphs)
            relation = DeviceRelation(gpu, bundle.config, bundle.arrays("weights"), precision)
        return cls(DeviceModel(gpu, bundle.config, graphs, relation), threads)

    @property
    def config(self) -> RDNConfig:
        return self.model.config

    def open_stream(self, dials: Dials, capacity: Dials, source_id: str) -> DeviceStream:
        return DeviceStream(self.model, dials, capacity, source_id)

    def open_streams(self, dials: Dials, capacity: Dials, source_ids: Sequence[str]) -> DeviceStreamBatch:
        return DeviceStreamBatch(self.model, dials, capacity, source_ids)

    def push_each(self, streams: Sequence[DeviceStream], frames: Sequence[Any]) -> list[list[Detections] | Exception]:
        answers: list[list[Detections] | Exception] = []
        for stream, frame in zip(streams, frames, strict=True):
            try:
                answers.append(stream.push(frame))
            except Exception as error:
                answers.append(error)
        return answers
