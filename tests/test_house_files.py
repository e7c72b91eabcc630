"""Small files with honest names, and nothing in them that is true on one machine only."""

import re
from pathlib import Path

import pytest

LONGEST = 420  # lines; a longer file does two things
VAGUE = {"utils", "util", "helpers", "misc", "common", "tools"}

# Absolute paths into somebody's folders, and the places one machine installs packages from.
PATHS = re.compile(r"(?<![\w.:/~$}-])/(?:home|root|work|workspace|tmp|var/tmp|mnt|Users|scratch)/[\w.]")
HOSTS = re.compile(
    r"pypi\.org/simple|pythonhosted\.org|download\.pytorch\.org|file:/{3}|--(?:(?:extra-)?index-url|find-links)"
)


@pytest.fixture(scope="module")
def python_files(project_files: list[Path]) -> list[Path]:
    found = [path for path in project_files if path.suffix == ".py"]
    assert len(found) > 5, "the list of project files is broken"
    return found


def test_no_file_is_long(python_files: list[Path], project_root: Path) -> None:
    lengths = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in python_files}
    assert not {str(p.relative_to(project_root)): n for p, n in lengths.items() if n > LONGEST}


def test_names_say_what_is_inside(project_files: list[Path], project_root: Path) -> None:
    for path in project_files:
        relative = path.relative_to(project_root)
        stems = {part.partition(".")[0].lower() for part in relative.parts}
        assert not VAGUE & stems, f"{relative}: name it after what it holds"


def test_nothing_is_true_on_one_machine_only(project_files: list[Path], project_root: Path) -> None:
    found = []
    for path in project_files:
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except UnicodeDecodeError:
            continue  # a picture or a model
        name = path.relative_to(project_root)
        marks = [bool(PATHS.search(line) or HOSTS.search(line)) for line in lines]
        found += [f"{name}:{number}" for number, marked in enumerate(marks, 1) if marked]
    assert not found


def test_the_search_finds_what_it_should() -> None:
    folder = "home"
    assert PATHS.search(f'data = "/{folder}/ada/mnist"')
    assert PATHS.search(f"cd /{folder}/x")
    assert not PATHS.search(f"https://example.org/{folder}/page")
    assert not PATHS.search(f"../{folder}/page")
    assert HOSTS.search("pip install --" + "index-url https://example.org")
    assert not HOSTS.search("https://pypi.org/project/tensorkrowch")
