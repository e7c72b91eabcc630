"""A full disk: one clear error, and only whole files under final names."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from children import complaints

import tnml

FULL_DISK = """
import contextlib, io, json, os, resource, signal, sys
from tnml.cli import main
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
before, found = resource.getrlimit(resource.RLIMIT_FSIZE), []
for folder, limit, words in json.loads(sys.argv[1]):
    os.chdir(folder)
    errors = io.StringIO()
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    with contextlib.redirect_stderr(errors), contextlib.redirect_stdout(io.StringIO()):
        code = main(words)
    resource.setrlimit(resource.RLIMIT_FSIZE, before)  # coverage is written when this ends
    found.append((code, errors.getvalue()))
print(json.dumps(found))
"""

TRAIN = [
    "train",
    "toy.npz",
    "--out",
    "run",
    "--train.epochs",
    "1",
    "--device",
    "cpu",
    "--model.engine",
    "torch",
]
CASES: dict[str, tuple[int, list[str]]] = {
    "checkpoint": (2000, TRAIN),
    "options": (100, TRAIN),
    "predictions": (50, ["predict", "model.safetensors", "toy.npz", "--out", "labels.csv"]),
    "figure": (3000, ["inspect", "model.safetensors", "--figure", "bonds.png"]),
}


@pytest.fixture(scope="module")
def full_disk(tmp_path_factory: pytest.TempPathFactory, project_root: Path) -> dict[str, Any]:
    """For each case its exit code, what it said, and the files before and after.

    No file may grow beyond a limit: what a full disk does, without filling one. One process does all cases,
    since starting it takes longer than they do.
    """
    x, y = np.linspace(0, 1, 48).reshape(12, 4), np.arange(12) % 3
    model = tnml.MPSClassifier(bond_dim=2, epochs=1, random_state=0).fit(x, y)
    folders = {name: tmp_path_factory.mktemp(name) for name in CASES}
    for folder in folders.values():
        np.savez(folder / "toy.npz", x=x, y=y)
        model.save(folder / "model.safetensors")
    before = {name: contents(folder) for name, folder in folders.items()}
    paths = os.pathsep.join(filter(None, [str(project_root), os.environ.get("PYTHONPATH")]))
    settings = {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    words = json.dumps([(str(folders[name]), *case) for name, case in CASES.items()])
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, words],
        env={**os.environ, **settings},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return {
        name: (code, complaints(errors), before[name], contents(folders[name]))
        for name, (code, errors) in zip(CASES, json.loads(done.stdout), strict=True)
    }


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_full_disk(name: str, full_disk: dict[str, Any]) -> None:
    code, errors, before, after = full_disk[name]
    assert code == 2, errors
    assert re.fullmatch(r"error: cannot write [^\n]*free some space[^\n]*\n", errors), errors
    new = {name for name, content in after.items() if content and before.get(name) != content}
    assert new <= {"run/options.yaml"}, "only whole files may stay"


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}
