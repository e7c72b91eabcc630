"""The public names are the recorded ones, no more and no fewer, and each explains itself with an example."""

import ast
import importlib
import inspect
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

RECORDED: dict[str, list[str]] = json.loads(
    (Path(__file__).parent / "exported_names.json").read_text(encoding="utf-8")
)
DOCUMENTED = [(module, name) for module, names in RECORDED.items() for name in names if name != "__version__"]

# Records that tnml makes and hands out: the example is that of the function which returns them.
RETURNED = {
    *("Alignment", "BatchCurve", "Bulk", "ChainValue", "HessianExtremes", "LoopResult", "Moments"),
    *("PorterThomas", "Significance", "StepView", "SweepResult", "TrainResult"),
}

# Names that live in the package and are nobody's business outside.
INTERNAL = {
    "tnml": ["MPSLayer", "atomic_path", "choose", "feature_map", "main", "train_classifier", "torch"],
    "tnml.data": ["InputError", "choose"],
    "tnml.nn": ["InputError", "choose", "chain", "feature_map"],
    "tnml.training": ["InputError", "choose", "MPSLayer"],
}


def exported(module: ModuleType) -> list[str]:
    """What the module offers: its `__all__`, or else the names it imports as themselves (`import x as x`)."""
    if hasattr(module, "__all__"):
        return sorted(module.__all__)
    tree = ast.parse(inspect.getsource(module))
    aliases = (alias for node in tree.body if isinstance(node, ast.ImportFrom) for alias in node.names)
    return sorted(alias.name for alias in aliases if alias.asname == alias.name)


@pytest.mark.parametrize("name", RECORDED)
def test_exported_names_are_the_recorded_ones(name: str) -> None:
    module = importlib.import_module(name)
    assert exported(module) == sorted(RECORDED[name])
    assert len(set(RECORDED[name])) == len(RECORDED[name])
    missing = [entry for entry in RECORDED[name] if not hasattr(module, entry)]
    assert not missing, f"{name} lists names it cannot give"


def test_every_room_is_recorded(project_root: Path) -> None:
    rooms = {f"tnml.{path.parent.name}" for path in (project_root / "tnml").glob("*/__init__.py")}
    assert rooms <= set(RECORDED), "record what these offer in exported_names.json"
    assert all(RECORDED.values()), "a room that offers nothing"


@pytest.mark.parametrize("name", INTERNAL)
def test_internals_stay_inside(name: str) -> None:
    offered = exported(importlib.import_module(name))
    assert not set(INTERNAL[name]).intersection(offered)
    assert not [entry for entry in offered if entry.startswith("_") and entry != "__version__"]


@pytest.mark.parametrize(("module", "name"), DOCUMENTED)
def test_public_names_are_documented(module: str, name: str) -> None:
    value = getattr(importlib.import_module(module), name)
    if not (callable(value) or isinstance(value, ModuleType)):
        return
    text = value.__doc__ or ""
    assert text.strip(), f"{module}.{name} has no docstring"
    if isinstance(value, ModuleType) or getattr(value, "_is_protocol", False):
        return  # nothing to call
    generated = isinstance(value, type) and text.startswith(f"{value.__name__}(")
    assert not generated, f"{module}.{name} has only the docstring which dataclass makes"
    assert ">>>" in text or name in RETURNED, f"{module}.{name} has no example"


def test_root_names_are_lazy() -> None:
    """`import tnml` alone loads neither torch nor any room; dir() still shows everything."""
    code = (
        "import sys, tnml\n"
        "heavy = {'torch', 'sklearn', 'numba', 'lightning_fabric', 'rich', 'matplotlib', 'pooch'}\n"
        "print(sorted(heavy & set(sys.modules)), sorted(n for n in sys.modules if n.startswith('tnml.')))\n"
        "print(set(tnml.__all__) <= set(dir(tnml)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[:2] == ["[] []", "True"]


def test_unknown_root_name_is_an_attribute_error() -> None:
    tnml = importlib.import_module("tnml")
    with pytest.raises(AttributeError, match="no attribute 'MPSClasifier'"):
        tnml.MPSClasifier  # noqa: B018  (looking it up is the test)
