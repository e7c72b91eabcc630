"""Weights of samples: a weight of k is a sample that is there k times, in every solver; 0 is none at all.

The batches hold all samples, so that both runs take the same steps; what differs is the order of sums.
"""

import numpy as np
import pytest
import torch
from torch import nn

from tnml.errors import InputError
from tnml.loop.protocols import Batch
from tnml.nn import MPSLayer
from tnml.randomness import generator
from tnml.training import (
    LoopOptions,
    SweepOptions,
    TrainOptions,
    run,
    sweep_classifier,
    sweep_regressor,
    train_classifier,
    train_density,
    train_regressor,
    train_replicas,
)

ROWS = 24


@pytest.fixture(scope="module")
def data():
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(ROWS, 5, dtype=torch.float64, generator=generator)
    times = torch.randint(0, 4, (ROWS,), generator=generator)
    assert (times == 0).any()
    rows = torch.arange(ROWS).repeat_interleave(times)
    targets = {"classification": (2 * x[:, 0] + x[:, 1]).long(), "regression": x[:, :3].cumprod(1)}
    return x, targets, times, rows


def layer(seed=0):
    return MPSLayer(5, 3, 3, dtype="float64", seed=seed)


def loss_numbers(result):
    return [[value for name, value in row.items() if "loss" in name] for row in result.history]


GRADIENTS = {
    "adam": {"lr": 0.01},
    "adamw": {"optimizer": "adamw", "lr": 0.01, "weight_decay": 0.1},
    "sgd": {"optimizer": "sgd", "lr": 0.02},
    "lbfgs": {"optimizer": "lbfgs", "lr": 1.0, "epochs": 1, "lbfgs_iterations": 8, "label_smoothing": 0.2},
    "focal": {"loss": "focal", "lr": 0.01},
    "smoothed": {"label_smoothing": 0.1, "lr": 0.01},
    "huber": {"loss": {"name": "huber", "delta": 0.2}, "lr": 0.01},
    "quantile": {"loss": {"name": "quantile", "quantile": 0.7}, "lr": 0.003},
}


@pytest.mark.parametrize("name", GRADIENTS)
def test_a_weighted_fit_is_a_fit_of_repeats(name, data):
    x, targets, times, rows = data
    task = "regression" if name in ("huber", "quantile") else "classification"
    train = {"classification": train_classifier, "regression": train_regressor}[task]
    y = targets[task]
    options = TrainOptions(**{"epochs": 12, "batch_size": 1000, "device": "cpu", **GRADIENTS[name]})
    one, other = layer(), layer()
    weighted = train(one, x, y, options, sample_weight=times)
    repeated = train(other, x[rows], y[rows], options)
    np.testing.assert_allclose(loss_numbers(weighted), loss_numbers(repeated), rtol=1e-6)
    torch.testing.assert_close(one(x), other(x), rtol=1e-5, atol=1e-6)
    assert weighted.n_train == int((times > 0).sum())


SWEEPS = {
    "newton-cg": {"loss": "cross-entropy"},
    "newton-cg travels": {"loss": "cross-entropy", "label": "travels"},
    "frobenius": {"loss": "mse", "metric": "frobenius"},
    "cg": {"solver": "cg", "loss": "cross-entropy"},
    "lbfgs": {"solver": "lbfgs", "loss": "cross-entropy"},
    "als": {"solver": "als", "loss": "mse"},
    "one site": {"sites": 1, "loss": "mse"},
    "regression": {"loss": "mse"},
    "regression als": {"loss": "mse", "solver": "als", "ridge": 1e-3},
    "regression huber": {"loss": {"name": "huber", "delta": 0.2}},
}


@pytest.mark.parametrize("name", SWEEPS)
def test_weighted_sweeps_are_sweeps_over_repeats(name, data):
    x, targets, times, rows = data
    task = "regression" if name.startswith("regression") else "classification"
    sweep = {"classification": sweep_classifier, "regression": sweep_regressor}[task]
    y = targets[task]
    options = SweepOptions(**{"sweeps": 2, "max_bond": 4, "device": "cpu", **SWEEPS[name]})
    one, other = layer(), layer()
    weighted = sweep(one, x, y, options, sample_weight=times)
    repeated = sweep(other, x[rows], y[rows], options)
    np.testing.assert_allclose(loss_numbers(weighted), loss_numbers(repeated), rtol=1e-6)
    assert [row["bond_dim"] for row in weighted.bonds] == [row["bond_dim"] for row in repeated.bonds]
    torch.testing.assert_close(one(x), other(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("task", ["classification", "regression"])
def test_weighted_replicas_are_weighted_runs(task, data):
    x, targets, times, _ = data
    y = targets[task]
    weights = [times.double() + 0.5, 3.0 - times.double() / 2]
    options = TrainOptions(epochs=6, lr=0.01, batch_size=10, device="cpu", validation=0.25)
    train = {"classification": train_classifier, "regression": train_regressor}[task]
    alone, together = [layer(s) for s in (0, 1)], [layer(s) for s in (0, 1)]
    single = [
        train(one, x, y, options, sample_weight=weight) for one, weight in zip(alone, weights, strict=True)
    ]
    both = train_replicas(together, x, y, options, task=task, sample_weight=weights)
    for one, other, a, b in zip(single, both, alone, together, strict=True):
        np.testing.assert_allclose(loss_numbers(one), loss_numbers(other), rtol=1e-7)
        torch.testing.assert_close(a.weight, b.weight, rtol=1e-6, atol=1e-9)


def test_equal_weights_change_no_bit(data):
    x, targets, _, _ = data
    options = TrainOptions(epochs=3, lr=0.01, batch_size=10, device="cpu")
    one, other = layer(), layer()
    train_classifier(one, x, targets["classification"], options, sample_weight=np.full(ROWS, 7.0))
    train_classifier(other, x, targets["classification"], options)
    assert torch.equal(one.weight, other.weight)


def test_the_held_out_part_counts_by_its_weights(data):
    x, targets, times, _ = data
    weight = times.double() + 0.1
    options = TrainOptions(epochs=1, lr=1e-3, batch_size=100, device="cpu", validation=0.5, seed=3)
    seen = []
    model = layer()
    result = train_regressor(
        model, x, targets["regression"], options, sample_weight=weight,
        callbacks=[lambda module, optimizer, row: seen.append(module(x).detach().clone())],
    )  # fmt: skip
    order = torch.randperm(ROWS, generator=generator(3, 0, stream=3))
    held = order[: ROWS // 2]
    losses = (seen[0] - targets["regression"]).square().mean(1)[held]
    expected = (losses * weight[held]).sum() / weight[held].sum()
    assert result.history[0]["val_loss"] == pytest.approx(expected.item(), rel=1e-10)


def test_a_batch_knows_its_samples_and_weights(data):
    """What a loss function with parameters of these names gets: rows of the arrays that were handed in."""
    x, _, times, _ = data
    seen = []

    class Batches:
        steps_per_epoch = 2

        def __call__(self, epoch, step):
            rows = torch.arange(ROWS)[step::2]
            return Batch(x[rows], times[rows], rows, times[rows].double(), epoch, step)

    def loss(module, inputs, targets, *, index, weight, epoch, step):
        assert torch.equal(x[index], inputs)
        assert torch.equal(times[index], targets)
        assert torch.equal(weight, targets.double())
        seen.append((epoch, step))
        return module(inputs).square().mean()

    run(nn.Linear(5, 1).double(), loss, Batches(), LoopOptions(epochs=2, device="cpu"))
    assert seen == [(0, 0), (0, 1), (1, 0), (1, 1)]


class Normal(nn.Module):
    """The log-density of a normal distribution with a free mean."""

    def __init__(self):
        super().__init__()
        self.mean = nn.Parameter(torch.zeros(5, dtype=torch.float64))

    def forward(self, x):
        return torch.distributions.Normal(self.mean, 1.0).log_prob(x).sum(1, keepdim=True)


def test_a_density_finds_the_weighted_mean(data):
    x, _, times, _ = data
    model, options = Normal(), TrainOptions(optimizer="lbfgs", lr=1.0, epochs=5, batch_size=100, device="cpu")
    result = train_density(model, x, options, sample_weight=times, x_test=x)
    expected = (x * times[:, None]).sum(0) / times.sum()
    torch.testing.assert_close(model.mean.detach(), expected, rtol=1e-7, atol=1e-9)
    assert result.test["loss"] == pytest.approx(-model(x).mean().item(), rel=1e-12)


BAD = {
    "too few": (np.ones(3), r"sample_weight must have shape \[24\] as x has, got \[3\]"),
    "negative": (np.r_[-1.0, np.ones(ROWS - 1)], "must not be negative, got -1"),
    "not finite": (np.r_[np.nan, np.ones(ROWS - 1)], "sample_weight holds NaN"),
    "all zero": (np.zeros(ROWS), "every sample_weight is 0"),
    "text": (np.array(["a"] * ROWS), "sample_weight must hold numbers"),
}


@pytest.mark.parametrize("case", BAD)
@pytest.mark.parametrize("function", [train_regressor, sweep_regressor])
def test_bad_weights_are_refused(case, function, data):
    weights, text = BAD[case]
    with pytest.raises(InputError, match=text):
        function(layer(), data[0], data[1]["regression"], sample_weight=weights)


def test_resuming_with_other_weights_is_refused(data, tmp_path):
    x, targets, times, _ = data
    options = TrainOptions(epochs=1, device="cpu")
    given = {"options": options, "run_dir": tmp_path / "run"}
    train_regressor(layer(), x, targets["regression"], sample_weight=times + 1, **given)
    with pytest.raises(InputError, match="weights checksum"):
        train_regressor(layer(), x, targets["regression"], sample_weight=times + 2, resume=True, **given)
