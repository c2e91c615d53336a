"""Builds rdn_engine.kernels._C, and _cuda where the CUDA kernels are wanted, with CMake; TENSORRT_ROOT adds the plugin.

RDN_CUDA=auto (where a toolkit and a GPU are found; default), on or off; RDN_CUDA_ARCHITECTURES="80;90" says for which.
Objects stay in build/, a folder for each Python and each of these choices, so that the next installation compiles what
has changed.
"""

import fcntl
import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pybind11
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent


class CMakeBuild(build_ext):
    def build_extension(self, ext: Extension) -> None:
        target = Path(self.get_ext_fullpath(ext.name)).resolve()
        choices = [
            f"-DRDN_CUDA={os.environ.get('RDN_CUDA', 'auto')}",
            f"-DRDN_CUDA_ARCHITECTURES={os.environ.get('RDN_CUDA_ARCHITECTURES', '')}",
            f"-DTENSORRT_ROOT={os.environ.get('TENSORRT_ROOT', '')}",
        ]
        digest = hashlib.sha256(" ".join(choices).encode()).hexdigest()[:8]
        build = ROOT / "build" / f"{sys.implementation.cache_tag}-{digest}"
        build.mkdir(parents=True, exist_ok=True)
        configure = [
            "cmake",
            *("-S", str(ROOT)),
            *("-B", str(build)),
            *("-G", "Ninja"),
            "-DCMAKE_BUILD_TYPE=Release",
            f"-DCMAKE_LIBRARY_OUTPUT_DIRECTORY={target.parent}",
            f"-DPython_EXECUTABLE={sys.executable}",
            f"-Dpybind11_DIR={pybind11.get_cmake_dir()}",
            *choices,
        ]
        # Two installations at once would write each other's objects.
        with (build / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            # A cache from another environment (pip builds in a temporary one) names tools that are gone; objects stay.
            (build / "CMakeCache.txt").unlink(missing_ok=True)
            try:
                subprocess.run(configure, check=True)
                subprocess.run(["cmake", "--build", str(build), "--parallel", str(os.cpu_count() or 1)], check=True)
            except subprocess.CalledProcessError as error:
                sys.exit(f"building {ext.name} failed, the reason stands above: {' '.join(error.cmd)}")


setup(ext_modules=[Extension("rdn_engine.kernels._C", sources=[])], cmdclass={"build_ext": CMakeBuild})
