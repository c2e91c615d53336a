"""Streams on Ray Serve: replicas with a detector each, and a router that keeps a stream on its replica.

from ray import serve
from rdn_engine.serve.ray.deployment import application

serve.run(application("models/rdn_tiny/engines", replicas=2), name="rdn", route_prefix=None)
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from rdn_engine.config import Dials
from rdn_engine.detector import Detector
from rdn_engine.errors import Overloaded
from rdn_engine.plain import check
from rdn_engine.serve.admission import check_live
from rdn_engine.serve.opening import DetectorOptions
from rdn_engine.serve.ray.cluster import ray_module
from rdn_engine.serve.sessions import Reply, Request, Sessions


def application(
    engines: str | Path,
    *,
    replicas: int = 1,
    options: DetectorOptions | None = None,
    dials: Dials | None = None,
    room: int = 32,
    byte_budget: int | None = None,
    idle_seconds: float = 60.0,
) -> Any:
    """An application for `ray.serve.run`.

    Args:
        engines: directory, as the replicas find it.
        replicas: processes, each with a detector; `threads` CPUs of the options, by default 1, are a replica's.
        options: of the detector.
        dials: of every stream; None takes the model's own.
        room: requests that may be at a replica at once, one of them in work; one more is refused.
        byte_budget: bytes of the windows of a replica, at least those of one; a stream beyond is refused. None for no
            bound.
        idle_seconds: after which the window of a stream that sends nothing goes.

    Raises:
        ConfigError: for a number out of its range, and for dials that no live stream can have.
        BackendUnavailable: without Ray Serve.
    """
    check(replicas >= 1, "replicas", replicas, "1 or more")
    check(room >= 1, "room", room, "1 or more")
    if dials is not None:
        check_live(dials)
    options = options or DetectorOptions(threads=1)
    serve = ray_module("serve").serve
    from ray.serve.config import RequestRouterConfig
    from ray.serve.experimental.consistent_hash_router import ConsistentHashRouter

    deployment = serve.deployment(
        name="streams",
        num_replicas=replicas,
        # Replicas refuse by themselves, at once. At this bound Ray would hold a frame back.
        max_ongoing_requests=8 * room,
        request_router_config=RequestRouterConfig(
            request_router_class=ConsistentHashRouter,
            request_router_kwargs={"num_fallback_replicas": 0},
        ),
        ray_actor_options={
            "num_cpus": options.threads or 1,
            "num_gpus": 1 if options.device == "cuda" else 0,
        },
    )
    return deployment(Replica).bind(Path(engines).absolute(), options, dials, room, byte_budget, idle_seconds)


class Replica:
    """One detector and its streams."""

    def __init__(
        self,
        engines: Path,
        options: DetectorOptions,
        dials: Dials | None,
        room: int,
        byte_budget: int | None,
        idle_seconds: float,
    ) -> None:
        detector: Detector[Any, Any] = options.open(engines)
        self._sessions = Sessions(
            detector, dials or detector.config.dials, byte_budget=byte_budget, idle_seconds=idle_seconds
        )
        self._room, self._inside = room, 0
        self._thread = ThreadPoolExecutor(1, "rdn-streams")

    async def step(self, request: Request) -> Reply:
        """Answer a request, or refuse it at once.

        Args:
            request: of a client.
        """
        # The end of a stream gives memory back, and is not refused.
        if request.frames and self._inside >= self._room:
            said = f"{self._inside} requests are at this replica; it takes {self._room}"
            return Reply(request.session, error=Overloaded(said))
        self._inside += 1
        try:
            [reply] = await asyncio.get_running_loop().run_in_executor(self._thread, self._sessions.step, [request])
            return reply
        finally:
            self._inside -= 1
