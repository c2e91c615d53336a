"""Is this librdn_cuda.so whole? Reads its symbols and what its kernels use; needs no GPU and no driver.

    python scripts/check_cuda_library.py build/gpu_pack/librdn_cuda.so --architecture 90

It must define every launcher of rdn/cuda_ops.h, want nothing but the C and C++ libraries (no Python, no shared CUDA
runtime), and hold code for the one architecture: the kernels of the committed table, with the registers that stand
there, where nvcc is of the release that the table is of. The last wants cuobjdump, on PATH or in Triton's package;
without one it says so.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from scripts.cuda_resources import ROOT, compiler, demangle

HEADER = ROOT / "csrc" / "include" / "rdn" / "cuda_ops.h"
TABLE = ROOT / "benchmarks" / "results" / "cuda_resources.json"
LIBRARIES = ("libc.so.6", "libm.so.6", "libstdc++.so.6", "libgcc_s.so.1", "libpthread.so.0", "libdl.so.2",
             "librt.so.1", "ld-linux-x86-64.so.2")  # fmt: skip


def launchers(header: str) -> set[str]:
    """What a library must define, as nm writes it: rdn::cuda::run(rdn::cuda::Resize const&, CUstream_st*)."""
    found = set()
    for name, given in re.findall(r"^[\w:]+(?: [\w:]+)*[ *]+(\w+)\(([^()]*)\);", header, re.MULTILINE):
        kinds = [re.sub(r"const (\w+)&", r"rdn::cuda::\1 const&", one.rsplit(" ", 1)[0]) for one in given.split(", ")]
        told = ", ".join({"Stream": "CUstream_st*", "Status": "int"}.get(kind, kind) for kind in kinds)
        found.add(f"rdn::cuda::{name}({told})")
    return found


def symbols(library: Path, which: str) -> list[str]:
    """Names of the dynamic symbols that are `defined` or `undefined`, demangled, without their versions."""
    listed = _run("nm", "-D", "-C", f"--{which}-only", str(library))
    return [re.split(r"^[0-9a-f ]*[A-Za-z] ", line.strip())[-1].split("@")[0] for line in listed.splitlines()]


def needed(library: Path) -> list[str]:
    """Names of the shared libraries that it wants."""
    return re.findall(r"NEEDED.*\[(.*?)\]", _run("readelf", "--dynamic", "--wide", str(library)))


def cuobjdump() -> str | None:
    """The program, of the toolkit or of Triton; None where there is none."""
    found = shutil.which("cuobjdump")
    triton = importlib.util.find_spec("triton")
    if found is None and triton is not None and triton.origin:
        inside = Path(triton.origin).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
        found = str(inside) if inside.exists() else None
    return found


def resources(report: str) -> dict[str, dict[str, int]]:
    """Architecture -> kernel -> registers, of cuobjdump --dump-resource-usage."""
    found: dict[str, dict[str, int]] = {}
    for part in re.split(r"^arch = ", report, flags=re.MULTILINE)[1:]:
        kernels = re.findall(r"Function (\w+):\s+REG:(\d+)", part)
        names = demangle([name for name, _ in kernels])
        found.setdefault(part.split()[0], {}).update(
            {name: int(registers) for name, (_, registers) in zip(names, kernels, strict=True)}
        )
    return found


def faults(library: Path, architecture: int) -> list[str]:
    """What is wrong with a library, in words; empty where nothing is."""
    defined = set(symbols(library, "defined"))
    wrong = [f"does not define {name}" for name in sorted(launchers(HEADER.read_text()) - defined)]
    wrong += [f"wants {name}" for name in symbols(library, "undefined") if name.startswith(("Py", "_Py", "cuda"))]
    wrong += [f"wants the library {name}" for name in needed(library) if name not in LIBRARIES]
    program = cuobjdump()
    if program is None:
        print("no cuobjdump on PATH or in Triton's package: kernels and registers not read")
        return wrong
    found = resources(_run(program, "--dump-resource-usage", str(library)))
    wanted = f"sm_{architecture}"
    if set(found) != {wanted}:
        return [*wrong, f"has code for {sorted(found)}; wanted {wanted} alone"]
    told = json.loads(TABLE.read_text())
    table = {name: used[wanted]["registers"] for file in told["kernels"].values() for name, used in file.items()}
    wrong += [f"lacks the kernel {name}" for name in sorted(table.keys() - found[wanted].keys())]
    wrong += [
        f"has the kernel {name}, which {TABLE.name} lacks" for name in sorted(found[wanted].keys() - table.keys())
    ]
    if shutil.which("nvcc") and compiler() == told["compiler"]:
        for name in sorted(table.keys() & found[wanted].keys()):
            if found[wanted][name] != table[name]:
                wrong.append(f"kernel {name} has {found[wanted][name]} registers; {TABLE.name} says {table[name]}")
    print(f"{len(found[wanted])} kernels for {wanted}, at most {max(found[wanted].values())} registers a thread")
    return wrong


def _run(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("library", type=Path)
    parser.add_argument("--architecture", type=int, default=90)
    arguments = parser.parse_args(argv)
    wrong = faults(arguments.library, arguments.architecture)
    for one in wrong:
        print(f"{arguments.library}: {one}")
    if not wrong:
        print(f"{arguments.library}: {arguments.library.stat().st_size / 1e6:.1f} MB, whole")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
