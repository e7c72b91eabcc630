"""The shipped studies: what their runs compute, that together is as one by one, and that all of them run."""

import json
import math

import numpy as np
import pytest
import torch

from tnml.data.noise import corrupt, symmetric
from tnml.data.synthetic import classification, regression, target
from tnml.errors import InputError
from tnml.nn import MPSLayer
from tnml.study import STUDIES, run
from tnml.study.images import run as images
from tnml.study.labels import run as labels
from tnml.study.teachers import run as teacher_run
from tnml.study.teachers import run_together

TEACHER = {
    "target": "mps",
    "target_options": {"n_sites": 5, "bond_dim": 2},
    "n_train": 120,
    "n_test": 200,
    "noise": 0.1,
    "sweeps": 4,
    "steps": 40,
    "lr": 0.01,
    "batch_size": 50,
    "seed": 1,
}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mps", "permuted"])
def test_least_squares_finds_what_a_chain_can_represent(name, tmp_path):
    options = {**TEACHER, "target": name, "noise": 0.0, "solver": "als", "sweeps": 30}
    bond = target(name, n_sites=5, bond_dim=2, seed=1).bond_dim
    enough = teacher_run({**options, "bond_dim": bond}, tmp_path)
    assert enough["teacher_bond"] == bond
    assert enough["test_error"] < 1e-8
    assert teacher_run({**options, "bond_dim": 1}, tmp_path)["test_error"] > 0.05


def test_errors_are_those_of_the_layer_on_the_samples_said():
    """A chain of bond dimension 1 by least squares is the oracle's: the best product, alternately."""
    found = teacher_run({**TEACHER, "bond_dim": 1, "solver": "als", "sweeps": 30}, None)
    made = target("mps", n_sites=5, bond_dim=2, seed=1)
    train = regression(made, 120, noise=0.1, seed=2)
    features = np.stack([np.ones((120, 5)), np.sqrt(3) * (2 * train.x.numpy() - 1)], 2)
    rng, best = np.random.default_rng(0), math.inf
    for _ in range(20):  # starts
        vectors = rng.normal(size=(5, 2))
        for _ in range(60):
            for site in range(5):
                rest = np.ones(120)
                for other in range(5):
                    if other != site:
                        rest = rest * (features[:, other] @ vectors[other])
                design = rest[:, None] * features[:, site]
                vectors[site] = np.linalg.lstsq(design, train.y.numpy(), rcond=None)[0]
        best = min(best, float(np.mean((design @ vectors[4] - train.y.numpy()) ** 2)))
    assert best * (1 - 1e-6) <= found["train_error"] < 1.5 * best
    assert found["n_parameters"] == 11
    assert len(found["history"]) == 30


def test_seeds_together_give_the_numbers_of_one_by_one(tmp_path):
    options = {**TEACHER, "bond_dim": 3, "solver": "adam"}
    seeds = [{**options, "seed": seed} for seed in range(3)]
    together = run_together(seeds, [tmp_path] * 3)
    for each, found in zip(seeds, together, strict=True):
        alone = teacher_run(each, tmp_path)
        for name in ("train_error", "test_error"):
            assert found[name] == pytest.approx(alone[name], rel=1e-4)
        assert found["gauge_free_parameters"] == alone["gauge_free_parameters"]
        assert found["history"][-1]["test_error"] == pytest.approx(found["test_error"], rel=1e-4)
    assert together[0]["test_error"] != together[1]["test_error"]


@pytest.mark.slow
def test_label_noise_is_memorised_by_a_large_chain(tmp_path):
    options = {
        **STUDIES["label-noise"].fixed,
        "target_options": {"n_sites": 6, "bond_dim": 2, "features": "trigonometric"},
        "n_train": 100,
        "n_test": 300,
        "noise": 0.3,
        "epochs": 40,
        "lr": 0.02,
        "seed": 0,
    }
    small, large = (labels({**options, "bond_dim": bond}, tmp_path) for bond in (2, 8))
    assert large["memorised"] > small["memorised"] + 0.15
    assert large["train_error"] < small["train_error"] - 0.1
    assert large["zeta"] > small["zeta"]
    teacher = target("mps", n_sites=6, bond_dim=2, features="trigonometric", seed=0)
    clean = classification(teacher, 100, seed=0, threshold=0.0).labels
    flipped = corrupt(clean, symmetric(2, 0.3), seed=0).flipped.double().mean().item()
    # Two classes: a flipped sample is right on its clean label, or memorised.
    right = 1 - large["clean_train_error"]
    kept = 1 - large["train_error"] - flipped * large["memorised"]
    assert right == pytest.approx(kept + flipped * (1 - large["memorised"]), abs=1e-6)


@pytest.mark.slow
def test_an_interrupted_run_on_images_goes_on(tmp_path, monkeypatch):
    options = {**STUDIES["mnist-bond-dimension"].smoked().options()[0], "steps": 60}
    whole = images(options, tmp_path / "whole")

    import tnml.study.images as module

    real, calls, armed = module.evaluate, [], [True]

    def evaluate(*args, **kwargs):
        calls.append(1)
        if len(calls) == 8 and armed:
            raise RuntimeError("the power went")
        return real(*args, **kwargs)

    monkeypatch.setattr(module, "evaluate", evaluate)
    with pytest.raises(RuntimeError, match="power"):
        images(options, tmp_path / "cut")
    calls.clear()
    armed.clear()
    again = images(options, tmp_path / "cut")
    assert len(calls) < len(whole["history"])  # it went on and did not start again
    drop = {"seconds"}
    assert {k: v for k, v in again.items() if k not in drop} == {
        k: v for k, v in whole.items() if k not in drop
    }


@pytest.mark.parametrize(
    ("runner", "study"),
    [(teacher_run, "overfitting-1d"), (labels, "label-noise"), (images, "mnist-bond-dimension")],
)
def test_options_that_nobody_reads_are_refused(runner, study, tmp_path):
    options = STUDIES[study].smoked().options()[0]
    with pytest.raises(InputError, match="did you mean 'noise'" if "noise" in options else "unknown option"):
        runner({**options, "nosie": 0.1}, tmp_path)
    missing = {name: value for name, value in options.items() if name != "n_test"}
    with pytest.raises(InputError, match="needs the options n_test"):
        runner(missing, tmp_path)


@pytest.mark.parametrize("solver", ["als", "adam"])
def test_regularisation_shrinks_the_fit(solver, tmp_path):
    options = {**TEACHER, "bond_dim": 4, "solver": solver, "steps": 200}
    free, held = (
        teacher_run({**options, "regularisation": value}, tmp_path)["train_error"] for value in (0.0, 1.0)
    )
    assert held > 2 * free


@pytest.mark.slow
@pytest.mark.parametrize(
    ("runner", "study", "changes"),
    [(labels, "label-noise", {"epochs": 30}), (images, "mnist-bond-dimension", {"steps": 30})],
)
def test_regularisation_reaches_the_classifiers(runner, study, changes, tmp_path):
    options = {**STUDIES[study].smoked().options()[0], **changes}
    free, held = (
        runner({**options, "regularisation": value}, tmp_path / str(value))["train_loss"]
        for value in (0.0, 1.0)
    )
    assert held > free + 0.01


def test_the_labels_have_a_boundary_that_the_chain_represents():
    """The sign of the teacher itself: an MPS of its bond dimension is right on every sample."""
    teacher = target("mps", **STUDIES["label-noise"].fixed["target_options"], seed=0)
    drawn = classification(teacher, 500, seed=3, threshold=0.0)
    layer = MPSLayer.from_state(teacher.state(), **teacher.layer_settings())
    assert max(layer.bond_dims) == 3
    assert torch.equal((layer(drawn.x)[:, 0] > 0).long(), drawn.labels)
    assert 0.2 < drawn.labels.double().mean() < 0.8


@pytest.mark.slow
@pytest.mark.parametrize("name", STUDIES)
def test_every_study_has_a_quick_trial(name, tmp_path):
    table = run(name, folder=tmp_path / name, smoke=True, workers=0)
    assert len(table.rows) == len(STUDIES[name].smoked().options())
    for row in table.rows:
        assert 0 <= row["train_error"] < 100
        assert math.isfinite(row["test_error"])
        assert row["n_parameters"] > 0
    stored = next((tmp_path / name / "runs").glob("*/result.json"))
    assert json.loads(stored.read_text())["history"]


def test_the_studies_are_as_large_as_they_say():
    one_d = STUDIES["overfitting-1d"].options()
    assert {row["n_train"] for row in one_d} == {100, 300, 1000, 3000}
    assert max(row["bond_dim"] for row in one_d) == 32
    assert len({row["seed"] for row in one_d}) >= 5
    noise = STUDIES["label-noise"].options()
    assert {row["noise"] for row in noise} == {0.0, 0.15, 0.3}
    assert {row["bond_dim"] for row in noise} == {2, 4, 6, 8, 12, 16, 24}
    mnist = STUDIES["mnist-bond-dimension"].options()
    assert {row["bond_dim"] for row in mnist} == {2, 4, 8, 16, 32, 64}
    assert torch.tensor([row["n_train"] for row in mnist]).unique().tolist() == [1000, 60_000]
