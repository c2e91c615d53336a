"""What Triton's Python backend and its client are to `model.py` and to a stream, without a Triton between them."""

from __future__ import annotations

import json
import math
import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tritonclient.utils import InferenceServerException

from tests.serve.network import IDLE, Lost, Network, Server

TYPES = {"UINT8": np.uint8, "INT64": np.int64, "FP64": np.float64}
START, END = 1, 2


class Tensor:
    def __init__(self, name: str, values: NDArray[Any]) -> None:
        self._name, self._values = name, values

    @classmethod
    def from_dlpack(cls, name: str, values: NDArray[Any]) -> Tensor:
        return cls(name, np.from_dlpack(values))

    def name(self) -> str:
        return self._name

    def as_numpy(self) -> NDArray[Any]:
        return self._values

    def __dlpack__(self, **options: Any) -> Any:
        return self._values.__dlpack__(**options)

    def __dlpack_device__(self) -> Any:
        return self._values.__dlpack_device__()


class TritonError:
    UNAVAILABLE, INVALID_ARG, INTERNAL = "UNAVAILABLE", "INVALID_ARG", "INTERNAL"

    def __init__(self, message: str, code: str) -> None:
        self.message, self.code = message, code


class InferenceResponse:
    def __init__(self, tensors: list[Tensor] | None = None, error: TritonError | None = None) -> None:
        self.tensors, self.error = {one.name(): one for one in tensors or []}, error

    def as_numpy(self, name: str) -> NDArray[Any]:
        return self.tensors[name].as_numpy()


_utils = ModuleType("triton_python_backend_utils")
vars(_utils).update(
    Tensor=Tensor,
    TritonError=TritonError,
    InferenceResponse=InferenceResponse,
    TRITONSERVER_REQUEST_FLAG_SEQUENCE_START=START,
    TRITONSERVER_REQUEST_FLAG_SEQUENCE_END=END,
)
sys.modules.setdefault("triton_python_backend_utils", _utils)

from rdn_engine.serve.triton.model import TritonPythonModel  # noqa: E402


class InferenceServerClient:
    """That of tritonclient, whose server is a network's."""

    def __init__(self, network: Network) -> None:
        self._network = network

    def get_model_config(self, *_: Any, **__: Any) -> Any:
        names = json.dumps(self._network.detector.config.class_names)
        return SimpleNamespace(config=SimpleNamespace(parameters={"class_names": SimpleNamespace(string_value=names)}))

    def close(self) -> None:
        pass

    def infer(
        self, model: str, inputs: Any, *, sequence_id: str, sequence_start: bool, sequence_end: bool, **_: Any
    ) -> InferenceResponse:
        tensors = [
            Tensor(one.name(), np.frombuffer(bytearray(one._get_content()), TYPES[one.datatype()]).reshape(one.shape()))
            for one in inputs
        ]
        request = SimpleNamespace(
            inputs=lambda: tensors,
            correlation_id=lambda: sequence_id,
            flags=lambda: START * sequence_start + END * sequence_end,
        )
        try:
            answer: InferenceResponse = self._network.deliver(lambda server: self._execute(server, request))
        except Lost:
            raise InferenceServerException("late", "StatusCode.UNAVAILABLE") from None
        if answer.error is not None:
            raise InferenceServerException(answer.error.message, f"StatusCode.{answer.error.code}")
        return answer

    def _execute(self, server: Server, request: Any) -> InferenceResponse:
        """As Triton, which begins and ends sequences by the flags, and reaps one after its time."""
        name = request.correlation_id()
        if self._network.now - server.live.get(name, -math.inf) >= IDLE and not request.flags() & START:
            raise InferenceServerException(f"sequence {name} must specify the START flag on the first request")
        server.live[name] = self._network.now
        if request.flags() & END:
            del server.live[name]
        model = TritonPythonModel()
        model._sessions = server.sessions
        [response] = model.execute([request])
        return response
