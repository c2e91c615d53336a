"""The model.py of a model repository, as `rdn-engine export-triton` writes it: tensors in, a step, tensors out."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils
from numpy.typing import NDArray

from rdn_engine.errors import AdmissionRefused, ConfigError, FrameError
from rdn_engine.serve.triton.options import TritonOptions
from rdn_engine.serve.triton.sequences import Answer, Request, Sequences


class TritonPythonModel:
    """What the Python backend calls, from one thread."""

    def initialize(self, args: dict[str, str]) -> None:
        engines = Path(args["model_repository"], args["model_version"], "engines")
        parameters = json.loads(args["model_config"])["parameters"]
        self._sequences = Sequences.load(engines, TritonOptions.from_json(parameters["rdn_engine"]["string_value"]))

    def execute(self, requests: list[Any]) -> list[Any]:
        return [_response(answer) for answer in self._sequences.step([_request(one) for one in requests])]

    def finalize(self) -> None:
        self._sequences.close()


def _request(request: Any) -> Request:
    given = {tensor.name(): _array(tensor) for tensor in request.inputs()}
    image, index, pts = given.get("FRAME"), int(given["FRAME_INDEX"].item()), float(given["PTS"].item())
    if image is not None and len(image) == 1:  # several are no image: FrameError says so
        image = image[0]
    return Request(
        sequence=request.correlation_id(),
        start=bool(request.flags() & pb_utils.TRITONSERVER_REQUEST_FLAG_SEQUENCE_START),
        end=bool(request.flags() & pb_utils.TRITONSERVER_REQUEST_FLAG_SEQUENCE_END),
        image=image,
        frame_index=None if index < 0 else index,
        pts=None if math.isnan(pts) else pts,
        pixel_aspect=float(given["PIXEL_ASPECT"].item()),
    )


def _response(answer: Answer) -> Any:
    if answer.error is not None:
        message = f"{type(answer.error).__name__}: {answer.error}"
        return pb_utils.InferenceResponse(error=pb_utils.TritonError(message, _code(answer.error)))
    lines = "\n".join(json.dumps(result.to_dict()) for result in answer.results)
    return pb_utils.InferenceResponse(
        [
            _tensor("SESSION", np.array([[answer.session]], np.int64)),
            _tensor("RESULTS", np.frombuffer(bytearray(lines.encode()), np.uint8)[None]),
        ]
    )


def _code(error: Exception) -> Any:
    if isinstance(error, AdmissionRefused):
        return pb_utils.TritonError.UNAVAILABLE
    if isinstance(error, (ConfigError, FrameError)):
        return pb_utils.TritonError.INVALID_ARG
    return pb_utils.TritonError.INTERNAL


# Under numpy 2 the arrays that Triton 2.51 takes and gives are wrong without an error, under numpy 1 what it does with
# DLPack (findings/triton_arrays_under_numpy_2.sh).
_BY_DLPACK = not np.__version__.startswith("1.")


def _array(tensor: Any) -> NDArray[Any]:
    return np.from_dlpack(tensor) if _BY_DLPACK else tensor.as_numpy()


def _tensor(name: str, values: NDArray[Any]) -> Any:
    return pb_utils.Tensor.from_dlpack(name, values) if _BY_DLPACK else pb_utils.Tensor(name, values)
