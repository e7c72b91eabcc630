"""The wheel is whole: built from a copy, put into an empty folder, every module imported from elsewhere."""

import shutil
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

# Run with -I -S: no checkout, no PYTHONPATH and no .pth file (an editable install) can lend a missing module.
IMPORT_ALL = """
import importlib, sys
target, *libraries = sys.argv[1:]
sys.path[:0] = [target]
sys.path.extend(libraries)
names = [line.strip() for line in sys.stdin if line.strip()]
for name in names:
    module = importlib.import_module(name)
    assert module.__file__.startswith(target), f"{name} came from {module.__file__}"
import tnml
for name in tnml.__all__:
    getattr(tnml, name)
from tnml.report.study_template import SCRIPTS, asset, page
assert all(asset(name) in page("mine", "{}", "") for name in ("study.css", *SCRIPTS))
print(len(names), tnml.__version__)
"""


def run(*command: str | Path, cwd: Path, stdin: str = "") -> str:
    words = [str(word) for word in command]
    done = subprocess.run(words, cwd=cwd, input=stdin, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{words[:4]}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(project_files: list[Path], project_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    copy = tmp_path_factory.mktemp("source")
    for path in project_files:
        place = copy / path.relative_to(project_root)
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, place)
    out = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", out, ".", cwd=copy)
    (built,) = out.glob("*.whl")
    return built


def test_wheel_holds_the_package_only(wheel: Path, project_files: list[Path], project_root: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    shipped = {name for name in names if ".dist-info/" not in name}
    relative = {path.relative_to(project_root).as_posix() for path in project_files}
    kinds = (".py", "py.typed", ".js", ".css", ".html")
    assert shipped == {n for n in relative if n.startswith("tnml/") and n.endswith(kinds)}
    assert {"tnml/py.typed", "tnml/report/assets/study.html"} <= shipped
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_every_module_imports_from_the_wheel(wheel: Path, project_root: Path, tmp_path: Path) -> None:
    target, elsewhere = tmp_path / "target", tmp_path / "elsewhere"
    elsewhere.mkdir()
    run(
        *(sys.executable, "-m", "pip", "install", "--no-deps", "--no-index", "--quiet"),
        *("--target", target, wheel),
        cwd=elsewhere,
    )
    sources = [p.relative_to(project_root) for p in sorted((project_root / "tnml").rglob("*.py"))]
    dotted = [".".join(p.with_suffix("").parts) for p in sources if p.name != "__main__.py"]
    names = [name.removesuffix(".__init__") for name in dotted]
    names.remove("tnml.contraction.chain.driver")  # importing it compiles the engine
    libraries = {sysconfig.get_paths()[kind] for kind in ("purelib", "platlib")}
    command = (sys.executable, "-I", "-S", "-W", "error", "-c", IMPORT_ALL, target, *sorted(libraries))
    counted, version = run(*command, cwd=elsewhere, stdin="\n".join(names)).split()
    assert int(counted) == len(names) > 5
    project = tomllib.loads((project_root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert version == project["version"]
