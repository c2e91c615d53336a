"""Lines to an HTTP receiver that is slow, refuses, breaks off, says nothing, or goes and comes back."""

from __future__ import annotations

import base64
import email.utils
import hashlib
import hmac
import json
import logging
import socket
import ssl
import time
from pathlib import Path
from typing import Any

import pytest

from rdn_engine.errors import ConfigError
from rdn_engine.service.outputs import Output, OutputCounts, WebhookSettings, open_output
from rdn_engine.service.outputs.webhook import _seconds
from tests.service.outputs.doubles import QUICK, WAIT, Listener, line, until
from tests.service.receivers import Receiver, certify, receiving

SECRET = "hush"


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "*")


def opened(server: Receiver | str, listener: Listener | None = None, **options: Any) -> Output:
    url = server if isinstance(server, str) else f"http://user:{SECRET}@127.0.0.1:{server.server_port}/{SECRET}?a=1"
    return open_output("alarm", WebhookSettings(url=url, **{**QUICK, **options}), listener or Listener())


def send(output: Output, *numbers: int) -> None:
    for number in numbers:
        output.put("door", line(number))


def indices(server: Receiver) -> list[int]:
    return [one["frame_index"] for one in server.taken]


def test_receiver_gets_the_lines_and_who_sent_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKEN", "Bearer hush")
    with receiving() as server:
        output = opened(server, headers={"X-Token": "env:TOKEN", "User-Agent": "mine"}, batch=10)
        send(output, *range(25))
        assert output.close(drain=True, deadline_s=WAIT)
        assert output.counts()["door"] == OutputCounts(put=25, written=25)
    assert server.taken == [line(number) for number in range(25)]
    assert max(len(request.results) for request in server.requests) <= 10
    for request in server.requests:
        assert request.path == f"/{SECRET}?a=1"
        assert request.headers["x-token"] == "Bearer hush"
        assert request.headers["user-agent"] == "mine"
        assert request.headers["content-type"] == "application/json"
        assert request.headers["authorization"] == "Basic " + base64.b64encode(b"user:hush").decode()


@pytest.mark.parametrize("answer", [500, 502, 408, 425, 302, "gone"])
def test_batch_that_was_not_taken_is_sent_again_as_it_was(answer: Any) -> None:
    listener = Listener()
    with receiving() as server:
        server.answers.extend([answer] * 3)
        output = opened(server, listener)
        send(output, 0)
        listener.wait("recovered")
        assert output.counts()["door"] == OutputCounts(put=1, written=1)
        assert output.close(drain=True, deadline_s=WAIT)
    assert len(server.requests) == 4
    assert len({request.body for request in server.requests}) == 1
    assert len({request.headers["webhook-id"] for request in server.requests}) == 1
    assert listener.kinds == ["failing", "recovered"]
    assert SECRET not in str(listener.heard)
    assert f"http://127.0.0.1:{server.server_port}" in listener.wait("failing")


@pytest.mark.parametrize("status", [429, 503])
def test_receiver_that_names_a_time_is_left_alone_until_then(status: int) -> None:
    listener = Listener()
    with receiving() as server:
        server.answers.append((status, {"Retry-After": "3600"}))
        output = opened(server, listener, longest_delay=3600)
        send(output, 0)
        listener.wait("failing")
        output.put("yard", line(0, "yard"))
        assert output.counts()["yard"] == OutputCounts(put=1, waiting=1)
        # Who closes asks once more.
        assert output.close(drain=True, deadline_s=WAIT)
    assert len(server.requests) == 3


def test_time_of_an_answer_is_read() -> None:
    assert [_seconds(text) for text in (None, "", "soon", "-1", "17", "Wed, 21 Oct 2015 07:28:00 GMT")] == [
        0, 0, 0, 0, 17, 0
    ]  # fmt: skip
    later = email.utils.formatdate(time.time() + 1000, usegmt=True)
    assert 900 < _seconds(later) <= 1000


@pytest.mark.parametrize("status", [401, 403, 404, 410])
def test_batch_that_is_refused_is_dropped_and_counted(status: int) -> None:
    listener = Listener()
    with receiving() as server:
        server.answers.append(status)
        output = opened(server, listener)
        send(output, 0)
        assert f"answered {status}" in listener.wait("refused")
        assert output.counts()["door"] == OutputCounts(put=1, dropped={"refused": 1})
        send(output, 1)
        listener.wait("recovered")
        assert output.close(drain=True, deadline_s=WAIT)
    assert indices(server) == [1]
    assert len(server.requests) == 2


def test_line_that_is_refused_takes_no_other_with_it() -> None:
    listener = Listener()
    with receiving() as server:
        server.judge = lambda request: all(one["frame_index"] != 7 for one in request.results)
        server.answers.append((503, {}))
        output = opened(server, listener, batch=16)
        send(output, *range(12))
        assert output.close(drain=True, deadline_s=WAIT)
        assert output.counts()["door"] == OutputCounts(put=12, written=11, dropped={"refused": 1})
    assert indices(server) == [0, 1, 2, 3, 4, 5, 6, 8, 9, 10, 11]


def test_receiver_that_fails_while_lines_are_sent_alone_gets_none_twice() -> None:
    with receiving() as server:
        server.judge = lambda request: len(request.results) == 1
        output = opened(server, batch=16)
        server.answers.append(503)
        send(output, 0)
        until(lambda: bool(server.requests))
        server.answers.extend([200, 400, 200, 200, 503])
        send(output, *range(1, 7))
        assert output.close(drain=True, deadline_s=WAIT)
        assert output.counts()["door"].written + output.counts()["door"].dropped.get("refused", 0) == 7
    assert len(indices(server)) == len(set(indices(server))) == output.counts()["door"].written


@pytest.mark.parametrize("answer", ["torn", "endless", 204])
def test_answer_that_is_long_or_breaks_off_was_an_answer(answer: Any) -> None:
    listener = Listener()
    with receiving() as server:
        server.answers.append(answer)
        output = opened(server, listener)
        send(output, 0)
        until(lambda: output.counts()["door"].written == 1)
        send(output, 1)
        assert output.close(drain=True, deadline_s=WAIT)
    assert indices(server) == [0, 1]
    assert listener.heard == []


@pytest.mark.parametrize("answer", ["silent", "drip"])
def test_request_as_a_whole_has_a_time(answer: str) -> None:
    """A byte now and then is no answer."""
    listener = Listener()
    with receiving() as server:
        server.answers.append(answer)
        output = opened(server, listener, timeout=0.5)
        send(output, 0)
        assert listener.wait("failing").endswith("did not answer within 0.5 s")
        listener.wait("recovered")
        assert output.close(drain=True, deadline_s=WAIT)
    assert set(indices(server)) == {0}  # a slow machine may answer later than in half a second


@pytest.mark.parametrize("answer", ["silent", "drip"])
@pytest.mark.parametrize("drain", [True, False])
def test_close_ends_a_request_that_does_not(answer: str, drain: bool) -> None:
    with receiving() as server:
        server.answers.append(answer)
        output = opened(server, timeout=3000)
        send(output, 0)
        until(lambda: bool(server.requests))
        send(output, 1)
        assert not output.close(drain=drain, deadline_s=0.5)
        assert output.counts()["door"] == OutputCounts(put=2, dropped={"closed": 2})
        until(lambda: not output._thread.is_alive())


@pytest.mark.parametrize("drain", [True, False])
def test_receiver_that_stops_reading_is_given_up_in_time(drain: bool) -> None:
    """More than the buffers of a connection hold: it is sent as long as somebody reads."""
    listener = Listener()
    with socket.create_server(("127.0.0.1", 0)) as server:
        output = opened(f"http://127.0.0.1:{server.getsockname()[1]}/", listener, timeout=0.5)
        output.put("door", {**line(0), "long": "x" * 2**25})
        assert listener.wait("failing").endswith("did not answer within 0.5 s")
        output.put("door", line(1))
        assert not output.close(drain=drain, deadline_s=0.5)
        assert output.counts()["door"] == OutputCounts(put=2, dropped={"closed": 2})


def test_receiver_that_goes_and_comes_back_misses_nothing_that_has_room() -> None:
    listener = Listener()
    with receiving() as server:
        port = server.server_port
        output = opened(f"http://127.0.0.1:{port}/", listener, room=1000)
        send(output, *range(10))
        until(lambda: output.counts()["door"].written == 10)
        first = indices(server)
    send(output, *range(10, 20))
    assert f"http://127.0.0.1:{port}: Connection refused" in listener.wait("failing")
    assert output.trouble is not None
    with receiving(port) as server:
        listener.wait("recovered")
        assert output.close(drain=True, deadline_s=WAIT)
        assert output.counts()["door"] == OutputCounts(put=20, written=20)
        assert first + indices(server) == list(range(20))
    assert output.trouble is None


@pytest.mark.parametrize("secret", ["plain secret", "whsec_" + base64.b64encode(b"plain secret").decode()])
def test_signature_can_be_checked(secret: str) -> None:
    with receiving() as server:
        output = opened(server, secret=secret)
        send(output, 0)
        assert output.close(drain=True, deadline_s=WAIT)
    request = server.requests[0]
    number, sent = request.headers["webhook-id"], request.headers["webhook-timestamp"]
    assert abs(time.time() - int(sent)) < 600
    signed = hmac.new(b"plain secret", f"{number}.{sent}.".encode() + request.body, hashlib.sha256)
    assert request.headers["webhook-signature"] == f"v1,{base64.b64encode(signed.digest()).decode()}"


def test_no_record_of_a_request_shows_its_address(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with receiving() as server:
        server.answers.append("gone")
        output = opened(server)
        send(output, 0)
        assert output.close(drain=True, deadline_s=WAIT)
    assert SECRET not in caplog.text


def test_certificate_is_checked_against_the_given_file(tmp_path: Path) -> None:
    own, other = (certify(tmp_path, name) for name in ("own", "other"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(own, tmp_path / "own.key")
    with receiving() as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        url = f"https://127.0.0.1:{server.server_port}/"
        good = opened(url, ca_file=str(own))
        send(good, 0)
        assert good.close(drain=True, deadline_s=WAIT)
        assert indices(server) == [0]
        listener = Listener()
        bad = opened(url, listener, ca_file=str(other))
        send(bad, 1)
        assert "CERTIFICATE_VERIFY_FAILED" in listener.wait("failing")
        bad.close(drain=False, deadline_s=WAIT)
    with pytest.raises(ConfigError, match="wanted certificates"):
        opened(url, ca_file=str(tmp_path / "own.key"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"url": "hush"}, "url is not shown"),
        ({"url": "ftp://user:hush@host/"}, "url is not shown"),
        ({"url": "http:///hush"}, "url is not shown"),
        ({"url": "http://[hush/"}, "url is not shown"),
        ({"url": "http://h:99999999/hush"}, "url is not shown"),
        ({"url": "http://h:0/hush"}, "url is not shown"),
        ({"url": "http://user hush@host/"}, "url is not shown"),
        ({"url": "http://hush word/"}, "url is not shown"),
        ({"url": "env:NO_HOOK"}, "'NO_HOOK' is not set or empty; wanted an address in it"),
        ({"headers": {"A": "hush\nB: c"}}, "a header is not shown"),
        ({"headers": {"A b": "hush"}}, "a header is not shown"),
        ({"headers": {"A": "hushé"}}, "a header is not shown"),
        ({"headers": {"A": ""}}, "a header is not shown"),
        ({"secret": "whsec_hush!"}, "secret is not shown"),
    ],
)
def test_what_cannot_be_sent_is_refused_at_once_and_not_quoted(
    options: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NO_HOOK", raising=False)
    with pytest.raises(ConfigError, match=message) as caught:
        opened(options.pop("url", "http://127.0.0.1/"), **options)
    assert SECRET not in str(caught.value)


def test_body_is_one_json_object() -> None:
    with receiving() as server:
        output = opened(server)
        output.put("door", {**line(0), "source_id": "caf\udce9"})
        assert output.close(drain=True, deadline_s=WAIT)
    assert json.loads(server.requests[0].body) == {"results": [{**line(0), "source_id": "caf\udce9"}]}
