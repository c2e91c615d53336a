"""Two servers of streams, a router that the test moves, and a network that loses, repeats and delivers late.

Behind it clients speak to the same servers by either wire: `Direct` gives them requests as Ray Serve does, and what
`tests.serve.triton.backend` makes of a server goes through Triton's tensors and flags.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from rdn_engine.detector import Detector
from rdn_engine.errors import AdmissionRefused, FrameError, Overloaded, ServerUnavailable
from rdn_engine.host.runtime import HostRuntime
from rdn_engine.serve.client import Transport
from rdn_engine.serve.sessions import Reply, Request, Sessions
from rdn_engine.stream.base import Stream
from tests.fakes import FakeRelation
from tests.serve.contents import telling_detector

IDLE = 10.0
FAULTS = ("lost call", "lost answer", "another server", "repeat", "stage")


class Lost(Exception):
    """No answer comes."""


@dataclass
class Server:
    """Windows, and the sequences that Triton knows in front of them: when each had its last request."""

    sessions: Sessions
    live: dict[str, float] = field(default_factory=dict)


class Network:
    """Requests go to one of the servers, if nothing happens to them."""

    def __init__(self, **options: Any) -> None:
        self.now = 0.0
        self.fault = ""
        """What happens to the next request: one of FAULTS"""
        self.at = 0
        """Where the router sends requests"""
        self.detector: Detector = telling_detector()
        self._options = {"idle_seconds": IDLE, **options}
        self.sent: list[Callable[[Server], Any]] = []
        self.servers = [self.server(), self.server()]

    def server(self) -> Server:
        """One that was started just now."""
        dials = self.detector.config.dials
        return Server(Sessions(self.detector, dials, clock=lambda: self.now, **self._options))

    def deliver(self, call: Callable[[Server], Any]) -> Any:
        """Bring a request to a server, and the answer back."""
        self.sent.append(call)
        fault, self.fault = self.fault, ""
        if fault == "lost call":
            raise Lost
        relation = self._relation
        relation.fail = fault == "stage"
        try:
            answer = call(self.servers[self.at])
        finally:
            relation.fail = False
        if fault == "lost answer":
            raise Lost
        if fault == "another server":
            self.at = 1 - self.at
        return call(self.servers[self.at]) if fault in ("another server", "repeat") else answer

    @property
    def _relation(self) -> FakeRelation:
        assert isinstance(self.detector.runtime, HostRuntime)
        relation = self.detector.runtime.model.relation
        assert isinstance(relation, FakeRelation)
        return relation


class Direct:
    """Requests as they are."""

    many = True

    def __init__(self, network: Network) -> None:
        self._network = network
        self.busy = False

    def send(self, request: Request, seconds: float) -> Reply:
        if self.busy:
            return Reply(request.session, error=Overloaded("busy"))
        try:
            [reply] = self._network.deliver(lambda server: server.sessions.step([request]))
        except Lost:
            raise ServerUnavailable("no answer") from None
        return reply

    def close(self) -> None:
        pass


class Compared:
    """A transport whose replies are held against streams of their own: one for each window, of the frames that the
    client knows to be in it.
    """

    def __init__(self, transport: Transport, detector: Detector) -> None:
        self.transport, self.many = transport, transport.many
        self._detector = detector
        self._alone: dict[int, Stream] = {}
        self.taken = 0
        """Frames, as replies say"""
        self.sending = 0
        """Frames of the last request"""

    def send(self, request: Request, seconds: float) -> Reply:
        self.sending = len(request.frames)
        reply = self.transport.send(request, seconds)
        self.taken += reply.taken
        if reply.session is None:
            assert not reply.results
            assert not reply.taken
        elif not isinstance(reply.error, (AdmissionRefused, Overloaded)):
            if reply.session != request.session:
                assert reply.session not in self._alone
                self._alone[reply.session] = self._detector.open_stream(source_id=str(request.stream))
            stream = self._alone[reply.session]
            wanted = [one for frame in request.frames[: reply.taken] for one in stream.push(frame)]
            wanted += stream.flush() if request.end else []
            assert [one.to_dict() for one in reply.results] == [one.to_dict() for one in wanted]
        assert reply.taken == len(request.frames) or reply.error is not None
        assert reply.taken < len(request.frames) or not isinstance(reply.error, FrameError)
        return reply

    def close(self) -> None:
        self.transport.close()
