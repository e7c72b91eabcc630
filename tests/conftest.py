"""What every test shares: checked shapes, seeded randomness, the real data, and skips that say why.

The shapes in signatures of tnml are checked while the tests run; TNML_TYPECHECK=0 switches that off. A test
that hands in wrong shapes on purpose takes the fixture `unchecked`, to meet the errors of tnml. The check
breaks `torch.compile(fullgraph=True)`: tests that compile do it in a subprocess, where this file is not read.
"""

import functools
import os
import re
import subprocess
from collections.abc import Iterator
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any, get_args

import jaxtyping
import pytest
from beartype import beartype

pytest.register_assert_rewrite("contract")  # its classes hold the asserts of every member's tests

# Tests share the machine: threads that spin long for one another cost more than the work. OpenMP reads this
# when torch loads.
os.environ.setdefault("GOMP_SPINCOUNT", "30000")
if "PYTEST_XDIST_WORKER_COUNT" in os.environ:  # `-n 2`: each process takes its part of the cores
    share = (os.cpu_count() or 1) // int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, share)))

ROOT = Path(__file__).resolve().parent.parent
NUMBA = re.compile(r"^\s*(?:import|from) (?:numba|llvmlite)\b", re.MULTILINE)


def _tells_a_shape(hint: Any) -> bool:
    if any(_tells_a_shape(part) for part in get_args(hint)):
        return True
    return isinstance(hint, type) and issubclass(hint, jaxtyping.AbstractArray)


def shapes_checked(thing: Any) -> Any:
    """A function or dataclass whose annotations that tell a shape are checked; plain types are left to mypy.

    jaxtyping's own decorator binds the arguments and checks them twice, which takes longer than many a
    function of tnml: a third of the time of all tests.
    """
    if isinstance(thing, type):
        if is_dataclass(thing):
            thing.__init__ = shapes_checked(thing.__init__)  # type: ignore[method-assign]
        return thing
    hints = thing.__annotations__
    shapes = {name: hint for name, hint in hints.items() if _tells_a_shape(hint)}
    if not shapes:
        return thing
    thing.__annotations__ = shapes
    checked = beartype(thing)
    thing.__annotations__ = hints

    @functools.wraps(thing)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        if jaxtyping.config.jaxtyping_disable:
            return thing(*args, **kwargs)
        with a_scope_of_axes("context"):
            return checked(*args, **kwargs)

    return wrapper


a_scope_of_axes = jaxtyping.jaxtyped


def _checked_modules() -> list[str]:
    """Every module of tnml but those with numba kernels: numba cannot compile a wrapped function."""
    sources = [p for p in sorted((ROOT / "tnml").rglob("*.py")) if not p.name.startswith("__")]
    plain = [p for p in sources if not NUMBA.search(p.read_text(encoding="utf-8"))]
    return [".".join(p.relative_to(ROOT).with_suffix("").parts) for p in plain]


if os.environ.get("TNML_TYPECHECK", "1") != "0":
    # The hook writes `@jaxtyping.jaxtyped(typechecker=...)` above every function and class of these modules.
    jaxtyping.jaxtyped = lambda **_: shapes_checked
    jaxtyping.install_import_hook(_checked_modules(), None)


import torch  # noqa: E402  (after the hook, which has to be there before anything can import tnml)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skips tests marked `gpu` where there is no CUDA device."""
    if item.get_closest_marker("gpu") is not None and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device and this machine shows none")


@pytest.fixture(scope="session", autouse=True)
def no_note_of_compiling() -> None:
    """On a slow machine the native engine would say that it compiles, in whatever test comes first."""
    from tnml.contraction.chain import loading

    loading.ANNOUNCE_AFTER = 3600.0


@pytest.fixture(autouse=True)
def same_numbers() -> None:
    """What a test draws from torch's own generator does not depend on the tests before it."""
    torch.manual_seed(20240229)


@pytest.fixture
def unchecked() -> Iterator[None]:
    """No check of shapes in this test: `pytestmark = pytest.mark.usefixtures("unchecked")`."""
    before = jaxtyping.config.jaxtyping_disable
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", before)


@pytest.fixture
def generator() -> torch.Generator:
    """A CPU generator with a fixed seed, new for every test."""
    return torch.Generator().manual_seed(20240229)


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder with the real data sets (mnist/, fashion-mnist/), named by TNML_DATA."""
    named = os.environ.get("TNML_DATA")
    if not named:
        pytest.skip("needs the real data: set TNML_DATA to the folder that holds mnist/ and fashion-mnist/")
    folder = Path(named)
    if not folder.is_dir():
        pytest.fail(f"TNML_DATA names {named}, which is not a folder")
    return folder


@pytest.fixture(scope="session")
def project_root() -> Path:
    """The folder that holds pyproject.toml."""
    return ROOT


@pytest.fixture(scope="session")
def project_files(project_root: Path) -> list[Path]:
    """Every file of the project: what git tracks or would track; without git, all not hidden or built."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=project_root, capture_output=True, text=True, check=False)
    if listed.returncode == 0:
        names = [name for name in listed.stdout.split("\0") if name]
        return [path for path in (project_root / name for name in sorted(names)) if path.is_file()]
    built = {"__pycache__", "build", "dist", "runs", "htmlcov"}
    found = []
    for path in sorted(project_root.rglob("*")):
        parts = path.relative_to(project_root).parts
        hidden = any(p.startswith(".") and p != ".ci" for p in parts[:-1]) or parts[0].endswith(".egg-info")
        if path.is_file() and not hidden and not built.intersection(parts):
            found.append(path)
    return found
