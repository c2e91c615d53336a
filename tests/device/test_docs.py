"""The examples of docs/device.md run as written, on the emulator, with stand-ins for the libraries they name."""

from __future__ import annotations

import contextlib
import re
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from rdn_engine import Detector
from tests.device_models import frames, small_config, small_model
from tests.emulated_gpu import Elsewhere, EmulatedGpu

PAGE = Path(__file__).parents[2] / "docs" / "device.md"
BLOCKS = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)


def module(name: str, **members: Any) -> ModuleType:
    made = ModuleType(name)
    vars(made).update(members)
    return made


def stand_ins(gpu: EmulatedGpu) -> dict[str, ModuleType]:
    """Each does what the page asks of it with arrays of the emulator, after everything has run."""

    def settled(array: np.ndarray, **_: str) -> np.ndarray:
        for queue in gpu.queues.values():
            queue.wait()
        return array

    @contextlib.contextmanager
    def cupy_stream(non_blocking: bool) -> Any:
        yield gpu.queue()

    gpuarray = module("pycuda.gpuarray", to_gpu=lambda image: Elsewhere(gpu.put(image)))
    current = SimpleNamespace(cuda_stream=gpu.queue().ptr)
    return {
        "torch": module("torch", cuda=SimpleNamespace(current_stream=lambda: current), as_tensor=settled),
        "cupy": module("cupy", cuda=SimpleNamespace(Stream=cupy_stream)),
        "pycuda": module("pycuda", gpuarray=gpuarray),
        "pycuda.gpuarray": gpuarray,
        "pycuda.autoprimaryctx": module("pycuda.autoprimaryctx"),
    }


def test_the_page_has_an_example_for_each_library() -> None:
    assert len(BLOCKS) == 7
    for name in ("torch", "cupy", "pycuda", "NV12", "open_streams"):
        assert any(name in block for block in BLOCKS)


@pytest.mark.parametrize("index", range(1, 7))
def test_examples_run(index: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    gpu, video = EmulatedGpu(), frames(3)
    detector = small_model(small_config()).on(gpu)

    def from_pretrained(directory: str, *, backend: str, device: str, relation_precision: str) -> Any:
        assert (directory, backend, device, relation_precision) == ("engines", "tensorrt", "cuda", "float16")
        return detector

    monkeypatch.setattr(Detector, "from_pretrained", from_pretrained)
    for name, made in stand_ins(gpu).items():
        monkeypatch.setitem(sys.modules, name, made)
    there = [Elsewhere(gpu.put(frame)) for frame in video]
    planes = [(Elsewhere(gpu.put(f[:, :, 0].copy())), Elsewhere(gpu.put(f[:24, :, 1].copy()))) for f in video]
    given = {
        "engines": "engines", "video": video, "torch_frames": there, "cupy_frames": there, "first_camera": video,
        "second_camera": video[::-1], "decoder": gpu.queue().ptr,
        "decoded": [(luma, chroma, t / 25) for t, (luma, chroma) in enumerate(planes)],
    }  # fmt: skip
    # The first one makes the detector of all.
    for block in (BLOCKS[0].split("with ")[0], BLOCKS[index]):
        exec(compile(block, str(PAGE), "exec"), given)
    if "print(" in BLOCKS[index]:
        assert capsys.readouterr().out
    if "sure" in given:
        assert given["sure"].shape[1] == 4


def test_the_first_example_runs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    detector = small_model(small_config()).on(EmulatedGpu())
    monkeypatch.setattr(Detector, "from_pretrained", lambda *_, **__: detector)
    exec(compile(BLOCKS[0], str(PAGE), "exec"), {"engines": "engines", "video": frames(3)})
    assert "0 [[" in capsys.readouterr().out
