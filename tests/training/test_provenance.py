"""What results say of the machine that they were measured on."""

from __future__ import annotations

import platform

import pytest

from training.provenance import environment, processor

X86 = """processor\t: 0
vendor_id\t: AuthenticAMD
cpu family\t: 25
model\t\t: 17
model name\t: AMD EPYC

processor\t: 1
cpu family\t: 26
model\t\t: 2
model name\t: another
"""
ARM = "processor\t: 0\nBogoMIPS\t: 50.00\nCPU implementer\t: 0x41\n"


@pytest.mark.parametrize(
    ("cpuinfo", "wanted"),
    [
        (X86, "AMD EPYC (family 25, model 17)"),
        ("model name\t: Apple M2\n", "Apple M2"),
        ("cpu family\t: 6\nmodel name\t: a name\n", "a name"),
        ("processor\t: 0\nmodel name\t:\n\n" + X86, platform.machine()),
        (ARM, platform.machine()),
        ("", platform.machine()),
    ],
)
def test_a_processor_is_told_from_others_of_its_name(cpuinfo: str, wanted: str) -> None:
    assert processor(cpuinfo) == wanted


def test_every_result_names_its_processor() -> None:
    assert environment()["machine"]["cpu"]
