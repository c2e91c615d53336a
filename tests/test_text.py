"""Text files with a byte order mark, and that every text file of a user is read in the one way that knows it."""

from __future__ import annotations

import ast
import codecs
from pathlib import Path

import pytest

from rdn_engine.text import read_text

ROOT = Path(__file__).parents[1]

OWN_WAY = {"rdn_engine/text.py", "rdn_engine/cpus.py", "training/provenance.py"}
"""The reader itself, and what reads files of the kernel."""


@pytest.mark.parametrize(
    ("mark", "encoding"),
    [
        (b"", "utf-8"),
        (codecs.BOM_UTF8, "utf-8"),
        (codecs.BOM_UTF16_LE, "utf-16-le"),
        (codecs.BOM_UTF16_BE, "utf-16-be"),
        (codecs.BOM_UTF32_LE, "utf-32-le"),
        (codecs.BOM_UTF32_BE, "utf-32-be"),
    ],
)
def test_a_mark_tells_the_encoding_and_is_no_text(tmp_path: Path, mark: bytes, encoding: str) -> None:
    path = tmp_path / "names.txt"
    path.write_bytes(mark + "Füße\r\nsecond\n".encode(encoding))
    assert read_text(path) == "Füße\nsecond\n"
    path.write_bytes(mark)
    assert read_text(path) == ""


def test_bytes_of_another_encoding_are_an_error(tmp_path: Path) -> None:
    path = tmp_path / "latin.txt"
    path.write_bytes("Füße".encode("latin-1"))
    with pytest.raises(UnicodeDecodeError):
        read_text(path)


def test_every_text_file_is_read_this_way() -> None:
    found = []
    for folder in ("rdn_engine", "training", "export"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            name = str(path.relative_to(ROOT))
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute) or name in OWN_WAY:
                    continue
                modes = {a.value for a in node.args if isinstance(a, ast.Constant)}
                if node.func.attr == "read_text" or (node.func.attr == "open" and modes & {"r", "rt"}):
                    found.append(f"{name}:{node.lineno}")
    assert [one for one in found if not one.startswith("rdn_engine/media/")] == []  # there "r" is a mode of PyAV
