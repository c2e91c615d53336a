"""What a configuration wants of relation.npz, wherever it is read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from rdn_engine.bundle.contract import fused_shapes, relation_arrays
from rdn_engine.config import RDNConfig
from rdn_engine.device.relation import DeviceRelation
from rdn_engine.errors import BundleError
from rdn_engine.host.relation import FusedRelation
from tests.emulated_gpu import EmulatedGpu
from tests.fakes import relation_weights, tiny_config

READERS: dict[str, Callable[[RDNConfig, Any], Any]] = {
    "contract": relation_arrays,
    "host": lambda config, weights: FusedRelation(config, weights, 1),
    "device": lambda config, weights: DeviceRelation(EmulatedGpu(), config, weights, "float32"),
}


def test_arrays_are_those_of_the_configuration_in_float32() -> None:
    config = tiny_config()
    weights = {name: np.asfortranarray(array, np.float64) for name, array in relation_weights(config).items()}
    arrays = relation_arrays(config, weights)
    assert {name: array.shape for name, array in arrays.items()} == fused_shapes(config)
    assert set(weights) > set(arrays), "what older bundles hold besides is ignored"
    for name, array in arrays.items():
        assert array.dtype == np.float32
        assert array.flags.c_contiguous
        np.testing.assert_array_equal(array, weights[name], name)


@pytest.mark.parametrize("read", READERS.values(), ids=READERS)
def test_weights_that_do_not_fit_are_named(read: Callable[[RDNConfig, Any], Any]) -> None:
    config = tiny_config()
    weights = relation_weights(config)
    missing = {k: v for k, v in weights.items() if k != "rel.2.value.bias"}
    with pytest.raises(BundleError, match=r"rel.2.value.bias has shape None; .* wants \(32,\)"):
        read(config, missing)
    with pytest.raises(BundleError, match=r"classify.weight has shape \(5, 32\); .* wants \(3, 32\)"):
        read(config, weights | {"classify.weight": np.zeros((5, 32), np.float32)})
