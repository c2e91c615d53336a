"""The Ray cluster that work goes to: one of its own on this machine, or one that is there."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import socket
from collections.abc import Iterator
from typing import Any

from rdn_engine.errors import BackendUnavailable, ConfigError, RDNError

LOCAL = "local"
"""Address of a cluster that is started on this machine, and ends with the process"""
CONNECT_SECONDS = 10.0
"""In which an address answers"""
_ADDRESS = re.compile(r"local|auto|(ray://)?[\w.\-\[\]:]+:\d+", re.ASCII)


def ray_module(*parts: str) -> Any:
    """Ray, whose annotations are not strict.

    Args:
        parts: of it that are wanted, `data` or `serve`.

    Raises:
        BackendUnavailable: where it, or what a part needs, is not installed.
    """
    # Ray sends statistics of its use to its makers; nothing is sent here but what was asked for.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Its C++ half warns on stderr of how Ray Data itself uses it; the logs of its session have that too.
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    try:
        import ray

        if "data" in parts:
            import ray.data
        if "serve" in parts:
            import ray.serve
    except ImportError as error:
        raise BackendUnavailable(f"this needs Ray ({error}); pip install 'ray[data,serve]'") from error
    return ray


@contextlib.contextmanager
def cluster(address: str, *, cpus: int | None = None) -> Iterator[Any]:
    """Connect to a cluster; a process has one connection at a time.

    Args:
        address: `local` starts one here; `auto` finds the one that runs on this machine; HOST:PORT or
            ray://HOST:PORT is another.
        cpus: of a local one; None takes those that this process may run on.

    Returns:
        Ray. The connection, and a local cluster, end with the context.

    Raises:
        ConfigError: for what is no address.
        BackendUnavailable: without Ray, or where nothing answers.
    """
    if not _ADDRESS.fullmatch(address):
        raise ConfigError(f"--ray is {address!r}; wanted local, auto, HOST:PORT or ray://HOST:PORT")
    ray = ray_module("data")
    _reach(address)
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR, "configure_logging": True}
    if address == LOCAL:
        from rdn_engine.cpus import available_cpus

        # As any command: Ray's own niceness of 15 lets all else on the machine go first.
        os.environ.setdefault("RAY_worker_niceness", "0")
        options |= {"num_cpus": cpus or available_cpus(), "include_dashboard": False}
    try:
        ray.init(address, **options)
    except Exception as error:  # the class itself where a node does not start in time, as on a machine under load
        raise BackendUnavailable(f"no Ray cluster at {address}: {error}") from error
    try:
        yield ray
    finally:
        ray.shutdown()


def _reach(address: str) -> None:
    """Ray itself asks an address where nothing listens for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host:
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), CONNECT_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise BackendUnavailable(f"no Ray cluster at {address}: {error}") from error


def job_failed(error: Exception) -> RDNError:
    """What ended a job of Ray, as an error of this package.

    Args:
        error: of Ray.
    """
    cause = getattr(error, "cause", None)
    if isinstance(cause, RDNError):
        return cause
    lines = [line for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return RDNError(f"the job on Ray ended: {type(error).__name__}: {lines[-1].strip():.500}")
