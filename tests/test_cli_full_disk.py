"""A full disk: one clear error, and only whole files under final names."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import tnml

QUICK = ["--train.epochs", "1", "--device", "cpu"]

FULL_DISK = """
import resource, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
before = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), before[1]))
from tnml.cli import main
code = main(sys.argv[2:])
resource.setrlimit(resource.RLIMIT_FSIZE, before)  # coverage is written when this ends
sys.exit(code)
"""


@pytest.mark.parametrize(
    ("limit", "words"),
    [
        (2000, ["train", "toy.npz", "--out", "run", *QUICK]),
        (100, ["train", "toy.npz", "--out", "run", *QUICK]),
        (50, ["predict", "model.safetensors", "toy.npz", "--out", "labels.csv"]),
        (3000, ["inspect", "model.safetensors", "--figure", "bonds.png"]),
    ],
    ids=["checkpoint", "options", "predictions", "figure"],
)
def test_full_disk(limit: int, words: list[str], tmp_path: Path, project_root: Path) -> None:
    """No file may grow beyond a limit: what a full disk does, without filling one."""
    x, y = np.linspace(0, 1, 48).reshape(12, 4), np.arange(12) % 3
    np.savez(tmp_path / "toy.npz", x=x, y=y)
    tnml.MPSClassifier(bond_dim=2, epochs=1, random_state=0).fit(x, y).save(tmp_path / "model.safetensors")
    before = contents(tmp_path)
    paths = os.pathsep.join(filter(None, [str(project_root), os.environ.get("PYTHONPATH")]))
    settings = {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            FULL_DISK,
            str(limit),
            *words,
            *(["--model.engine", "torch"] * (words[0] == "train")),
        ],
        cwd=tmp_path,
        env={**os.environ, **settings},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 2, done.stderr
    assert re.fullmatch(r"error: cannot write [^\n]*free some space[^\n]*\n", done.stderr), done.stderr
    after = contents(tmp_path)
    new = {name for name, content in after.items() if content and before.get(name) != content}
    assert new <= {"run/options.yaml"}, "only whole files may stay"


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}
