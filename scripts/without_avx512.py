"""Run a command as on a processor without AVX-512, AVX-VNNI and AMX: no library in it is told that there are any.

    python scripts/without_avx512.py python benchmarks/frame/latency.py ...

Kernels, ONNX Runtime, OpenVINO, oneDNN and NumPy then choose what they have for AVX2, so that one machine measures both
kinds. What is measured is this machine's core with AVX2, and results say so (`machine.hidden`). Wants x86-64 Linux with
glibc 2.35 or newer, gcc and objdump. The first run reads every library that is loaded, PyTorch's for minutes. Nothing
is hidden from static programs, and from those that are started without these variables; a thread that blocks SIGILL
ends where it asks. Exit code: the command's; 125 where this machine cannot.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

CANNOT = 125
SOURCE = Path(__file__).with_suffix(".c")
BUILD = Path(__file__).resolve().parents[1] / "build"
LIBRARY = BUILD / "without_avx512.so"
CPUIDS = BUILD / "cpuids"
"""Where the instructions of each library stand, a file for each"""
TUNABLE = "glibc.cpu.hwcaps=-AVX512F,-AVX512CD,-AVX512BW,-AVX512DQ,-AVX512VL"
"""For glibc's own string functions, which are chosen before any library is loaded"""


def library() -> Path:
    """What is loaded before all others, built where it is not there or older than its source.

    Raises:
        subprocess.CalledProcessError: gcc refuses the source.
    """
    if not LIBRARY.exists() or LIBRARY.stat().st_mtime < SOURCE.stat().st_mtime:
        BUILD.mkdir(exist_ok=True)
        part = LIBRARY.with_name(f"{os.getpid()}.{LIBRARY.name}")
        subprocess.run(["gcc", "-O2", "-shared", "-fPIC", "-o", part, SOURCE, "-ldl"], check=True)
        part.replace(LIBRARY)
    return LIBRARY


def main(command: list[str]) -> NoReturn:
    if not command or command[0] in ("-h", "--help"):
        print(__doc__)
        sys.exit(0 if command else 2)
    for program in ("gcc", "objdump"):
        if shutil.which(program) is None:
            print(f"{program} is not there; wanted gcc and objdump (binutils)", file=sys.stderr)
            sys.exit(CANNOT)
    if set(str(LIBRARY)) & set(": "):
        print(f"{LIBRARY} has a colon or a space in its path, which LD_AUDIT cannot name", file=sys.stderr)
        sys.exit(CANNOT)
    try:
        CPUIDS.mkdir(parents=True, exist_ok=True)
        library()
    except (OSError, subprocess.CalledProcessError) as error:
        print(f"{LIBRARY} cannot be built: {error}", file=sys.stderr)
        sys.exit(CANNOT)
    told = {name: ":".join(filter(None, [str(LIBRARY), os.environ.get(name)])) for name in ("LD_AUDIT", "LD_PRELOAD")}
    tunables = ":".join(filter(None, [os.environ.get("GLIBC_TUNABLES"), TUNABLE]))
    told |= {"RDN_CPUIDS": str(CPUIDS), "GLIBC_TUNABLES": tunables, "RDN_HIDDEN": "AVX-512, AVX-VNNI, AMX"}
    if os.environ.get("RDN_CPUIDS"):  # nothing is left to hide
        told = {}
    try:
        os.execvpe(command[0], command, os.environ | told)
    except (OSError, ValueError) as error:  # the second: an empty name
        print(f"{command[0]}: {error}", file=sys.stderr)
        sys.exit(127)


if __name__ == "__main__":
    main(sys.argv[1:])
