"""What a service answers over HTTP: streams, metrics, health, pictures and the page. docs/service.md lists it."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import ipaddress
import json
import os
import socket
import threading
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from rdn_engine.errors import AdmissionRefused, BackendUnavailable, ConfigError, RDNError, StreamClosed
from rdn_engine.media.address import hide_sources
from rdn_engine.media.given import given_value
from rdn_engine.service.config import HttpSettings, stream_settings, texts
from rdn_engine.service.connections import bounded_protocol
from rdn_engine.service.metrics import exposition
from rdn_engine.service.page import HEADERS, INDEX, Asset, assets
from rdn_engine.service.service import Service

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response

T = TypeVar("T")

LONGEST_BODY = 2**16
"""Bytes of a request"""
BODY_SECONDS = 10.0
"""In which they must have come"""
CHANGES = 8
"""Requests that change something, at once: each may wait for a stage that is busy"""
_LOCAL = ("localhost", "127.0.0.1", "[::1]")
_MISSING = "answers over HTTP need starlette and uvicorn: pip install starlette uvicorn"


class HttpServer:
    """Answers from a thread of its own, until `close`."""

    def __init__(self, service: Service, settings: HttpSettings, listener: socket.socket | None = None) -> None:
        """Listen and answer.

        Args:
            service: that is asked.
            settings: where, and who may change streams.
            listener: of `listen`, where it was called before; closed with the server.

        Raises:
            BackendUnavailable: without the extra `serve`.
            ConfigError: for a token that is named elsewhere and not there.
            OSError: where nobody can listen.
        """
        try:
            import uvicorn
        except ImportError:
            raise BackendUnavailable(_MISSING) from None
        app = application(service, settings)
        self._socket = listener or listen(settings)
        host, self.port = self._socket.getsockname()[:2]
        """Where it listens"""
        self.address = f"http://{_in_address(host)}:{self.port}/"
        """For people"""
        config = uvicorn.Config(
            app, http=bounded_protocol(), ws="none", lifespan="off", timeout_graceful_shutdown=1,
            timeout_keep_alive=30, server_header=False, access_log=False,
            log_config=None, log_level="error",  # what is wrong with requests is for their senders
        )  # fmt: skip
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._serve, name="rdn-http", daemon=True)
        self._thread.start()

    def close(self, seconds: float = 3.0) -> bool:
        """Answer nobody any more.

        Args:
            seconds: to wait for the thread.

        Returns:
            Whether it has ended.
        """
        self._server.should_exit = True
        self._thread.join(seconds)
        self._socket.close()
        return not self._thread.is_alive()

    def _serve(self) -> None:
        self._server.run([self._socket])


def application(service: Service, settings: HttpSettings) -> Starlette:
    """The application, for any ASGI server.

    Args:
        service: that is asked.
        settings: who may change streams.

    Raises:
        BackendUnavailable: without the extra `serve`.
        ConfigError: for a token that is named elsewhere and not there.
    """
    try:
        from starlette.applications import Starlette
        from starlette.exceptions import HTTPException
        from starlette.middleware import Middleware
        from starlette.middleware.trustedhost import TrustedHostMiddleware
        from starlette.routing import Route
    except ImportError:
        raise BackendUnavailable(_MISSING) from None
    faces = _Faces(service, _may_change(settings))
    routes = [
        Route("/healthz", faces.health),
        Route("/readyz", faces.ready),
        Route("/metrics", faces.metrics),
        Route("/streams", faces.streams),
        Route("/streams", faces.add, methods=["POST"]),
        Route("/streams/{name}", faces.stream),
        Route("/streams/{name}", faces.patch, methods=["PATCH"]),
        Route("/streams/{name}", faces.remove, methods=["DELETE"]),
    ]
    if settings.page:
        routes += [
            Route("/streams/{name}/picture.jpg", faces.picture),
            Route("/streams/{name}/accept_view", faces.accept_view, methods=["POST"]),
            *(Route(f"/{'' if name == INDEX else name}", _static(asset)) for name, asset in assets().items()),
        ]
    names = settings.hosts or ((*_LOCAL, _in_address(settings.host)) if _is_local(settings.host) else ())
    middleware = [Middleware(TrustedHostMiddleware, allowed_hosts=list(names))] if names else []
    return Starlette(routes=routes, middleware=middleware, exception_handlers={**_KNOWN, HTTPException: _OTHER})


class _Refused(RDNError):
    """A request that is not answered."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class _Faces:
    """An endpoint each."""

    def __init__(self, service: Service, may_change: Callable[[Request], None]) -> None:
        from anyio import CapacityLimiter

        self._service, self._may_change = service, may_change
        self._changing = CapacityLimiter(CHANGES)

    # These two wait for no thread, however many pictures are being drawn.
    async def health(self, request: Request) -> Response:
        """200 where no stage is stuck, 503 where one is."""
        stuck = self._service.stuck()
        if stuck is None:
            return _json(200, {"healthy": True})
        return _json(503, {"healthy": False, "error": f"a stage has been busy for {stuck:.1f} s"})

    async def ready(self, request: Request) -> Response:
        """200 once the streams were started, until the service is told to stop."""
        ready = self._service.ready
        return _json(200 if ready else 503, {"ready": ready})

    def metrics(self, request: Request) -> Response:
        """For Prometheus."""
        from starlette.responses import Response

        content_type, body = exposition(self._service, request.headers.get("accept", ""))
        return Response(body, headers={"content-type": content_type})

    def streams(self, request: Request) -> Response:
        """Everything."""
        return _json(200, self._service.status())

    def stream(self, request: Request) -> Response:
        """One stream, or the last of its name that has ended."""
        status, name = self._service.status(), request.path_params["name"]
        found = next((one for one in (*status["streams"], *status["ended"]) if one["name"] == name), None)
        if found is None:
            raise KeyError(name)
        return _json(200, found)

    async def add(self, request: Request) -> Response:
        """Start a stream: `name` beside the fields of the file."""
        data = await self._body(request)
        name = data.pop("name", None)
        settings = stream_settings(name, data)
        if settings.source.startswith(("env:", "@")):
            # What stands there is the service's own, and a refusal might quote it to whoever asks.
            raise ConfigError("stream.source is named elsewhere; over HTTP wanted the source itself")
        await self._change(self._service.add, name, settings)
        return _json(201, {"name": name})

    async def patch(self, request: Request) -> Response:
        """Change dials."""
        data = await self._body(request)
        if set(data) != {"dials"}:
            raise ConfigError(f"the request has {sorted(data)}; wanted dials alone")
        in_effect = await self._change(self._service.set_dials, request.path_params["name"], data["dials"])
        return _json(200 if in_effect else 202, {"in_effect": in_effect})

    async def remove(self, request: Request) -> Response:
        """End a stream."""
        self._may_change(request)
        drain = request.query_params.get("drain", "true")
        if drain not in ("true", "false"):
            raise ConfigError(f"drain is {drain!r}; wanted true or false")
        await self._change(partial(self._service.remove, drain=drain == "true"), request.path_params["name"])
        return _json(202, {"ending": request.path_params["name"]})

    def picture(self, request: Request) -> Response:
        """A late picture with its boxes, no larger than a tile of `side` pixels wants; 204 until there is one."""
        from starlette.responses import Response

        side = request.query_params.get("side", "")
        if side and not (side.isascii() and side.isdecimal() and len(side) < 6):
            raise ConfigError(f"side is {side[:100]!r}; wanted pixels")
        jpeg = self._service.preview(request.path_params["name"]).jpeg(int(side) if side else None)
        if jpeg is None:
            return Response(status_code=204, headers={"cache-control": "no-store"})
        return Response(jpeg, headers={"content-type": "image/jpeg", "cache-control": "no-store"})

    async def accept_view(self, request: Request) -> Response:
        """The camera was moved on purpose."""
        await self._body(request)
        self._service.preview(request.path_params["name"]).accept_view()
        return _json(200, {"accepted": request.path_params["name"]})

    async def _change(self, call: Callable[..., T], *arguments: Any) -> T:
        """Call what may wait, in a thread: those who only look have others."""
        from anyio.to_thread import run_sync

        return await run_sync(call, *arguments, limiter=self._changing)

    async def _body(self, request: Request) -> dict[str, Any]:
        """What a request that changes something holds, once it may."""
        self._may_change(request)
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            # A page of another origin can send a form without asking, JSON it cannot.
            raise _Refused(415, "the request is not JSON; wanted content-type application/json")
        body = b""
        try:
            async with asyncio.timeout(BODY_SECONDS):
                async for part in request.stream():
                    body += part
                    if len(body) > LONGEST_BODY:
                        raise _Refused(413, f"the request is longer than {LONGEST_BODY} bytes")
        except TimeoutError:
            raise _Refused(408, f"the request did not come within {BODY_SECONDS:g} s") from None
        try:
            data = json.loads(body or b"{}", object_pairs_hook=_once)
        except ConfigError:
            raise
        except (ValueError, RecursionError):
            raise ConfigError("the request is no JSON; wanted an object") from None
        request.state.sent = texts(data)
        if not isinstance(data, dict):
            raise ConfigError("the request is no JSON object")
        return data


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object whose names stand once, as in the file."""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ConfigError("the request has a name twice in one object")
    return found


def _may_change(settings: HttpSettings) -> Callable[[Request], None]:
    """What raises where a request may not change streams."""
    token = None if settings.token is None else os.fsencode(given_value(settings.token, "a token"))
    local = _is_local(settings.host)

    def check(request: Request) -> None:
        if token is not None:
            scheme, _, given = request.headers.get("authorization", "").partition(" ")
            # Starlette reads the bytes of a header as Latin-1.
            if scheme.lower() != "bearer" or not hmac.compare_digest(given.strip().encode("latin-1"), token):
                raise _Refused(401, "streams are changed with the header Authorization: Bearer and the token of `http`")
        elif not local:
            raise _Refused(403, "streams cannot be changed here: `http` listens to other machines and has no token")

    return check


def _is_local(host: str) -> bool:
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost"


def _in_address(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def listen(settings: HttpSettings) -> socket.socket:
    """A socket that listens; who asks waits until a server answers.

    Args:
        settings: where.

    Raises:
        OSError: where nobody can listen.
    """
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        return socket.create_server((settings.host, settings.port), family=family)
    except OSError as error:
        raise OSError(error.errno, _words(error), f"http {settings.host}:{settings.port}") from None


def _static(asset: Asset) -> Callable[[Request], Response]:
    def answer(request: Request) -> Response:
        from starlette.responses import Response

        return Response(asset.body, headers={"content-type": asset.content_type, **HEADERS})

    return answer


def _json(status: int, data: dict[str, Any]) -> Response:
    from starlette.responses import JSONResponse

    return JSONResponse(data, status, headers={"cache-control": "no-store"})


def _answer(status: Callable[[Any], int], words: Callable[[Any], str] = str) -> Callable[..., Awaitable[Response]]:
    async def answer(request: Request, error: Exception) -> Response:
        # A refusal may quote what was sent, and an address may stand anywhere in it.
        return _json(status(error), {"error": hide_sources(words(error), getattr(request.state, "sent", []))})

    return answer


_KNOWN: dict[Any, Callable[..., Awaitable[Response]]] = {
    _Refused: _answer(lambda error: error.status),
    KeyError: _answer(lambda _: 404, lambda error: f"there is no stream {error.args[0]!r}"),
    AdmissionRefused: _answer(lambda _: 507),
    StreamClosed: _answer(lambda _: 409),
    ConfigError: _answer(lambda _: 400),
    RDNError: _answer(lambda _: 500),
}
_OTHER = _answer(lambda error: error.status_code, lambda error: error.detail)
"""Of the library's own refusals: no such path, no such method"""


def _words(error: OSError) -> str:
    """Without the address, which some versions of Python put behind; a name that is not resolved has no errno."""
    return os.strerror(error.errno) if error.errno and error.errno > 0 else str(error.strerror)
