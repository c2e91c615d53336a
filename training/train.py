"""Train a detector: `python training/train.py --config training/configs/rdn_tiny.yaml --output runs/rdn_tiny`.

Stopped at any point, the same command goes on from the last saved state. `torchrun --nproc-per-node 4
training/train.py ...` shares every step among processes. docs/training.md has the settings and the run directory.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from rdn_engine.errors import RDNError
from training.arguments import given_path
from training.distributed import joined
from training.settings import Settings
from training.trainer import Trainer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", type=given_path, required=True, help="YAML file of settings")
    parser.add_argument("--output", type=given_path, required=True, help="run directory; a run that is in it goes on")
    start = "weights to begin with: of an earlier run, a public checkpoint, or a torchvision classifier"
    parser.add_argument("--start-from", type=given_path, help=start)
    replace = "replace settings, such as phases.0.iterations=10 seed=1"
    parser.add_argument("--set", action="append", nargs="+", default=[], metavar="FIELD=VALUE", help=replace)
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of torch, in each process")
    parser.add_argument("--workers", type=int, default=0, help="processes that read images, for each that trains")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    try:
        settings = Settings.read(arguments.config, [text for group in arguments.set for text in group])
        with joined(arguments.device) as world:
            Trainer(settings, arguments.output, arguments.start_from, world, arguments.workers).run()
    except RDNError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
