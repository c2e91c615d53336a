"""Type stubs of the real TensorRT bindings, on a machine that has neither TensorRT nor a GPU.

    python scripts/tensorrt_stubs.py 11.4.0.106 build/stubs-11.4

The wheel of the bindings is small, but loads only beside TensorRT's libraries. They export what the bindings look for:
empty libraries with those names let pybind11-stubgen import the module and write down every signature. What it writes
is then made true: what may return None says so, and names that Python cannot parse are changed.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

PACKAGE = "tensorrt-cu13-bindings"
LIBRARIES = ("nvinfer", "nvinfer_plugin", "nvonnxparser")
SYMBOLS = (
    "createInferBuilder_INTERNAL",
    "createInferRefitter_INTERNAL",
    "createInferRuntime_INTERNAL",
    "createNvOnnxParserRefitter_INTERNAL",
    "createNvOnnxParser_INTERNAL",
    "getBuilderPluginRegistry",
    "getPluginRegistry",
    "initLibNvInferPlugins",
    "getNvOnnxParserVersion",
)
MAY_BE_NONE = "build_serialized_network|deserialize_cuda_engine|create_execution_context"


def write_stubs(version: str, directory: Path) -> Path:
    """Write the package `tensorrt` of stubs to `directory` and return its path. Wants a C compiler and the registry."""
    package = directory / "tensorrt"
    with tempfile.TemporaryDirectory() as temporary:
        site = Path(temporary) / "site"
        _unpack(version, Path(temporary), site)
        _hollow_libraries(site / "tensorrt_bindings", version.partition(".")[0])
        # The name that programs import; signatures name it too.
        (site / "tensorrt_bindings").rename(site / "tensorrt")
        _run(sys.executable, "-m", "pybind11_stubgen", "tensorrt.tensorrt", "--output-dir", temporary,
             "--ignore-all-errors", environment={"PYTHONPATH": str(site)})  # fmt: skip
        text = (Path(temporary) / "tensorrt" / "tensorrt.pyi").read_text()
        shutil.rmtree(package, ignore_errors=True)
        package.mkdir(parents=True)
        (package / "tensorrt.pyi").write_text(corrected(text))
    (package / "__init__.pyi").write_text(
        "from typing import Any\nfrom tensorrt.tensorrt import *\n__version__: str\n"
        "def nptype(trt_type: DataType) -> type[Any]: ...\n"
    )
    return package


def corrected(text: str) -> str:
    lines = []
    for line in text.splitlines():
        if line.lstrip().startswith("def "):
            line = re.sub(r"\bin: (?=[a-z])", "in_: ", line)  # a keyword as the name of a parameter
            line = _plain_self(line)
            line = re.sub(r": Dims(?=[,) =])", ": Dims | collections.abc.Sequence[int]", line)  # converted implicitly
            line = re.sub(r" = None(?=[,)])", " = ...", line)
            line = line.replace(
                "= ..., channel_axis: typing.SupportsInt)", "= ..., channel_axis: typing.SupportsInt = ...)"
            )
            line = re.sub(rf"(def (?:{MAY_BE_NONE})\(.*\)) -> (\w+):", r"\1 -> \2 | None:", line)
        line = line.replace("logger: typing_extensions.CapsuleType", "logger: ILogger")
        line = re.sub(r"(?<=-> )bool\b|(?<=: )bool\b", "builtins.bool", line)  # tensorrt.bool hides it
        lines.append(line)
        if line.startswith("class IHostMemory"):
            lines.append("    def __buffer__(self, flags: int, /) -> memoryview: ...")
        if line.startswith("class Dims:"):
            lines.append("    def __iter__(self) -> collections.abc.Iterator[int]: ...")
    # What is wrong with other signatures is no fault of the code that is checked.
    return (
        "# mypy: ignore-errors\n"
        + "\n".join(lines).replace("import typing\n", "import builtins\nimport typing\n", 1)
        + "\n"
    )


def _plain_self(line: str) -> str:
    """Without the type of `self`, which for a bound vector is that of another class, in brackets of any depth."""
    head, _, rest = line.partition("(self: ")
    depth = 0
    for position, character in enumerate(rest):
        depth += (character == "[") - (character == "]")
        if depth == 0 and character in ",)":
            return f"{head}(self{rest[position:]}"
    return line


def _unpack(version: str, folder: Path, site: Path) -> None:
    _run(sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder),
         f"{PACKAGE}=={version}")  # fmt: skip
    with zipfile.ZipFile(next(folder.glob("*.whl"))) as wheel:
        wheel.extractall(site)


def _hollow_libraries(folder: Path, major: str) -> None:
    source = "".join(f"void *{name}(void) {{ return 0; }}\n" for name in SYMBOLS)
    for library in LIBRARIES:
        name = f"lib{library}.so.{major}"
        command = ["cc", "-shared", "-fPIC", f"-Wl,-soname,{name}", "-x", "c", "-", "-o", str(folder / name)]
        subprocess.run(command, input=source, text=True, check=True)


def _run(*command: str, environment: dict[str, str] | None = None) -> None:
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}: {done.stderr[-2000:]}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("version", help=f"of {PACKAGE}")
    parser.add_argument("directory", type=Path)
    given = parser.parse_args()
    print(write_stubs(given.version, given.directory))
