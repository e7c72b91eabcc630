"""Imports go down the floors; none hides inside a function but the listed ones; none goes in a circle."""

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import NamedTuple

import pytest

# From the ground up. A room imports from itself and from the floors below it, not from its neighbours.
FLOORS = [
    ["errors", "version"],
    ["checks", "torch_private"],
    ["files", "quadrature", "randomness", "shapes"],
    ["contraction", "features", "loop"],
    ["mps"],
    ["data", "nn"],
    ["diagnostics", "training"],
    ["explain"],
    ["estimators", "pde", "study"],
    ["models"],
    ["report"],
    ["cli"],
    ["__init__", "__main__"],
]
HEIGHT = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}

# The imports that wait inside a function: optional packages and slow ones, at the door of their room.
LAZY = {
    "tnml.contraction.chain.loading": {
        "numba.core.event",
        "tnml.contraction.chain.native",
        "tnml.contraction.chain.native_steps",
    },
    "tnml.contraction.chain.replicas": {"tnml.contraction.chain.native_replicas"},
    "tnml.contraction.chain.workers": {
        "tnml.contraction.chain.driver",
        "tnml.contraction.chain.step_driver",
    },
    "tnml.data.catalogue": {"sklearn.datasets"},
    "tnml.data.download": {"pooch"},
    "tnml.data.table_files": {"pyarrow"},
    "tnml.explain.explanation": {"shap"},
    "tnml.files": {"pooch"},
    "tnml.models": {"tnml.pde"},
    "tnml.mps.interop": {"tensornetwork"},
    "tnml.study.pools": {"dask", "distributed"},
    "tnml.study.table": {"pandas", "pyarrow"},
    "tnml.training.replicas.sparse": {"tnml.training.replicas.kernel"},
    "tnml.report.study_html": {"plotly.offline"},
    "tnml.loop.records": {"torch.utils.tensorboard"},
}


IMPORTERS = {"import_module", "__import__"}


class Import(NamedTuple):
    """One import: by which module, of what ("?" where only the running program knows), inside a function?"""

    source: str
    target: str
    hidden: bool


def module_name(path: Path, root: Path) -> str:
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports_of(source: str, module: str, *, is_package: bool, modules: set[str]) -> Iterator[Import]:
    """Every import in the text of `module`: relative ones resolved, import_module("...") included."""
    package = module if is_package else module.rpartition(".")[0]
    stack: list[tuple[ast.AST, bool]] = [(ast.parse(source), False)]
    while stack:
        node, inside = stack.pop()
        if isinstance(node, ast.Import):
            yield from (Import(module, alias.name, inside) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            for alias in node.names:
                full = f"{base}.{alias.name}"
                is_root_name = base == "tnml" and full not in modules
                yield Import(module, full if full in modules or is_root_name else base, inside)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] in IMPORTERS:
            name = node.args[0] if node.args else None
            yield Import(module, str(name.value) if isinstance(name, ast.Constant) else "?", inside)
        inside = inside or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        stack.extend((child, inside) for child in ast.iter_child_nodes(node))


def room(module: str) -> str:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


def climbs(found: Import) -> bool:
    """Whether an import within tnml goes up or sideways to another room."""
    if found.target.split(".")[0] != "tnml":
        return False
    here, there = room(found.source), room(found.target)
    top = HEIGHT["__init__"]
    return here != there and HEIGHT.get(here, top) <= HEIGHT.get(there, top)


def cycle_in(below: dict[str, set[str]]) -> list[str]:
    """The modules of one cycle, the first named again at the end; empty where there is none."""
    try:
        TopologicalSorter(below).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


@pytest.fixture(scope="module")
def modules(project_root: Path) -> dict[str, Path]:
    found = {module_name(p, project_root): p for p in sorted((project_root / "tnml").rglob("*.py"))}
    assert "tnml" in found, "the package is not where this test looks for it"
    return found


@pytest.fixture(scope="module")
def every_import(modules: dict[str, Path]) -> list[Import]:
    names = set(modules)
    return [
        found
        for name, path in modules.items()
        for found in imports_of(
            path.read_text(encoding="utf-8"), name, is_package=path.name == "__init__.py", modules=names
        )
    ]


def test_every_room_has_a_floor(modules: dict[str, Path]) -> None:
    homeless = sorted(name for name in modules if room(name) not in HEIGHT)
    assert not homeless, f"give these a floor in FLOORS and in docs/architecture.md: {homeless}"


def test_imports_go_down(every_import: list[Import]) -> None:
    wrong = sorted(f"{i.source} -> {i.target}" for i in every_import if climbs(i))
    assert not wrong, f"these imports go up or sideways: {wrong}"


def test_hidden_imports_are_the_listed_ones(every_import: list[Import], modules: dict[str, Path]) -> None:
    packages = {name for name, path in modules.items() if path.name == "__init__.py"}
    hidden: dict[str, set[str]] = {}
    for found in every_import:
        if found.hidden and not (found.target == "?" and found.source in packages):  # lazy names (PEP 562)
            hidden.setdefault(found.source, set()).add(found.target)
    assert hidden == LAZY, "compare with the table LAZY; entries that are not used any more go, too"


def test_no_import_cycle(every_import: list[Import], modules: dict[str, Path]) -> None:
    below: dict[str, set[str]] = {name: set() for name in modules}
    for found in every_import:
        if found.source != "tnml" and found.target in modules and found.target != "tnml":
            below[found.source].add(found.target)
    cycle = cycle_in(below)
    assert not cycle, f"import cycle: {' -> '.join(cycle)}"


def test_a_cycle_is_noticed() -> None:
    assert cycle_in({"a": {"b"}, "b": {"c"}, "c": set()}) == []
    assert sorted(set(cycle_in({"a": {"b"}, "b": {"c"}, "c": {"b"}}))) == ["b", "c"]


SAMPLES = {
    "import tnml.cli": ("tnml.cli", False),
    "from tnml.cli import main": ("tnml.cli", False),
    "from tnml import cli": ("tnml.cli", False),
    "from .. import cli": ("tnml.cli", False),
    "from ..cli import main": ("tnml.cli", False),
    "from . import layer": ("tnml.nn.layer", False),
    "def f():\n    import plotly": ("plotly", True),
    "class A:\n    def f(self):\n        return import_module('tnml.cli')": ("tnml.cli", True),
    "f = lambda: __import__('tnml.cli')": ("tnml.cli", True),
    "def f(name):\n    return importlib.import_module(name)": ("?", True),
    "from tnml import load": ("tnml.load", False),
    "from tnml import __version__": ("tnml.__version__", False),
}


@pytest.mark.parametrize("source", SAMPLES)
def test_the_reader_sees_imports_in_every_spelling(source: str) -> None:
    known = {"tnml", "tnml.cli", "tnml.nn", "tnml.nn.layer"}
    found = list(imports_of(source, "tnml.nn.layer", is_package=False, modules=known))
    assert [(i.target, i.hidden) for i in found] == [SAMPLES[source]]


def test_climbing_is_noticed() -> None:
    assert climbs(Import("tnml.nn.layer", "tnml.cli", False))
    assert climbs(Import("tnml.nn.layer", "tnml.data", False)), "a neighbour on the same floor"
    assert climbs(Import("tnml.nn.layer", "tnml.load", False)), "a name of the package's root"
    assert not climbs(Import("tnml.nn.layer", "tnml.nn.other", False))
    assert not climbs(Import("tnml.cli", "tnml.nn.layer", False))
    assert climbs(Import("tnml.nn.layer", "tnml.__version__", False)), "the root stands above all"
    assert not climbs(Import("tnml.nn.layer", "tnml.version", False))
