"""The JSON of each phase of gpu_check.sh, from what its steps left, and back again for a run that goes on elsewhere.

    python scripts/gpu_results.py collect STATE OUT
    python scripts/gpu_results.py resume STATE BEFORE

STATE is the work folder of one state of the sources: `plan` has a line for each step, `PHASE NAME TITLE`, in order;
`NAME.step` says `RESULT SECONDS CODE` once it has run; NAME.json and NAME.log are its own. OUT gets phase0.json to
phase6.json. `resume` takes from such files what passed or failed on the same sources; what stands in STATE wins.
The standard library is enough.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

END = 25
"""Lines of a log that are kept of a step that did not pass, or that tells what this machine is"""


def phases(state: Path) -> dict[int, dict[str, Any]]:
    """Phase -> title, rows of its steps in order, and what they measured."""
    found: dict[int, dict[str, Any]] = {}
    for line in (state / "plan").read_text().splitlines():
        phase, name, title = line.split(maxsplit=2)
        into = found.setdefault(int(phase), {"phase": int(phase), "title": title, "sources": state.name,
                                             "rows": [], "results": {}})  # fmt: skip
        into["rows"].append(_row(state, int(phase), name))
        result = _json(state / f"{name}.json")
        if result is not None:
            into["results"][name] = result
    return found


def _row(state: Path, phase: int, name: str) -> dict[str, Any]:
    step = state / f"{name}.step"
    if not step.exists():
        return {"what": name, "result": "not run"}
    result, seconds, code = step.read_text().split()
    row = {"what": name, "result": result, "seconds": int(seconds), "code": int(code)}
    log = state / f"{name}.log"
    if (result != "passed" or phase == 0) and log.exists():
        row["end"] = log.read_text(errors="replace").splitlines()[-END:]
    return row


def _json(path: Path) -> Any:
    """None where a step was cut while it wrote."""
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return None


def collect(state: Path, out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    for number, phase in phases(state).items():
        target = out / f"phase{number}.json"
        part = target.with_suffix(".part")
        part.write_text(json.dumps(phase, indent=1) + "\n")
        part.replace(target)


def resume(state: Path, before: Path) -> int:
    """Take over the steps of earlier phases; how many. What makes this machine ready, phase 0, is done anew."""
    taken = 0
    for path in sorted(before.glob("phase[1-9].json")):
        phase = _json(path)
        if phase is None or phase["sources"] != state.name:
            print(f"{path} is of other sources, or damaged: nothing taken from it")
            continue
        for row in phase["rows"]:
            name, step = row["what"], state / f"{row['what']}.step"
            if row["result"] == "not run" or step.exists():
                continue
            step.write_text(f"{row['result']} {row['seconds']} {row['code']}\n")
            (state / f"{name}.log").write_text("\n".join(row.get("end", [])) + "\n")
            if name in phase["results"]:
                (state / f"{name}.json").write_text(json.dumps(phase["results"][name], indent=1) + "\n")
            taken += 1
    return taken


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["collect", "resume"])
    parser.add_argument("state", type=Path)
    parser.add_argument("other", type=Path, help="where the phases go, or where they come from")
    arguments = parser.parse_args(argv)
    if arguments.what == "collect":
        collect(arguments.state, arguments.other)
    else:
        print(f"{resume(arguments.state, arguments.other)} steps taken over from {arguments.other}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
