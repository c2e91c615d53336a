"""The model.py of a model repository, as `rdn-engine export-triton` writes it: tensors in, a step, tensors out."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils
from numpy.typing import NDArray

from rdn_engine.errors import AdmissionRefused, FrameError
from rdn_engine.frame import Frame
from rdn_engine.serve.sessions import Reply, Request
from rdn_engine.serve.triton.options import TritonOptions
from rdn_engine.serve.triton.wire import error_text


class TritonPythonModel:
    """What the Python backend calls, from one thread."""

    def initialize(self, args: dict[str, str]) -> None:
        engines = Path(args["model_repository"], args["model_version"], "engines")
        parameters = json.loads(args["model_config"])["parameters"]
        self._sessions = TritonOptions.from_json(parameters["rdn_engine"]["string_value"]).open(engines)

    def execute(self, requests: list[Any]) -> list[Any]:
        return [_response(reply) for reply in self._sessions.step([_request(one) for one in requests])]

    def finalize(self) -> None:
        self._sessions.close()


def _request(request: Any) -> Request:
    given = {tensor.name(): _array(tensor) for tensor in request.inputs()}
    session, number = given["KNOWN"].reshape(2).tolist()
    stream, images = request.correlation_id(), given.get("FRAME")
    frames = []
    if images is not None:
        pts = float(given["PTS"].item())
        frames.append(
            Frame(
                images[0] if len(images) == 1 else images,  # several are no image: FrameError says so
                int(given["FRAME_INDEX"].item()),
                None if math.isnan(pts) else pts,
                str(stream),
                float(given["PIXEL_ASPECT"].item()),
            )
        )
    start = request.flags() & pb_utils.TRITONSERVER_REQUEST_FLAG_SEQUENCE_START
    return Request(
        stream,
        None if start or not session else session,
        number,
        tuple(frames),
        bool(request.flags() & pb_utils.TRITONSERVER_REQUEST_FLAG_SEQUENCE_END),
    )


def _response(reply: Reply) -> Any:
    if reply.error is not None:
        return pb_utils.InferenceResponse(error=pb_utils.TritonError(error_text(reply.error), _code(reply.error)))
    lines = "\n".join(json.dumps(result.to_dict()) for result in reply.results)
    return pb_utils.InferenceResponse(
        [
            _tensor("SESSION", np.array([[reply.session or 0]], np.int64)),
            _tensor("RESULTS", np.frombuffer(bytearray(lines.encode()), np.uint8)[None]),
        ]
    )


def _code(error: Exception) -> Any:
    if isinstance(error, AdmissionRefused):
        return pb_utils.TritonError.UNAVAILABLE
    if isinstance(error, FrameError):
        return pb_utils.TritonError.INVALID_ARG
    return pb_utils.TritonError.INTERNAL


# Under numpy 2 the arrays that Triton 2.51 takes and gives are wrong without an error, under numpy 1 what it does with
# DLPack (findings/triton_arrays_under_numpy_2.sh).
_BY_DLPACK = not np.__version__.startswith("1.")


def _array(tensor: Any) -> NDArray[Any]:
    return np.from_dlpack(tensor) if _BY_DLPACK else tensor.as_numpy()


def _tensor(name: str, values: NDArray[Any]) -> Any:
    return pb_utils.Tensor.from_dlpack(name, values) if _BY_DLPACK else pb_utils.Tensor(name, values)
