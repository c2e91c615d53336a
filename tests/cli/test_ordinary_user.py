"""`rdn-engine run` as a container has it: a user without a name or a home, on a file system that is read-only."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.cli.commands import PATIENCE, ROOT
from tests.media.clips import encode

NOBODY = "65534"
ALONE = f"""
set -e
mount --make-rprivate /
mount -t tmpfs tmpfs "$PLACE/hidden"
mkdir "$PLACE/hidden/upper" "$PLACE/hidden/work"
mount -t overlay overlay -o "lowerdir=$HOME,upperdir=$PLACE/hidden/upper,workdir=$PLACE/hidden/work" "$HOME"
chmod 755 "$HOME"
mount -t tmpfs tmpfs "$PLACE/out"
chown {NOBODY}:{NOBODY} "$PLACE/out"
mount -o remount,bind,ro /
! touch "$PLACE/here" 2> "$PLACE/out/refused"
rm "$PLACE/out/refused"
setpriv --reuid={NOBODY} --regid={NOBODY} --clear-groups env -i PATH=/usr/bin:/bin HOME=/nonexistent "$@"
code=$?
[ ! -e "$PLACE/out/door.jsonl" ] || cat "$PLACE/out/door.jsonl"
exit $code
"""
"""In a mount name space of its own. Where Python stands in root's home (pyenv), others may pass through it there."""


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder that everybody may pass through, unlike those of pytest."""
    folder = Path(tempfile.mkdtemp(dir="/var/tmp"))
    folder.chmod(0o755)
    for name in ("hidden", "out"):
        (folder / name).mkdir()
    yield folder
    shutil.rmtree(folder)


def alone(place: Path, *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["unshare", "--mount", "sh", "-c", ALONE, "sh", *command],
        cwd=ROOT, env={**os.environ, "PLACE": str(place), "HOME": os.environ.get("HOME", "/root")},
        capture_output=True, text=True, timeout=PATIENCE, check=False,
    )  # fmt: skip


def test_service_needs_no_home_and_writes_only_its_results(place: Path) -> None:
    probe = alone(place, sys.executable, "-c", "import rdn_engine, os; assert os.getuid() == 65534")
    if probe.returncode:
        pytest.skip(f"root, its mounts and a Python that others may read are wanted: {probe.stderr.strip()[-200:]}")
    clip = encode(place / "clip.mp4", frames=8)
    clip.chmod(0o644)
    settings = place / "streams.yaml"
    settings.write_text(
        yaml.safe_dump({
            "engines": str(ROOT / "models/rdn_tiny/engines"),
            "http": {"port": 0},
            "outputs": {"lines": {"kind": "jsonl", "path": f"{place}/out/{{stream}}.jsonl"}},
            "streams": {"door": {"source": str(clip), "outputs": ["lines"], "real_time": False, "policy": "wait"}},
        })
    )  # fmt: skip
    stop = (
        "import subprocess, sys\n"
        "p = subprocess.Popen([sys.executable, '-m', 'rdn_engine', 'run', sys.argv[1]], stderr=-1, text=True)\n"
        "for line in p.stderr:\n"
        "    sys.stderr.write(line)\n"
        "    if \"'door': ended\" in line: p.terminate()\n"
        "sys.exit(p.wait())\n"
    )
    done = alone(place, sys.executable, "-c", stop, str(settings))
    assert done.returncode == 0, done.stderr
    written = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["frame_index"] for line in written] == list(range(8))
    assert " WARNING " not in done.stderr, done.stderr
    assert "ended: ended; 8 frames in, 8 out" in done.stderr
