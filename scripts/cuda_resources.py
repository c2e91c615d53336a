"""What each CUDA kernel uses on each architecture: registers, stack, spills, as ptxas reports them.

    python scripts/cuda_resources.py [--architectures 80 90] [--output benchmarks/results/cuda_resources.json]

Compiles every file of csrc/cuda without warnings, one architecture after the other; needs nvcc and no GPU.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RELEASED = (75, 80, 86, 89, 90, 100, 120)
"""Architectures of a release, as in CMakeLists.txt."""
FLAGS = ("-std=c++17", "-O3", "-fmad=false", "-Werror", "all-warnings", "-Xcompiler", "-Wall,-Wextra")


def compiler() -> str:
    """The release of nvcc, as the table names it."""
    version = subprocess.run(["nvcc", "--version"], capture_output=True, text=True, check=True).stdout
    release = re.search(r"release [\d.]+, V[\d.]+", version)
    return release.group() if release else version


def sources() -> list[Path]:
    return sorted((ROOT / "csrc" / "cuda").glob("*.cu"))


def compile_kernels(source: Path, architecture: int) -> dict[str, dict[str, int]]:
    """Kernel -> what it uses. `RuntimeError` with nvcc's words where it warns or fails."""
    with tempfile.TemporaryDirectory() as folder:
        command = ["nvcc", *FLAGS, f"-arch=sm_{architecture}", f"-I{ROOT / 'csrc'}", f"-I{ROOT / 'csrc/include'}"]
        command += ["-Xptxas", "-v", "-cubin", "-o", f"{folder}/out.cubin", str(source)]
        done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}\n{done.stderr}")
    return parse(done.stderr)


def parse(report: str) -> dict[str, dict[str, int]]:
    pattern = (
        r"Compiling entry function '(\w+)'.*?(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads"
        r".*?Used (\d+) registers"
    )
    found = re.findall(pattern, report, re.DOTALL)
    names = demangle([match[0] for match in found])
    return {
        name: {"registers": int(registers), "stack": int(stack), "spilled": int(stores) + int(loads)}
        for name, (_, stack, stores, loads, registers) in zip(names, found, strict=True)
    }


def demangle(names: list[str]) -> list[str]:
    if not names:
        return []
    done = subprocess.run(["c++filt", *names], capture_output=True, text=True, check=True)
    return [_short(line) for line in done.stdout.splitlines()]


def _short(signature: str) -> str:
    """rdn::cuda::(anonymous namespace)::attend<64>(rdn::cuda::RelationAttention, float) -> attend<64>"""
    name = re.sub(r"^void ", "", signature.replace("(anonymous namespace)::", "").replace("rdn::cuda::", ""))
    return name[: name.index("(")] if "(" in name else name


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--architectures", type=int, nargs="+", default=RELEASED)
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks/results/cuda_resources.json")
    arguments = parser.parse_args()
    kernels: dict[str, dict[str, dict[str, dict[str, int]]]] = {}
    for architecture in arguments.architectures:
        for source in sources():
            for name, used in compile_kernels(source, architecture).items():
                kernels.setdefault(source.name, {}).setdefault(name, {})[f"sm_{architecture}"] = used
        print(f"sm_{architecture}: no warnings", flush=True)
    table = {
        "command": "python scripts/cuda_resources.py",
        "compiler": compiler(),
        "flags": " ".join(FLAGS),
        "kernels": kernels,
    }
    arguments.output.write_text(json.dumps(table, indent=1) + "\n")


if __name__ == "__main__":
    main()
