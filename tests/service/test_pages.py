"""What docs/service.md and examples/ say is what there is."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from starlette.routing import Route

from rdn_engine.service.config import HttpSettings, read_settings
from rdn_engine.service.http import application
from rdn_engine.service.metrics import exposition
from tests.media.clips import encode
from tests.service.doubles import service, until

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/service.md").read_text(encoding="utf-8")


def section(title: str) -> str:
    return PAGE.split(f"\n## {title}\n")[1].split("\n## ")[0]


def test_file_of_the_page_and_of_the_example_can_be_read(tmp_path: Path) -> None:
    block = re.search(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    assert block is not None
    (tmp_path / "streams.yaml").write_text(block[1])
    assert set(read_settings(tmp_path / "streams.yaml").streams) == {"door", "yard"}
    example = read_settings(ROOT / "examples/streams.yaml")
    assert set(example.streams) == {"door", "yard"}
    assert (ROOT / example.engines / "manifest.json").is_file()


def test_metrics_of_the_page_are_those_that_there_are(tmp_path: Path) -> None:
    clip = str(encode(tmp_path / "clip.mp4", frames=40))
    data = {
        "byte_budget": 2**30,
        "outputs": {"full": {"kind": "jsonl", "path": "/dev/full", "policy": "drop_latest", "room": 1, "batch": 1}},
        "streams": {"door": {"source": clip, "outputs": ["full"], "policy": "wait"}},
    }
    with service(data) as running:
        until(lambda: any(count.dropped for count in running.outputs["full"].counts().values()))
        _, body = exposition(running, "application/openmetrics-text")
    there = set(re.findall(r"^(rdn_\w+?)(?:_bucket|_count|_sum|_created)?(?:\{.*?\})? ", body.decode(), re.MULTILINE))
    # Only while it lasts
    said = set(re.findall(r"`(rdn_\w+)`", section("Metrics"))) - {"rdn_stream_troubles"}
    assert there - {"rdn_stream_troubles"} == said


def test_requests_of_the_page_are_those_that_are_answered() -> None:
    with service({}) as running:
        routes = [route for route in application(running, HttpSettings()).routes if isinstance(route, Route)]
    there = {(method, route.path) for route in routes for method in (route.methods or ()) if method != "HEAD"}
    said = {
        (method, path.replace("NAME", "{name}"))
        for method, path in re.findall(r"`(GET|POST|PATCH|DELETE) (/[\w/.]*)`", section("HTTP"))
    }
    assert {one for one in there if not re.search(r"\.(js|css|svg|html)$", one[1])} == said


def test_deployment_asks_what_is_answered() -> None:
    pod = yaml.safe_load((ROOT / "examples/deploy/kubernetes.yaml").read_text())["spec"]["template"]["spec"]
    container = pod["containers"][0]
    asked = {container[f"{kind}Probe"]["httpGet"]["path"] for kind in ("startup", "readiness", "liveness")}
    with service({}) as running:
        routes = application(running, HttpSettings()).routes
        assert asked <= {route.path for route in routes if isinstance(route, Route)}
        assert pod["terminationGracePeriodSeconds"] > running.settings.stop_seconds
    assert container["ports"][0]["containerPort"] == HttpSettings().port


def test_unit_waits_for_the_end() -> None:
    unit = (ROOT / "examples/deploy/rdn-engine.service").read_text()
    waits = re.search(r"^TimeoutStopSec=(\d+)$", unit, re.MULTILINE)
    with service({}) as running:
        assert waits is not None
        assert int(waits[1]) > running.settings.stop_seconds


@pytest.mark.long
def test_service_is_shown() -> None:
    """The whole of it: cameras, process, engines, metrics, lines."""
    command = [sys.executable, "scripts/show_service.py", "--seconds", "3"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    for name in ("door", "yard"):
        found = re.search(rf"^{name}: (\d+) frames in = (\d+) out", done.stdout, re.MULTILINE)
        assert found is not None, done.stdout
        assert int(found[2]) > 0
        assert f"'{name}': ended: removed" in done.stderr
