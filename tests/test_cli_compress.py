"""`tnml compress`: the file it writes, the numbers it prints, fine-tuning, the curve, and bad input."""

import itertools
import re
from pathlib import Path

import numpy as np
import pytest

import tnml
from tnml.cli import main
from tnml.cli.compress import halves
from tnml.data import load
from tnml.nn import MPSLayer
from tnml.training.fine_tune import fine_tuning

Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of the digits pooled to 4 x 4, in the folder of its run."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    words = ["--train.epochs", "8", "--data.pool", "2", "--model.bond_dim", "8", "--train.lr", "0.01"]
    assert main(["train", "digits", *words, "--device", "cpu", "--out", str(folder)]) == 0
    return folder


@pytest.fixture
def fitted(model: Path) -> tnml.MPSClassifier:
    found = tnml.load(model / "model.safetensors")
    assert isinstance(found, tnml.MPSClassifier)
    return found


def classifier(path: Path) -> tnml.MPSClassifier:
    found = tnml.load(path)
    assert isinstance(found, tnml.MPSClassifier)
    return found


def rows_of(shown: str) -> dict[str, list[str]]:
    """The table's rows: name, before, after, change."""
    lines = shown.split("\n\n", maxsplit=1)[0].splitlines()[1:]
    return {cells[0]: cells[1:] for cells in (re.split(r" {2,}", line) for line in lines)}


def n_parameters(classifier: tnml.MPSClassifier) -> int:
    return sum(p.numel() for p in classifier.layer_.parameters())


def test_a_smaller_model_file_and_its_numbers(
    model: Path, fitted: tnml.MPSClassifier, tmp_path: Path, capsys: Capture
) -> None:
    out = tmp_path / "small.safetensors"
    before = (model / "model.safetensors").read_bytes()
    assert main(["compress", str(model), "--max_bond", "4", "--out", str(out)]) == 0
    shown = capsys.readouterr().out
    assert (model / "model.safetensors").read_bytes() == before
    small = classifier(out)
    expected, error = fitted.layer_.compressed(max_bond=4)
    assert small.layer_.bond_dims == expected.bond_dims
    rows = rows_of(shown)
    assert rows["parameters"][:2] == [str(n_parameters(fitted)), str(n_parameters(small))]
    assert rows["largest bond dimension"][:2] == ["8", "4"]
    assert f"relative error: {error:.3e}" in shown
    assert "accuracy" not in shown, "nothing was measured"
    x = load("digits", split="test", pool=2).x
    np.testing.assert_allclose(
        small.predict_proba(x), fitted.compressed(max_bond=4).predict_proba(x), rtol=1e-4, atol=1e-6
    )


def test_the_accuracy_before_and_after(
    model: Path, fitted: tnml.MPSClassifier, tmp_path: Path, capsys: Capture
) -> None:
    out = tmp_path / "small.safetensors"
    assert main(["compress", str(model), "digits", "--max_bond", "3", "--out", str(out)]) == 0
    shown = capsys.readouterr().out
    test = load("digits", split="test", pool=2)
    scores = [found.score(test.x, test.y) for found in (fitted, classifier(out))]
    before, after, change = rows_of(shown)["accuracy, truncated"]
    assert [before, after] == [f"{score:.4f}" for score in scores]
    assert change == f"{100 * (scores[1] - scores[0]):+.2f} points"
    capsys.readouterr()
    assert main(["inspect", str(out)]) == 0
    shown = capsys.readouterr().out
    assert f"test accuracy: {scores[1]:.4f}" in shown
    assert "from bond dimension 8" in shown


def test_samples_say_which_inputs_matter(model: Path, tmp_path: Path, capsys: Capture) -> None:
    out, accuracies = tmp_path / "small.safetensors", []
    for norm in ("tensor", "samples"):
        words = ["--max_bond", "3", "--norm", norm, "--out", str(out)]
        assert main(["compress", str(model), "digits", *words]) == 0
        shown = capsys.readouterr().out
        accuracies.append(float(rows_of(shown)["accuracy, truncated"][1]))
        assert {"tensor": "of the weight tensor", "samples": "of outputs on inputs"}[norm] in shown
    assert accuracies[1] > accuracies[0]


def test_results_of_the_larger_model_are_not_kept(model: Path, capsys: Capture) -> None:
    assert main(["compress", str(model), "--max_error", "0.3"]) == 0
    out = model / "model-compressed.safetensors"
    data = classifier(out).data_
    out.unlink()
    assert data is not None
    assert "results" not in data
    assert data["name"] == "digits"
    assert data["compression"]["relative_error"] <= 0.3


def test_max_error_is_kept_and_nothing_lost_at_zero(
    model: Path, fitted: tnml.MPSClassifier, tmp_path: Path, capsys: Capture
) -> None:
    out = tmp_path / "same.safetensors"
    assert main(["compress", str(model), "digits", "--max_error", "0", "--out", str(out)]) == 0
    shown = rows_of(capsys.readouterr().out)
    assert shown["accuracy, truncated"][2] == "+0.00 points"
    assert shown["largest bond dimension"][:2] == ["8", "8"]


@pytest.mark.slow
def test_fine_tuning_makes_up_for_the_loss(model: Path, tmp_path: Path, capsys: Capture) -> None:
    out, figure = tmp_path / "small.safetensors", tmp_path / "curve.svg"
    words = ["--max_bond", "3", "--fine_tune", "3", "--device", "cpu", "--curve", str(figure)]
    assert main(["compress", str(model), *words, "--out", str(out)]) == 0
    shown = capsys.readouterr().out
    rows = rows_of(shown)
    truncated, tuned = (float(rows[f"accuracy, {kind}"][1]) for kind in ("truncated", "fine-tuned"))
    assert tuned > truncated
    test = load("digits", split="test", pool=2)
    small = classifier(out)
    assert f"{small.score(test.x, test.y):.4f}" == rows["accuracy, fine-tuned"][1]
    assert small.data_ is not None
    assert small.data_["compression"]["fine_tuned_epochs"] == 3
    assert small.data_["results"]["test accuracy"] == pytest.approx(tuned, abs=1e-4)
    assert max(small.layer_.bond_dims) == 3
    assert figure.read_text().startswith("<?xml")
    again = tmp_path / "again.safetensors"
    assert main(["compress", str(model), *words, "--out", str(again)]) == 0
    np.testing.assert_array_equal(classifier(again).predict_proba(test.x), small.predict_proba(test.x))


def test_models_fitted_in_python(tmp_path: Path, capsys: Capture) -> None:
    x = np.random.default_rng(0).random((60, 6))
    path = tmp_path / "own.safetensors"
    tnml.MPSClassifier(bond_dim=4, epochs=2, random_state=0).fit(x, x[:, 0] > 0.5).save(path)
    assert main(["compress", str(path), "--max_bond", "2"]) == 0
    assert max(classifier(tmp_path / "own-compressed.safetensors").layer_.bond_dims) == 2
    np.savez(tmp_path / "own.npz", x=x, y=x[:, 0] > 0.5)
    assert (
        main(["compress", str(path), str(tmp_path / "own.npz"), "--max_bond", "2", "--fine_tune", "1"]) == 0
    )
    assert "accuracy, fine-tuned" in capsys.readouterr().out


def test_the_curve_goes_down_to_one() -> None:
    for largest in range(1, 70):
        bonds = halves(largest)
        assert (bonds[0], bonds[-1]) == (largest, 1)
        assert all(a > b for a, b in itertools.pairwise(bonds))


def test_the_recipe_of_fine_tuning() -> None:
    options = fine_tuning("mnist", 2, seed=5, lr=None)
    assert (options.epochs, options.seed, options.schedule, options.average) == (2, 5, "cosine", "none")
    assert (options.max_shift, options.batch_size) == (1, 100), "as the recipe"
    with pytest.raises(tnml.InputError, match="lr must be"):
        fine_tuning("mnist", lr=-1.0)


LIMIT = ["--max_bond", "2"]
BAD: dict[str, tuple[list[str], str]] = {
    "no limit": ([], r"give --max_bond, --max_error or both"),
    "max_bond 0": (["--max_bond", "0"], r"--max_bond must be a whole number, at least 1, got 0"),
    "max_bond negative": (["--max_bond", "-3"], r"--max_bond must be .* got -3"),
    "max_bond text": (["--max_bond", "few"], r"--max_bond: expected int or null, got few"),
    "max_error negative": (["--max_error", "-0.1"], r"--max_error must be .* below 1, got -0\.1"),
    "max_error 1": (["--max_error", "1"], r"--max_error must be .* got 1"),
    "max_error nan": (["--max_error", ".nan"], r"--max_error must be .* got nan"),
    "max_error text": (["--max_error", "small"], r"--max_error: expected float or null, got small"),
    "epochs": ([*LIMIT, "--fine_tune", "-1"], r"--fine_tune must be .* 0 to 10000, got -1"),
    "lr": ([*LIMIT, "--fine_tune", "1", "--lr", "-1"], r"lr must be a number, above 0, got -1"),
    "seed": ([*LIMIT, "--seed", "-1"], r"--seed must be .* got -1"),
    "device": ([*LIMIT, "--fine_tune", "1", "--device", "gpu"], r"device must be 'auto', 'cpu'"),
    "norm": ([*LIMIT, "--norm", "tenser"], r"unknown norm 'tenser'; did you mean 'tensor'\?"),
    "norm without data": (
        [*LIMIT, "--norm", "samples"],
        r"does not say what it was trained on; name the data",
    ),
    "curve": ([*LIMIT, "--curve", "a.jpeg"], r"unknown figure format 'jpeg'"),
    "curve without data": (
        [*LIMIT, "--curve", "a.png"],
        r"does not say what it was trained on; name the data",
    ),
    "fine_tune without data": ([*LIMIT, "--fine_tune", "1"], r"does not say what it was trained on"),
    "data": (["digits", *LIMIT], r"64 values .* has 4 sites"),
    "data missing": (["mnits", *LIMIT], r"unknown data set 'mnits'; did you mean 'mnist'"),
    "out: the model": ([*LIMIT, "--out", "model.safetensors"], r"is the model to compress; choose another"),
    "out: a folder": ([*LIMIT, "--out", "."], r"--out \. is a folder; name a file in it"),
    "option": (["--max-bond", "2"], r"unknown option --max-bond; did you mean --max_bond\?"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    monkeypatch.chdir(tmp_path)
    x = np.linspace(0, 1, 48).reshape(12, 4)
    tnml.MPSClassifier(bond_dim=2, epochs=1, random_state=0).fit(x, np.arange(12) % 3).save(
        "model.safetensors"
    )
    words, pattern = BAD[name]
    before = Path("model.safetensors").read_bytes()
    capsys.readouterr()
    assert main(["compress", "model.safetensors", *words]) == 2
    error = capsys.readouterr().err
    assert re.fullmatch(r"error: [^\n]+\n", error), error
    assert re.search(pattern, error), error
    assert [path.name for path in tmp_path.iterdir()] == ["model.safetensors"]
    assert Path("model.safetensors").read_bytes() == before


def test_no_model(tmp_path: Path, capsys: Capture) -> None:
    assert main(["compress", str(tmp_path / "none.safetensors"), *LIMIT]) == 2
    assert "no model file at" in capsys.readouterr().err
    MPSLayer(4, 2).save(tmp_path / "layer.safetensors")
    assert main(["compress", str(tmp_path / "layer.safetensors"), *LIMIT]) == 2
    assert "holds an MPSLayer, expected a classifier" in capsys.readouterr().err
