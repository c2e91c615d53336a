"""Evaluators agree on AP, whatever the boxes; and those that follow other rules do not."""

from __future__ import annotations

import pytest

from tests.ap_equality import KINDS, compare

EXACT = ("COCO, pycocotools", "COCO, faster-coco-eval", "VID, definition", "VID, pycocotools", "VID, faster-coco-eval")


@pytest.mark.parametrize("kind", KINDS)
def test_ap_is_that_of_other_evaluators(kind: str) -> None:
    result = compare(kind, sets=6, seed=1000)
    assert result["sets"] >= 4
    for name in EXACT:
        assert result["largest_difference"][name] < 1e-9, name


def test_other_rules_are_seen_to_differ() -> None:
    differences = compare("plain", sets=6, seed=1000)["largest_difference"]
    assert differences["challenge's rule"] > 0.1
    assert differences["sides of x2 - x1 + 2"] > 0.01
