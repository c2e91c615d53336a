"""Streams whose windows are on replicas of Ray Serve (docs/scale.md)."""

from __future__ import annotations

from typing import Any

from rdn_engine.errors import Overloaded, ServerUnavailable
from rdn_engine.serve.client import RemoteStream
from rdn_engine.serve.ray.cluster import job_failed, ray_module
from rdn_engine.serve.sessions import Reply, Request


def open_ray_stream(app: str, name: str, *, timeout: float = 30.0) -> RemoteStream:
    """A stream on an application of `serve.ray.deployment`, to which nothing is sent yet.

    Args:
        app: name of the application, on the cluster that this process is connected to.
        name: of the stream, unlike that of any other of the application, which the router keeps on its replica.
        timeout: seconds that a push may take, those included in which a dead replica is replaced.

    Raises:
        ConfigError: for a timeout out of its range.
        BackendUnavailable: without Ray Serve.
    """
    return RemoteStream(RayTransport(app, name), name, timeout=timeout)


class RayTransport:
    """Requests go to the replica that the router finds for the stream's name."""

    many = True

    def __init__(self, app: str, name: str) -> None:
        self._ray = ray_module("serve")
        self._handle: Any = self._ray.serve.get_app_handle(app).options(session_id=name)

    def send(self, request: Request, seconds: float) -> Reply:
        from ray.serve.exceptions import BackPressureError, RayServeException

        try:
            reply: Reply = self._handle.step.remote(request).result(timeout_s=seconds)
            return reply
        except BackPressureError as error:
            return Reply(request.session, error=Overloaded(str(error)))
        except TimeoutError as error:
            raise ServerUnavailable(f"stream {request.stream}: no answer in {seconds:g} s") from error
        except (self._ray.exceptions.RayActorError, RayServeException) as error:
            raise ServerUnavailable(f"stream {request.stream}: no replica answers: {error}") from error
        except self._ray.exceptions.RayError as error:
            raise job_failed(error) from error

    def close(self) -> None:
        """Nothing: the connection is the process's."""
