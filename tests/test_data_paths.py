"""A leading "~" is the user's folder, in every function and command that takes a path."""

import ast
from pathlib import Path

import numpy as np
import pytest
import torch

import tnml
from tnml.cli import main
from tnml.data import from_arrays, from_idx, from_npz, from_table, load
from tnml.files import user_path
from tnml.nn import MPSLayer
from tnml.training import SweepOptions, TrainOptions, sweep_classifier, train_classifier

X, Y = torch.rand(12, 4, generator=torch.Generator().manual_seed(0)), torch.arange(12) % 2


@pytest.fixture
def home(tmp_path, monkeypatch):
    (tmp_path / "home").mkdir()
    (tmp_path / "here").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path / "here")
    yield tmp_path / "home"
    assert not list((tmp_path / "here").glob("~*")), "a folder called ~ was made"


def test_what_stands_for_a_user(home):
    assert user_path("~") == home
    assert user_path("~/a/../b") == home / "a/../b"
    for plain in ("a/~", "./~", "~no-such-user-here/a", "a~b"):
        assert user_path(plain) == Path(plain)


def test_models_and_runs(home):
    model = tnml.MPSClassifier(bond_dim=2, epochs=1, random_state=0).fit(X.numpy(), Y.numpy())
    model.save("~/m.safetensors")
    assert tnml.load("~/m.safetensors").n_iter_ == 1
    MPSLayer(4, 2).save("~/l.safetensors")
    assert tnml.load(Path("~/l.safetensors")).n_sites == 4
    options = TrainOptions(epochs=1, device="cpu")
    train_classifier(MPSLayer(4, 2), X, Y, options, run_dir="~/run")
    train_classifier(MPSLayer(4, 2), X, Y, options, run_dir="~/run", resume=True)
    sweep_classifier(MPSLayer(4, 2), X, Y, SweepOptions(sweeps=1, device="cpu"), run_dir="~/swept")
    assert {path.name for path in home.iterdir()} >= {"m.safetensors", "l.safetensors", "run", "swept"}


def test_data_sets(home):
    np.savez(home / "a.npz", x=X.numpy(), y=Y.numpy())
    (home / "t.csv").write_text("a,y\n" + "0.5,0\n1,1\n" * 4)
    assert len(from_npz("~/a.npz", "all")) == len(load("~/a.npz", split="all")) == 12
    assert len(from_table("~/t.csv", "all", target="y")) == 8
    with pytest.raises(tnml.InputError, match=str(home)):
        from_idx("~/nowhere")
    assert from_arrays(X, Y).x.shape == (12, 4)


def test_commands(home, capsys):
    np.savez(home / "a.npz", x=X.numpy(), y=Y.numpy())
    np.save(home / "x.npy", X.numpy())
    assert main(["train", "~/a.npz", "--train.epochs", "1", "--out", "~/r"]) == 0
    assert main(["evaluate", "~/r", "~/a.npz", "--figure", "~/f.png"]) == 0
    assert main(["predict", "~/r", "~/x.npy", "--out", "~/p.csv"]) == 0
    assert main(["compress", "~/r", "--max_bond", "2", "--out", "~/small.safetensors"]) == 0
    assert main(["inspect", "~/small.safetensors"]) == 0
    assert {"r", "f.png", "p.csv", "small.safetensors"} <= {path.name for path in home.iterdir()}
    capsys.readouterr()


def test_no_public_path_is_used_as_it_comes(project_root):
    """`Path(argument)` of an argument that may be text would take "~" for a folder of that name."""
    wrong = []
    for file in sorted((project_root / "tnml").rglob("*.py")):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        wrong += [f"{file.name}: expanduser" for node in ast.walk(tree) if is_expansion(node)]
        for function in ast.walk(tree):
            if isinstance(function, ast.FunctionDef):
                arguments = [*function.args.args, *function.args.kwonlyargs]
                paths = {a.arg for a in arguments if a.annotation and "PathLike" in ast.unparse(a.annotation)}
                inside = ast.walk(function)
                wrong += [f"{file.name}: {function.name}" for node in inside if wraps(node, paths)]
    assert wrong == ["files.py: expanduser"], "take tnml.files.user_path"


def is_expansion(node):
    return isinstance(node, ast.Attribute) and node.attr == "expanduser"


def wraps(node, names):
    if not (isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] == "Path" and node.args):
        return False
    return isinstance(node.args[0], ast.Name) and node.args[0].id in names
