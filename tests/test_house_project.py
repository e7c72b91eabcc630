"""README's commands, the pins, the licence and the continuous integration agree with each other."""

import ast
import hashlib
import os
import re
import subprocess
import tomllib
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

# The sha256 sum of the licence's official text.
APACHE_2 = "cfc7749b96f63bd31c3c42b5c471bf756814053e847c10f3eb003417bc523d30"


@pytest.fixture(scope="module")
def pyproject(project_root: Path) -> dict[str, Any]:
    return tomllib.loads((project_root / "pyproject.toml").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def pins(project_root: Path) -> dict[str, Version]:
    """The constraints; every line has to read name==version, so that no file, host or local build gets in."""
    found: dict[str, Version] = {}
    for line in (project_root / "constraints.txt").read_text(encoding="utf-8").splitlines():
        text = line.partition("#")[0].strip()
        if text:
            match = re.fullmatch(r"([A-Za-z0-9._-]+)==([0-9][A-Za-z0-9.]*)", text)
            assert match, f"constraints.txt: expected name==version, got {line!r}"
            assert canonicalize_name(match[1]) not in found, f"constraints.txt names {match[1]} twice"
            found[canonicalize_name(match[1])] = Version(match[2])
    return found


@pytest.fixture(scope="module")
def blocks(project_root: Path) -> dict[str, list[str]]:
    """README's fenced blocks by language."""
    text = (project_root / "README.md").read_text(encoding="utf-8")
    found: dict[str, list[str]] = {}
    for language, body in re.findall(r"^```(\w+)[ \t]*\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL):
        found.setdefault(language, []).append(body)
    return found


def test_every_dependency_has_a_fitting_pin(pyproject: dict[str, Any], pins: dict[str, Version]) -> None:
    project = pyproject["project"]
    extras = chain.from_iterable(project["optional-dependencies"].values())
    for requirement in map(Requirement, [*project["dependencies"], *extras]):
        name = canonicalize_name(requirement.name)
        assert name in pins, f"{name} is needed and not pinned in constraints.txt"
        assert pins[name] in requirement.specifier, f"{name}: {pins[name]} is outside {requirement.specifier}"


def test_required_packages_are_asked_for(pyproject: dict[str, Any]) -> None:
    project = pyproject["project"]
    needed = {Requirement(text).name for text in project["dependencies"]}
    assert {"numpy", "torch", "opt_einsum", "tensornetwork"} <= needed
    assert "pytest" in {Requirement(text).name for text in project["optional-dependencies"]["dev"]}


def test_licence_is_the_whole_unchanged_text(pyproject: dict[str, Any], project_root: Path) -> None:
    assert pyproject["project"]["license"] == "Apache-2.0"
    assert hashlib.sha256((project_root / "LICENSE").read_bytes()).hexdigest() == APACHE_2


def test_readme_opens_with_the_two_commands(blocks: dict[str, list[str]]) -> None:
    first, second = blocks["bash"][:2]
    assert "tnml train" in first
    assert "python -m pytest" in second
    assert "constraints.txt" in second
    for block in (first, second):
        assert "python3.11 -m venv" in block, "each command stands alone: it makes its own environment"


def test_readme_blocks_parse(blocks: dict[str, list[str]]) -> None:
    for body in blocks["bash"]:
        checked = subprocess.run(["bash", "-n"], input=body, capture_output=True, text=True, check=False)
        assert checked.returncode == 0, f"{checked.stderr}\n{body}"
    assert blocks.get("python"), "README shows no Python"
    for body in blocks["python"]:
        ast.parse(body)


def test_ci_runs_the_test_command_as_printed(blocks: dict[str, list[str]], project_root: Path) -> None:
    script = project_root / ".ci" / "run"
    assert os.access(script, os.X_OK)
    shown = subprocess.run([script, "--show"], capture_output=True, text=True, check=True, timeout=60)
    assert shown.stdout == blocks["bash"][1]


def test_every_module_is_on_the_map(project_root: Path) -> None:
    """docs/architecture.md has every module under its room, with the first line of its docstring."""
    page = (project_root / "docs" / "architecture.md").read_text(encoding="utf-8")
    sections = dict(part.split("**\n", 1) for part in page.split("## Every module")[1].split("\n**")[1:])
    on_the_map = {
        (room.strip("`/"), line) for room, text in sections.items() for line in text.split("\n") if line
    }
    there = set()
    for path in (project_root / "tnml").rglob("*.py"):
        if not path.name.startswith("__"):
            text = (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").split("\n\n")[0]
            room = path.parent.relative_to(project_root).as_posix()
            there.add((room, f"- `{path.name}`: {' '.join(text.split())}"))
    assert not there - on_the_map, "write these lines on the map, docs/architecture.md"
    assert not on_the_map - there, "these lines of the map belong to no module"
