"""Lines in files: on a full disk, moved away, grown too large, left torn, held by another."""

from __future__ import annotations

import errno
import itertools
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rdn_engine.service.outputs import JsonlSettings, Output, OutputCounts, open_output
from rdn_engine.service.outputs import jsonl as module
from rdn_engine.service.outputs.jsonl import JsonlWriter
from tests.service.outputs.doubles import QUICK, WAIT, Listener, line, until

ROOT = Path(__file__).parents[3]


def opened(path: Path | str, listener: Listener | None = None, **options: Any) -> Output:
    return open_output("lines", JsonlSettings(path=str(path), **{**QUICK, **options}), listener or Listener())


def write(path: Path | str, *lines: dict[str, Any], **options: Any) -> None:
    output = opened(path, **options)
    for one in lines:
        output.put(one["stream"], one)
    assert output.close(drain=True, deadline_s=WAIT)


def read(path: Path) -> list[dict[str, Any]]:
    data = path.read_bytes()
    assert data.endswith(b"\n")
    return [json.loads(one) for one in data.splitlines()]


def test_lines_are_appended_and_folders_made(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "o.jsonl"
    write(path, line(0), line(1, "yard"))
    write(path, line(2))
    assert sorted(read(path), key=lambda one: one["frame_index"]) == [line(0), line(1, "yard"), line(2)]


def test_each_stream_has_its_file(tmp_path: Path) -> None:
    names = ["door", "../up", "a/b", "..", ".", "", "x" * 400, "x" * 401]
    write(tmp_path / "in" / "{stream}.jsonl", *(line(0, name) for name in names))
    files = sorted((tmp_path / "in").iterdir())
    assert [path.name for path in tmp_path.iterdir()] == ["in"]
    assert sorted(one["stream"] for path in files for one in read(path)) == sorted(names)
    assert len(files) == len(names)


def test_torn_last_line_becomes_a_line_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "o.jsonl"
    path.write_bytes(b'{"frame_index": 0}\n{"frame_ind')
    write(path, line(1))
    assert path.read_bytes().splitlines()[:2] == [b'{"frame_index": 0}', b'{"frame_ind']
    assert json.loads(path.read_bytes().splitlines()[2]) == line(1)


@pytest.mark.parametrize("how", ["moved", "removed", "replaced"])
def test_file_that_is_gone_is_begun_anew(tmp_path: Path, how: str) -> None:
    path, away = tmp_path / "o.jsonl", tmp_path / "away"
    output = opened(path)
    output.put("door", line(0))
    until(lambda: output.counts()["door"].written == 1)
    if how == "removed":
        path.unlink()
    else:
        path.rename(away)
    if how == "replaced":
        path.write_bytes(b'{"theirs": 1}\n')
    output.put("door", line(1))
    assert output.close(drain=True, deadline_s=WAIT)
    assert read(path) == [{"theirs": 1}] * (how == "replaced") + [line(1)]
    if how != "removed":
        assert read(away) == [line(0)]


def test_file_that_was_shortened_goes_on_from_there(tmp_path: Path) -> None:
    """As by `logrotate` with copytruncate."""
    path = tmp_path / "o.jsonl"
    output = opened(path, max_bytes=1000)
    for number in range(3):
        output.put("door", line(number, "door", ("cat", 0.5), ("dog", 0.5)))
    until(lambda: output.counts()["door"].written == 3)
    os.truncate(path, 0)
    output.put("door", line(3, "door", ("cat", 0.5), ("dog", 0.5)))
    assert output.close(drain=True, deadline_s=WAIT)
    assert [one["frame_index"] for one in read(path)] == [3]
    assert [one.name for one in tmp_path.iterdir()] == ["o.jsonl"]


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    batches=st.lists(st.lists(st.integers(0, 1500), min_size=1, max_size=6), min_size=1, max_size=8),
    limit=st.integers(1000, 3000), fsync=st.booleans(), anew=st.booleans(),
)  # fmt: skip
def test_file_that_grows_too_large_is_moved_and_nothing_lost(
    tmp_path: Path, batches: list[list[int]], limit: int, fsync: bool, anew: bool
) -> None:
    folder = tmp_path / "rotating"
    shutil.rmtree(folder, ignore_errors=True)
    options = JsonlSettings(path=str(folder / "o.jsonl"), max_bytes=limit, keep=1000, fsync=fsync)
    writer = JsonlWriter(options)
    lines = [[b"%d %s" % (i * 10 + j, b"x" * size) for j, size in enumerate(b)] for i, b in enumerate(batches)]
    for batch in lines:
        assert writer.write("door", batch).done == len(batch)
        if anew:
            writer.close()
            writer = JsonlWriter(options)
    writer.close()
    names = [*(f"o.jsonl.{n}" for n in range(len(list(folder.iterdir())) - 1, 0, -1)), "o.jsonl"]
    files = [(folder / name).read_bytes() for name in names]
    assert b"".join(files).splitlines() == [one for batch in lines for one in batch]
    assert all(len(data) <= limit or data.count(b"\n") == 1 for data in files)
    assert all(len(a) + b.index(b"\n") + 1 > limit for a, b in itertools.pairwise(files))


def test_only_so_many_older_files_stay(tmp_path: Path) -> None:
    lines = [line(number, "door", *[("cat", 0.5)] * 10) for number in range(10)]
    write(tmp_path / "o.jsonl", *lines, max_bytes=1000, keep=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["o.jsonl", "o.jsonl.1", "o.jsonl.2"]
    kept = [read(tmp_path / name) for name in ("o.jsonl.2", "o.jsonl.1", "o.jsonl")]
    assert [one for lines in kept for one in lines] == lines[-sum(map(len, kept)) :]


LIMITED = """
import json, resource, sys
from tests.service.outputs.doubles import Listener, WAIT, line, until
from tests.service.outputs.test_jsonl import opened
listener = Listener()
# No second try while the file is read: it would write a part of a line, and take it back
output = opened(sys.argv[1], listener, policy="wait", room=10000, first_delay=600, longest_delay=600)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
for number in range(100):
    output.put("door", line(number))
message = listener.wait("failing")
first = open(sys.argv[1], "rb").read()
held = output.counts()["door"].written
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
assert output.close(drain=True, deadline_s=WAIT)
print(json.dumps([message, held, first.decode(), output.counts()["door"].written, listener.kinds]))
"""


def test_file_that_may_not_grow_ends_with_a_whole_line_and_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "o.jsonl"
    found = subprocess.run(
        [sys.executable, "-c", LIMITED, path], cwd=ROOT, capture_output=True, text=True, timeout=2 * WAIT, check=False
    )
    assert found.returncode == 0, found.stderr
    message, held, first, written, kinds = json.loads(found.stdout)
    assert message == f"output 'lines', stream 'door': {path}: File too large"
    assert first.endswith("\n")
    assert [json.loads(one) for one in first.splitlines()] == [line(number) for number in range(held)]
    assert 0 < held < 100
    assert read(path) == [line(number) for number in range(100)]
    assert (written, kinds) == (100, ["failing", "recovered"])


FULL = """
import json, os, sys
from tests.service.outputs.doubles import Listener, WAIT, line, until
from tests.service.outputs.test_jsonl import opened
folder, policy = sys.argv[1:]
listener = Listener()
with open(f"{folder}/filler", "wb", buffering=0) as filler:
    filler.write(bytes(os.statvfs(folder).f_bavail * os.statvfs(folder).f_frsize - 8192))
output = opened(f"{folder}/{{stream}}.jsonl", listener, policy=policy, room=100 if policy == "wait" else 9, batch=8)
number, more = 0, 50
while more:
    output.put("door", line(number))
    output.put("yard", line(number, "yard"))
    until(lambda: listener.heard or all(c.waiting < 8 for c in output.counts().values()))
    number, more = number + 1, more - bool(listener.heard)
message = listener.wait("failing")
until(lambda: all(c.waiting for c in output.counts().values()) and os.statvfs(folder).f_bavail == 0)
first = {}
for name in ("door", "yard"):
    def whole():
        first[name] = open(f"{folder}/{name}.jsonl", "rb").read().decode()
        return first[name] == "" or first[name].endswith("\\n")
    until(whole)  # while it tries again, a part of a line is there for a moment
os.remove(f"{folder}/filler")
listener.wait("recovered")
assert output.close(drain=True, deadline_s=WAIT)
last = {name: open(f"{folder}/{name}.jsonl", "rb").read().decode() for name in ("door", "yard")}
counts = {name: vars(c) for name, c in output.counts().items()}
print(json.dumps([number, message, first, last, counts, listener.kinds]))
"""


@pytest.mark.parametrize("policy", ["wait", "drop_oldest"])
def test_full_disk_loses_nothing_that_is_not_counted(tmp_path: Path, policy: str) -> None:
    mount = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"]
    if (
        shutil.which("unshare") is None
        or subprocess.run(
            [*mount, f"mount -t tmpfs -o size=64k none {tmp_path}"], capture_output=True, check=False
        ).returncode
    ):
        pytest.skip("needs `unshare` and the right to mount a tmpfs in a namespace of its own")
    command = f'mount -t tmpfs -o size=64k none "$1" && exec "{sys.executable}" -c "$0" "$1" {policy}'
    found = subprocess.run(
        [*mount, command, FULL, str(tmp_path)],
        cwd=ROOT, capture_output=True, text=True, timeout=3 * WAIT, check=False,
    )  # fmt: skip
    assert found.returncode == 0, found.stderr
    put, message, first, last, counts, kinds = json.loads(found.stdout)
    assert "No space left on device" in message
    assert set(kinds) == {"failing", "recovered"}
    for name in ("door", "yard"):
        rows = [json.loads(one) for one in last[name].splitlines()]
        assert last[name].startswith(first[name])
        assert rows == [line(row["frame_index"], name) for row in rows]
        indices = [row["frame_index"] for row in rows]
        assert indices == sorted(set(indices))
        one = counts[name]
        assert (one["put"], one["written"], one["waiting"]) == (put, len(rows), 0)
        assert sum(one["dropped"].values()) == put - len(rows)
        assert (len(rows) == put) == (policy == "wait")


@pytest.mark.parametrize("kind", ["folder", "pipe", "device"])
def test_stream_whose_file_cannot_be_leaves_the_others_alone(tmp_path: Path, kind: str) -> None:
    path, listener = tmp_path / "door.jsonl", Listener()
    {"folder": path.mkdir, "pipe": lambda: os.mkfifo(path), "device": lambda: path.symlink_to("/dev/full")}[kind]()
    output = opened(tmp_path / "{stream}.jsonl", listener, batch=1)
    output.put("door", line(0))
    assert str(path) in listener.wait("failing")
    for number in range(5):
        output.put("yard", line(number, "yard"))
    until(lambda: output.counts()["yard"].written == 5)
    assert output.counts()["door"] == OutputCounts(put=1, waiting=1)
    path.rmdir() if kind == "folder" else path.unlink()
    listener.wait("recovered")
    assert output.close(drain=True, deadline_s=WAIT)
    assert read(path) == [line(0)]


def test_two_outputs_do_not_write_into_one_file(tmp_path: Path) -> None:
    path, listener = tmp_path / "o.jsonl", Listener()
    first = opened(path)
    first.put("door", line(0))
    until(lambda: first.counts()["door"].written == 1)
    second = opened(path, listener)
    second.put("yard", line(1, "yard"))
    assert listener.wait("failing").endswith("o.jsonl: another output writes into it")
    assert first.close(drain=True, deadline_s=WAIT)
    listener.wait("recovered")
    assert second.close(drain=True, deadline_s=WAIT)
    assert read(path) == [line(0), line(1, "yard")]


def test_file_of_a_stream_that_has_ended_is_let_go(tmp_path: Path) -> None:
    first, second = (opened(tmp_path / "{stream}.jsonl") for _ in range(2))
    first.put("door", line(0))
    until(lambda: first.counts()["door"].written == 1)
    first.forget("door")
    second.put("door", line(1))
    until(lambda: second.counts()["door"].written == 1)  # not before the other has let go of it
    for output in (first, second):
        assert output.close(drain=True, deadline_s=WAIT)
    assert read(tmp_path / "door.jsonl") == [line(0), line(1)]


def test_disk_that_cannot_sync_gets_the_lines_again_and_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failures = [OSError(5, "Input/output error")] * 2
    synced: list[int] = []

    def fsync(file: int) -> None:
        if failures:
            raise failures.pop()
        synced.append(file)

    monkeypatch.setattr(module.os, "fsync", fsync)
    path, listener = tmp_path / "o.jsonl", Listener()
    path.write_bytes(b'{"before": 1}\n')
    output = opened(path, listener, fsync=True)
    output.put("door", line(0))
    assert "Input/output error" in listener.wait("failing")
    listener.wait("recovered")
    assert output.close(drain=True, deadline_s=WAIT)
    assert read(path) == [{"before": 1}, line(0)]
    assert synced


def test_file_that_cannot_be_moved_costs_none_that_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that is mounted by itself (Docker) is busy; each further try would push one more over the edge."""
    path = tmp_path / "o.jsonl"
    writer = JsonlWriter(JsonlSettings(path=str(path), max_bytes=1000, keep=3))
    for number in range(4):
        assert writer.write("a", [b"x" * 900 + str(number).encode()]).done == 1
    rename = os.rename

    def refuse(old: str, new: str) -> None:
        if old == str(path):
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))
        rename(old, new)

    with monkeypatch.context() as patched:
        patched.setattr(os, "rename", refuse)
        for _ in range(5):
            attempt = writer.write("a", [b"x" * 900 + b"4"])
            assert (attempt.done, attempt.message) == (0, f"{path}: Device or resource busy")
    assert writer.write("a", [b"x" * 900 + b"4"]).done == 1
    writer.close()
    kept = {one.name: one.read_bytes()[900:] for one in tmp_path.iterdir()}
    assert kept == {"o.jsonl": b"4\n", "o.jsonl.1": b"3\n", "o.jsonl.2": b"2\n", "o.jsonl.3": b"1\n"}
