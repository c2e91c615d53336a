"""Remote streams of a made-up network, by the wire of Ray Serve and by that of Triton."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from rdn_engine.frame import Frame
from rdn_engine.results import Detections
from rdn_engine.serve.client import RemoteStream
from tests.fakes import image
from tests.serve.network import Compared, Direct, Network

Open = Callable[[Network, str], RemoteStream]


def by_ray(network: Network, name: str = "a") -> RemoteStream:
    return RemoteStream(Compared(Direct(network), network.detector), name, timeout=30)


def by_triton(network: Network, name: str = "a") -> RemoteStream:
    pytest.importorskip("tritonclient.grpc")
    from rdn_engine.serve.triton import client as wire
    from tests.serve.triton.backend import InferenceServerClient

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(wire, "InferenceServerClient", lambda *_, **__: InferenceServerClient(network))
        stream = wire.open_triton_stream("nowhere", "rdn", name=name, timeout=30)
    stream._transport = Compared(stream._transport, network.detector)
    return stream


def play(stream: RemoteStream, levels: range) -> list[Detections]:
    return [one for t in levels for one in stream.push(image(t))]


def fills(results: list[Detections]) -> list[tuple[int, int, int]]:
    return [(one.epoch, one.frame_index, one.pool_fill) for one in results]


def numbered(*levels: int, side: int = 16) -> list[Frame]:
    return [Frame(image(t, side, side), t, None, "a") for t in levels]
