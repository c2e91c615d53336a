"""What a service answers over HTTP, asked in this process; a real server and a browser are in other tests."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from rdn_engine.service.config import HttpSettings
from rdn_engine.service.http import LONGEST_BODY, HttpServer, application
from rdn_engine.service.service import Service
from tests.media.clips import encode
from tests.serve.doubles import WAIT, watched_detector
from tests.service.doubles import service, until

TOKEN = "hush"
BEARER = {"Authorization": f"Bearer {TOKEN}"}


@pytest.fixture
def clip(tmp_path: Path) -> str:
    return str(encode(tmp_path / "clip.mp4", frames=60))


@pytest.fixture
def running(clip: str) -> Iterator[Service]:
    with service({"streams": {"door": {"source": clip, "policy": "wait"}}}) as made:
        yield made


def client(running: Service, **settings: Any) -> TestClient:
    return TestClient(application(running, HttpSettings(**settings)), base_url="http://127.0.0.1")


def test_streams_are_listed_with_all_that_the_page_wants(running: Service) -> None:
    asked = client(running)
    until(lambda: asked.get("/streams").json()["streams"][0]["frames_out"] > 2)
    answer = asked.get("/streams")
    assert answer.status_code == 200
    assert answer.headers["cache-control"] == "no-store"
    whole = answer.json()
    assert whole["healthy"] is True
    assert whole["process"]["streams"] == 1
    assert whole["process"]["resident_bytes"] > 2**20
    stream = whole["streams"][0]
    dropped = sum(stream["dropped"].values())
    assert stream["frames_in"] == stream["frames_out"] + dropped + stream["waiting"] + stream["inside"]
    assert stream["age_seconds"]["last"] > 0
    assert stream["picture"] == "/streams/door/picture.jpg"
    assert asked.get("/streams/door").json()["name"] == "door"
    missing = asked.get("/streams/yard")
    assert (missing.status_code, missing.json()) == (404, {"error": "there is no stream 'yard'"})


def test_streams_are_added_changed_and_removed(running: Service, clip: str) -> None:
    asked = client(running)
    made = asked.post("/streams", json={"name": "yärd 2", "source": clip, "policy": "wait", "dials": {"window": 1}})
    assert (made.status_code, made.json()) == (201, {"name": "yärd 2"})
    changed = asked.patch("/streams/yärd 2", json={"dials": {"window": 0}})
    assert (changed.status_code, changed.json()) == (200, {"in_effect": True})
    assert asked.get("/streams/yärd 2").json()["dials"]["window"] == 0
    assert asked.delete("/streams/yärd 2?drain=false").status_code == 202
    until(lambda: asked.get("/streams/yärd 2").json()["state"] == "ended")
    assert asked.get("/streams/yärd 2").json()["end_reason"] == "removed"


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "words"),
    [
        ("POST", "/streams", {"name": "door", "source": "x"}, 400, "name is 'door'"),
        ("POST", "/streams", {"source": "x"}, 400, "a stream's name is None"),
        ("POST", "/streams", {"name": "a"}, 400, "a source among them"),
        ("POST", "/streams", {"name": "a", "source": "env:HOME"}, 400, "over HTTP wanted the source itself"),
        ("POST", "/streams", {"name": "a", "source": "@/etc/hostname"}, 400, "over HTTP wanted the source itself"),
        ("POST", "/streams", {"name": "a", "source": "x", "outputs": ["none"]}, 400, "outputs is 'none'"),
        ("POST", "/streams", {"name": "a", "source": "x", "room": 10**9}, 400, "live.room"),
        ("POST", "/streams", [1], 400, "no JSON object"),
        (
            "PATCH",
            "/streams/door",
            {"dials": {"window": 99}},
            400,
            "dials.window is 99; wanted at most 2: more wants a",
        ),
        ("PATCH", "/streams/door", {"dials": 1}, 400, "wanted a mapping of dials"),
        ("PATCH", "/streams/door", {"source": "x"}, 400, "wanted dials alone"),
        ("PATCH", "/streams/none", {"dials": {}}, 404, "there is no stream 'none'"),
        ("DELETE", "/streams/none", None, 404, "there is no stream 'none'"),
        ("DELETE", "/streams/door?drain=yes", None, 400, "drain is 'yes'"),
        ("GET", "/nowhere", None, 404, "Not Found"),
        ("PUT", "/streams/door", {}, 405, "Method Not Allowed"),
        ("GET", "/streams/none/picture.jpg", None, 404, "there is no stream 'none'"),
        ("GET", "/streams/door/picture.jpg?side=-1", None, 400, "side is '-1'; wanted pixels"),
        ("POST", "/streams/none/accept_view", {}, 404, "there is no stream 'none'"),
    ],
)
def test_wrong_requests_are_refused(
    running: Service, method: str, path: str, body: Any, status: int, words: str
) -> None:
    answer = client(running).request(method, path, json=body)
    assert answer.status_code == status
    assert words in answer.json()["error"]
    assert [one.name for one in running.snapshot().streams] == ["door"]


def test_body_that_is_no_json_or_too_long_is_refused(running: Service) -> None:
    asked = client(running)
    as_form = asked.post("/streams", data={"name": "a", "source": "x"})
    assert as_form.status_code == 415
    json = {"content-type": "application/json"}
    assert asked.post("/streams", content=b"{", headers=json).status_code == 400
    twice = asked.post("/streams", content=b'{"name": "a", "name": "b", "source": "x"}', headers=json)
    assert (twice.status_code, twice.json()) == (400, {"error": "the request has a name twice in one object"})
    assert asked.post("/streams", content=b"[" * 30000, headers=json).status_code == 400
    assert asked.post("/streams", content=b" " * (LONGEST_BODY + 1), headers=json).status_code == 413


def test_refusal_quotes_no_password(running: Service) -> None:
    for body in (
        {"name": "a", "source": "x", "policy": "rtsp://admin:hush@door/1"},
        {"name": "rtsp://admin:hush@door/1", "source": "x"},
        {"name": "a", "source": ["rtsp://admin:hush@door/1"]},
        {"rtsp://admin:hush@door/1": 1},
    ):
        answer = client(running).post("/streams", json=body)
        assert answer.status_code == 400
        assert TOKEN not in answer.text
    escaped = rb'{"name": "a", "source": "x", "policy": "rtsp:\/\/admin:hush@door\/1"}'
    answer = client(running).post("/streams", content=escaped, headers={"content-type": "application/json"})
    assert (answer.status_code, "rtsp://door/1" in answer.text) == (400, True)


def test_stream_that_does_not_fit_is_refused(clip: str) -> None:
    with service({"streams": {"door": {"source": clip}}}) as first:
        room = first.snapshot().admitted_bytes
    with service({"byte_budget": room, "streams": {"door": {"source": clip, "policy": "wait"}}}) as running:
        answer = client(running).post("/streams", json={"name": "yard", "source": clip})
        assert answer.status_code == 507
        assert "MiB are left" in answer.json()["error"]


def test_token_guards_what_changes_something(running: Service, monkeypatch: pytest.MonkeyPatch, clip: str) -> None:
    monkeypatch.setenv("RDN_TEST_TOKEN", TOKEN)
    asked = client(running, token="env:RDN_TEST_TOKEN", host="0.0.0.0")
    body = {"name": "yard", "source": clip}
    for headers in (
        {},
        {"Authorization": "Bearer wrong"},
        {"Authorization": f"Basic {TOKEN}"},
        {"Authorization": TOKEN},
        {},
    ):
        assert asked.post("/streams", json=body, headers=headers).status_code == 401
        assert asked.delete("/streams/door", headers=headers).status_code == 401
        assert asked.patch("/streams/door", json={"dials": {}}, headers=headers).status_code == 401
        assert asked.post("/streams/door/accept_view", json={}, headers=headers).status_code == 401
    assert asked.get("/streams").status_code == 200
    assert asked.post("/streams", json=body, headers=BEARER).status_code == 201
    assert asked.delete("/streams/yard", headers={"Authorization": f"bearer {TOKEN}"}).status_code == 202


def test_token_may_be_of_any_characters(running: Service) -> None:
    asked = client(running, token="pässwörd")
    assert asked.delete("/streams/none", headers={"Authorization": "Bearer pässwörd".encode()}).status_code == 404


def test_without_a_token_other_machines_change_nothing(running: Service) -> None:
    answer = client(running, host="0.0.0.0").delete("/streams/door")
    assert (answer.status_code, "no token" in answer.json()["error"]) == (403, True)
    assert client(running, host="::1").delete("/streams/door").status_code == 202


def test_other_names_of_this_machine_are_refused(running: Service) -> None:
    """A page elsewhere may have its name resolve to 127.0.0.1 (DNS rebinding)."""
    app = application(running, HttpSettings())
    assert TestClient(app, base_url="http://evil.example").get("/streams").status_code == 400
    assert TestClient(app, base_url="http://localhost:8080").get("/streams").status_code == 200
    for host, name in (("127.0.0.2", "127.0.0.2"), ("::1", "[::1]")):
        app = application(running, HttpSettings(host=host))
        assert TestClient(app, base_url=f"http://{name}:8080").get("/streams").status_code == 200
    named = application(running, HttpSettings(hosts=("cams.example",)))
    assert TestClient(named, base_url="http://cams.example").get("/streams").status_code == 200


def test_health_and_readiness(tmp_path: Path, clip: str) -> None:
    detector, encoder = watched_detector()
    free, held = threading.Event(), threading.Event()

    def hold(_: int) -> None:
        held.set()
        assert free.wait(WAIT)

    encoder.watch = hold
    data = {"http": {"stuck_seconds": 0.1}, "streams": {"door": {"source": clip}}}
    with service(data, detector) as running:
        asked = client(running)
        assert asked.get("/healthz").json() == {"healthy": True}
        assert asked.get("/readyz").status_code == 200
        assert held.wait(WAIT)
        until(lambda: asked.get("/healthz").status_code == 503)
        assert "a stage has been busy for" in asked.get("/healthz").json()["error"]
        free.set()
        until(lambda: asked.get("/healthz").status_code == 200)
        running.close(drain=False, deadline_s=WAIT)
        assert asked.get("/readyz").status_code == 503


def test_metrics_come_in_the_format_that_is_asked_for(running: Service) -> None:
    asked = client(running)
    plain = asked.get("/metrics")
    assert plain.headers["content-type"].startswith("text/plain; version=")
    assert 'rdn_frames_in_total{stream="door"}' in plain.text
    strict = asked.get("/metrics", headers={"accept": "application/openmetrics-text; version=1.0.0"})
    assert strict.headers["content-type"].startswith("application/openmetrics-text")
    assert strict.text.endswith("# EOF\n")


def test_picture_comes_once_somebody_looks(running: Service) -> None:
    asked = client(running)
    until(lambda: asked.get("/streams/door/picture.jpg").status_code == 200)
    answer = asked.get("/streams/door/picture.jpg")
    assert answer.headers["content-type"] == "image/jpeg"
    assert answer.content.startswith(b"\xff\xd8")


def test_page_and_pictures_can_be_left_out(running: Service) -> None:
    asked = client(running, page=False)
    assert asked.get("/").status_code == 404
    assert asked.get("/streams/door/picture.jpg").status_code == 404
    assert asked.get("/streams").status_code == 200
    assert client(running).get("/").headers["content-security-policy"].startswith("default-src 'none'")


def test_real_server_listens_answers_and_ends(running: Service) -> None:
    import httpx2

    server = HttpServer(running, HttpSettings(port=0))
    try:
        assert httpx2.get(f"{server.address}healthz").json() == {"healthy": True}
        with pytest.raises(OSError, match="Address already in use") as caught:
            HttpServer(running, HttpSettings(port=server.port))
        assert caught.value.filename == f"http 127.0.0.1:{server.port}"
    finally:
        assert server.close(WAIT)
    with pytest.raises(httpx2.ConnectError):
        httpx2.get(f"{server.address}healthz")
