"""The weights and graphs of one model on the device, shared by its streams."""

from __future__ import annotations

from dataclasses import dataclass

from rdn_engine.config import RDNConfig
from rdn_engine.device.encoder import DeviceGraphs
from rdn_engine.device.gpu import Gpu
from rdn_engine.device.relation import DeviceRelation


@dataclass(frozen=True)
class DeviceModel:
    """What streams share: nothing here changes from frame to frame."""

    gpu: Gpu
    config: RDNConfig
    graphs: DeviceGraphs
    relation: DeviceRelation
