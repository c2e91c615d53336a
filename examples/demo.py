"""The product at work, without torch: verify an engine directory, render a clip, detect in it, write what was seen.

python examples/demo.py --engines models/rdn_tiny/engines --output demo [--video street.mp4]
"""

import argparse
import subprocess
import sys
from pathlib import Path

# The renderer belongs to the training set and is not part of the installed package.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from training.arguments import given_path
from training.data.synthetic import write_clip


def rdn_engine(*arguments: str | Path) -> None:
    """Run a command of `rdn-engine`; leave with its exit code where it fails."""
    line = [str(a) for a in arguments]
    print("\n$ rdn-engine", *line, flush=True)
    code = subprocess.run([sys.executable, "-m", "rdn_engine", *line], check=False).returncode
    if code:
        sys.exit(code)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--engines", type=given_path, required=True, help="engine directory")
    parser.add_argument("--output", type=given_path, required=True, help="folder for what is written")
    parser.add_argument("--video", help="also a video of yours; the bundled model knows only its rendered shapes")
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)

    rdn_engine("verify", arguments.engines)
    clip = arguments.output / "clip.mp4"
    write_clip(clip, index=7, magnify=3)
    sources = {"clip": str(clip)} | ({"video": arguments.video} if arguments.video else {})
    for name, source in sources.items():
        lines, drawn = arguments.output / f"{name}.jsonl", arguments.output / f"{name}_annotated.mp4"
        rdn_engine("predict", source, "--engines", arguments.engines, "--threshold", "0.3",
                   "--output", lines, "--save-video", drawn)  # fmt: skip


if __name__ == "__main__":
    main()
