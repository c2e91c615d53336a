"""Everything of docs/scale.md that is measured, one server after another, and one table of its checks.

python benchmarks/serve/scale.py --results benchmarks/results
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.report.scale_tables import checks
from training.arguments import given_path

PARTS = {path.stem.removeprefix("scale_"): path for path in sorted(Path(__file__).parent.glob("scale_*.py"))}
"""Programs that write `scale_NAME.json`, whose `rows` are the checks"""


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--what", nargs="*", choices=PARTS, default=list(PARTS))
    parser.add_argument("--results", type=given_path, required=True, help="folder of the files")
    parser.add_argument("--quick", action="store_true", help="in a few minutes, with figures that say little")
    arguments = parser.parse_args(argv)
    arguments.results.mkdir(parents=True, exist_ok=True)
    ended = {}
    for name in arguments.what:
        output = arguments.results / f"scale_{name}.json"
        command = [sys.executable, str(PARTS[name]), "--output", str(output), *(["--quick"] * arguments.quick)]
        ended[name] = subprocess.run(command, check=False).returncode
    files = {name: arguments.results / f"scale_{name}.json" for name in arguments.what}
    print(checks({name: json.loads(path.read_text()) for name, path in files.items() if path.exists()}))
    for name, code in ended.items():
        if code:
            print(f"{name} failed: exit code {code}", file=sys.stderr)
    return int(any(ended.values()))


if __name__ == "__main__":
    sys.exit(main())
