"""Who may import whom: the floors of the house (docs/design.md, section 4), and torch's place in it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from modulefinder import ModuleFinder
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

FLOORS = (
    ("errors", "version"),
    ("plain", "text", "lines", "capture", "process", "cpus", "cache"),
    ("input_config",),
    ("config",),
    ("results", "frame"),
    ("kernels",),
    ("media", "bundle", "stream", "relation_order"),
    ("backends",),
    ("host", "device"),
    ("detector",),
    ("verify", "serve", "evaluation", "dials_file"),
    ("service", "tuning"),
    ("cli",),
    ("__main__",),
)
"""Rooms of rdn_engine from the ground up. A room imports those below it; neighbours do not see each other."""

HOUSES = ("rdn_engine", "training", "export", "benchmarks")
"""Top folders in the same order: each may import those before it."""

OUTSIDE = ("tests", "scripts", "examples")
"""What the package, training and export never import; benchmarks takes the definitions in tests."""

TORCH = "rdn_engine.backends.torch"
"""The only room of the package that may import torch when it is imported."""


def modules(folder: Path) -> Iterator[tuple[str, ast.Module]]:
    """Dotted name and syntax tree of every module below a top folder's parent."""
    for path in sorted(folder.rglob("*.py")):
        name = ".".join(path.relative_to(folder.parent).with_suffix("").parts).removesuffix(".__init__")
        yield name, ast.parse(path.read_text(encoding="utf-8"), str(path))


def imports(tree: ast.Module, *, at_import: bool = False) -> Iterator[tuple[int, str]]:
    """Line and dotted name of everything that a module imports; what stands there for type checkers alone is left out.

    Args:
        tree: of the module.
        at_import: only what is imported as soon as the module is, not what its functions import when they are called.
    """
    waiting: list[ast.AST] = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            waiting += node.orelse
            continue
        if at_import and isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            continue
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            # Relative ones name no room: a rule that cannot read them must not pass them.
            stem = node.module if not node.level else "relative"
            yield from ((node.lineno, f"{stem}.{alias.name}") for alias in node.names)
        waiting += ast.iter_child_nodes(node)


def room(name: str) -> str:
    """The part of a dotted name of the package that FLOORS speak of; "" for the package itself."""
    return [*name.split("."), ""][1]


def broken_floors(name: str, tree: ast.Module) -> list[str]:
    """Imports of a module of the package that do not go down, in words."""
    floor = {one: height for height, rooms in enumerate(FLOORS) for one in rooms}
    own = room(name)
    found = []
    for line, target in imports(tree):
        top, other = target.split(".")[0], room(target)
        if top in OUTSIDE or target.startswith("relative."):
            found.append(f"{name}:{line} imports {target}")
            continue
        if top != "rdn_engine" or (other == own and target != "rdn_engine"):
            continue
        if other not in floor or floor[other] >= floor[own]:
            found.append(f"{name}:{line} imports {target}")
    return found


def test_every_room_has_a_floor() -> None:
    package = ROOT / "rdn_engine"
    rooms = {path.stem for path in package.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert rooms - {"__init__"} == {one for rooms in FLOORS for one in rooms}


def test_imports_of_the_package_go_down() -> None:
    """`rdn_engine/__init__.py` stands above all rooms: what it names is the package's face."""
    trees = [(name, tree) for name, tree in modules(ROOT / "rdn_engine") if name != "rdn_engine"]
    assert len(trees) > 50
    assert [one for name, tree in trees for one in broken_floors(name, tree)] == []


def test_top_folders_import_only_those_below_them() -> None:
    found = []
    for height, house in enumerate(HOUSES):
        for name, tree in modules(ROOT / house):
            above = HOUSES[height + 1 :] + (OUTSIDE if house != "benchmarks" else OUTSIDE[1:]) + ("relative",)
            found += [f"{name}:{line} imports {t}" for line, t in imports(tree) if t.split(".")[0] in above]
    assert found == []


def test_no_module_is_part_of_a_circle() -> None:
    """Not even where the imports wait for a call: a circle cannot be read from either end."""
    trees = {name: tree for house in HOUSES for name, tree in modules(ROOT / house)}
    edges: dict[str, set[str]] = {}
    faces: dict[str, set[str]] = {}
    for name, tree in trees.items():
        reached = {t if t in trees else t.rpartition(".")[0] for _, t in imports(tree)}
        # A package whose face names its own modules is no circle, unless one of them wants that face.
        edges[name] = {t for t in reached & trees.keys() if t != name and not t.startswith(f"{name}.")}
        faces[name] = {t for t in reached & trees.keys() if t.startswith(f"{name}.")}
    wanting = [(name, t) for name, targets in edges.items() for t in targets if name in faces[t]]
    assert wanting == []
    # What leads nowhere, and what nothing leads to, is in no circle.
    while True:
        targets = set().union(*edges.values())
        free = {name for name in edges if name not in targets or not edges[name] & edges.keys()}
        if not free:
            break
        edges = {name: reached & edges.keys() - free for name, reached in edges.items() if name not in free}
    assert edges == {}


def test_only_the_torch_backend_imports_torch() -> None:
    """Elsewhere a function may want it, when it is called: a conversion to its tensors."""
    libraries = ("torch", "torchvision", "safetensors")
    found = [
        f"{name}:{line} imports {target}"
        for name, tree in modules(ROOT / "rdn_engine")
        if not name.startswith(f"{TORCH}.")
        for line, target in imports(tree, at_import=True)
        if target.split(".")[0] in libraries
    ]
    assert found == []
    assert any(t.startswith("torch") for n, tree in modules(ROOT / "rdn_engine") if n.startswith(TORCH)
               for _, t in imports(tree, at_import=True))  # fmt: skip


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("rdn_engine.stream.order", "from rdn_engine.host import window"),
        ("rdn_engine.host.window", "from rdn_engine.device.window import DeviceWindow"),
        ("rdn_engine.kernels.cpu.boxes", "def later():\n    import rdn_engine.detector"),
        ("rdn_engine.errors", "from rdn_engine import config"),
        ("rdn_engine.media.source", "from rdn_engine.stream.base import Stream"),
        ("rdn_engine.backends.graph", "from rdn_engine.backends.graph import Graph\nfrom rdn_engine import Detector"),
        ("rdn_engine.results", "from .detector import Detector"),
        ("rdn_engine.results", "from . import detector"),
        ("rdn_engine.stream.order", "import rdn_engine"),
        ("rdn_engine.errors", "import tests.fakes"),
    ],
)
def test_an_import_that_goes_up_is_found(name: str, source: str) -> None:
    assert len(broken_floors(name, ast.parse(source))) == 1


def test_imports_for_type_checkers_do_not_count() -> None:
    source = "if TYPE_CHECKING:\n    from rdn_engine.detector import Detector\nelse:\n    import math"
    assert list(imports(ast.parse(source))) == [(4, "math")]


def test_own_modules_are_imported_by_statements() -> None:
    """What makes one file of an application, as PyInstaller does, follows statements, not names in variables."""
    by_name = set()
    for name, tree in modules(ROOT / "rdn_engine"):
        calls = [node.func for node in ast.walk(tree) if isinstance(node, ast.Call)]
        called = {getattr(call, "attr", getattr(call, "id", "")) for call in calls}
        if called & {"import_module", "__import__"}:
            by_name.add(name)
    # Libraries of others, one of several or for a conversion: an application that wants them names them.
    assert by_name == {"rdn_engine.results", "rdn_engine.backends.tensorrt.library"}
    finder = ModuleFinder(path=[str(ROOT)])
    finder.load_module("rdn_engine", None, str(ROOT / "rdn_engine"), ("", "", 5))
    every = {name for name, _ in modules(ROOT / "rdn_engine")}
    above = ("__main__", "cli", "verify", "service", "evaluation", "dials_file", "tuning")
    hidden = {name for name in every - set(finder.modules) if room(name) not in above}
    own = {f"rdn_engine.media.{name}" for name in ("writer", "draw", "playlist", "given")} | {"rdn_engine.lines"}
    own |= {f"rdn_engine.serve.{name}" for name in ("client", "sessions", "triton")}
    own |= {f"rdn_engine.serve.triton.{name}" for name in ("client", "export", "model", "options", "wire")}
    own |= {f"rdn_engine.serve.{name}" for name in ("archive", "atomic", "opening", "recordings")}
    own |= {f"rdn_engine.serve.{name}" for name in ("result_files", "segment_files", "segments")}
    own |= {f"rdn_engine.serve.ray{name}" for name in ("", ".archive", ".client", ".cluster", ".deployment")}
    assert hidden == own, "the application's own imports"
