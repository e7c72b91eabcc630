"""Born machines trained by the loop and by sweeps: parity, known mixtures, classes, resuming, refusals."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tnml.errors import InputError
from tnml.nn import BornMachine, MPSLayer
from tnml.training import SweepOptions, TrainingInterrupted, TrainOptions, sweep_density, train_density
from tnml.training.dmrg.likelihood import USUAL, SquaredAmplitude

QUICK = replace(USUAL, device="cpu", max_bond=4, noise=0.1, proximal=0.1)


def even(n: int) -> torch.Tensor:
    """All strings of n bits with an even sum, each equally often."""
    every = torch.cartesian_prod(*[torch.tensor([0.0, 1.0])] * n)
    return every[every.sum(1) % 2 == 0]


def test_sweeps_find_even_parity_with_bond_2() -> None:
    x = even(8)
    born = BornMachine(8, 1, seed=0).start_(x)
    history = sweep_density(born, x, replace(QUICK, sweeps=6)).history
    assert history[-1]["loss"] == pytest.approx(7 * math.log(2), abs=1e-3)
    assert born.psi.bond_dims == [1, *[2] * 8, 1]
    assert born.psi.label_site == 4, "back in the middle"
    assert float(-born(x).mean().detach()) == pytest.approx(history[-1]["loss"], abs=1e-5)
    assert "val_loss" not in history[0]


@pytest.mark.parametrize("dtype", ["float64", "complex128"])
def test_gradients_find_two_strings(dtype: str) -> None:
    x = torch.tensor([[0.0, 1.0, 1.0, 0.0, 1.0], [1.0, 0.0, 0.0, 1.0, 1.0]], dtype=torch.float64)
    born = BornMachine(5, 2, dtype=dtype, noise=0.3, seed=1)
    options = TrainOptions(epochs=300, lr=0.03, batch_size=2, device="cpu", schedule="cosine")
    train_density(born, x, options)
    assert float(-born(x).mean().detach()) == pytest.approx(math.log(2), abs=1e-2)


@pytest.mark.parametrize("dtype", ["float64", "complex128"])
def test_the_start_is_the_product_of_the_columns(dtype: str) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.bernoulli(torch.tensor([0.1, 0.5, 0.99, 1.0]).expand(200, 4), generator=generator).double()
    born = BornMachine(4, 3, noise=0.0, dtype=dtype).start_(x)
    share = (x.sum(0) + 0.5) / 201
    wanted = (x * share.log() + (1 - x) * (1 - share).log()).sum(1)
    assert torch.allclose(born(x)[:, 0], wanted, atol=1e-10)
    times = torch.arange(200) % 3
    weighted = BornMachine(4, 3, noise=0.0, dtype=dtype).start_(x, times)
    repeated = BornMachine(4, 3, noise=0.0, dtype=dtype).start_(x.repeat_interleave(times, 0))
    assert torch.allclose(weighted(x), repeated(x), atol=1e-10)
    classes = BornMachine(4, 3, classes=2, noise=0.0, dtype=dtype)
    rows = torch.cat([x, (torch.arange(200) % 4 == 0).double().unsqueeze(1)], 1)
    log = classes.start_(rows).log_joint(x).detach()
    assert log.shape == (200, 2)
    assert float(log.logsumexp(1).mean() - wanted.mean()) == pytest.approx(0, abs=0.1)


def test_the_start_of_numbers_raises_the_likelihood() -> None:
    x = torch.from_numpy(np.random.RandomState(0).beta(4, 2, (500, 3)))
    options = {"features": {"name": "legendre", "dim": 5}, "noise": 0.0, "dtype": "float64"}
    fresh, started = BornMachine(3, 2, **options), BornMachine(3, 2, **options).start_(x)
    assert fresh(x).mean().item() == pytest.approx(0, abs=1e-9), "uniform"
    assert started(x).mean().item() > 0.9


@pytest.mark.parametrize("options", [{"hidden": 2}, {"classes": 2}, {"classes": 3, "hidden": 2}])
def test_sweeps_with_hidden_values_and_classes_lower_the_loss(options: dict) -> None:
    generator = torch.Generator().manual_seed(0)
    kinds = torch.randint(0, options.get("classes", 2), (300,), generator=generator)
    p = torch.tensor([[0.9, 0.1, 0.9, 0.1, 0.5], [0.1, 0.9, 0.1, 0.9, 0.5], [0.5, 0.5, 0.9, 0.9, 0.1]])
    x = torch.bernoulli(p[kinds], generator=generator)
    if "classes" in options:
        kinds[::7] = -1
        x = torch.cat([x, kinds.unsqueeze(1).float()], 1)
    born = BornMachine(5, 2, **options).start_(x)
    before = float(-born(x).mean().detach())
    after = sweep_density(born, x, replace(QUICK, sweeps=5, label="stays")).history[-1]["loss"]
    assert after < before - 0.3
    # the entropy of the mixture these samples are from, measured on them: nothing can be much better
    log = (x[:, None, :5] * p.log() + (1 - x[:, None, :5]) * (1 - p).log()).sum(2)
    true = log[:, : options.get("classes", 2)] - math.log(options.get("classes", 2))
    if "classes" in options:
        known = true.gather(1, kinds.clamp(min=0).unsqueeze(1))[:, 0]
        bound = torch.where(kinds >= 0, known, true.logsumexp(1))
    else:
        bound = true.logsumexp(1)
    assert after < float(-bound.mean()) + 0.1


def test_the_loss_of_sweeps_has_its_derivatives() -> None:
    loss, generator = SquaredAmplitude(), torch.Generator().manual_seed(0)
    f = torch.randn(6, 1, dtype=torch.float64, generator=generator)
    y = torch.ones(6, 1, dtype=torch.float64)
    assert torch.allclose(loss.gradient(f, y), super(SquaredAmplitude, loss).gradient(f, y))
    step = torch.randn(6, 1, dtype=torch.float64, generator=generator)
    assert torch.allclose(loss.curvature(f, y, step), super(SquaredAmplitude, loss).curvature(f, y, step))
    many = torch.randn(6, 3, dtype=torch.float64, generator=generator)
    mask = torch.tensor([1.0, 0.0, 1.0], dtype=torch.float64).expand(6, 3)
    assert torch.allclose(loss.gradient(many, mask), super(SquaredAmplitude, loss).gradient(many, mask))
    hessian = torch.autograd.functional.hessian(lambda v: loss.values(v, mask[0]), many[0])
    sizes, vectors = torch.linalg.eigh(hessian)
    wanted = vectors @ (sizes.abs().unsqueeze(1) * vectors.T)
    found = torch.stack(
        [loss.curvature(many[:1], mask[:1], e.unsqueeze(0))[0] for e in torch.eye(3).double()]
    )
    assert torch.allclose(found, wanted)


def test_sweeps_stop_early_and_resume_to_the_same_bits(tmp_path: Path) -> None:
    x = torch.bernoulli(torch.full((80, 6), 0.5), generator=torch.Generator().manual_seed(0))
    options = replace(QUICK, sweeps=12, validation=0.3, max_bond=6, max_error=0.0)
    whole = BornMachine(6, 1).start_(x)
    history = sweep_density(whole, x, options, patience=2).history
    best = min(row["val_loss"] for row in history)
    assert len(history) < 12, "noise is learned, and the held-out part says so"
    assert [row["val_loss"] for row in history].index(best) == len(history) - 3

    def stop(row: dict) -> None:
        if row["sweep"] == 2 and row["bond"] == 3:
            raise KeyboardInterrupt

    halves = BornMachine(6, 1).start_(x)
    with pytest.raises(TrainingInterrupted):
        sweep_density(halves, x, options, patience=2, run_dir=tmp_path, on_bond=stop)
    again = BornMachine(6, 1).start_(x)
    resumed = sweep_density(again, x, options, patience=2, run_dir=tmp_path, resume=True)
    assert [row["loss"] for row in resumed.history] == [row["loss"] for row in history]
    for one, other in zip(whole.parameters(), again.parameters(), strict=True):
        assert torch.equal(one, other)
    with pytest.raises(InputError, match="belongs to another run"):
        sweep_density(BornMachine(6, 1), x.flip(0), options, patience=2, run_dir=tmp_path, resume=True)


def test_gradients_resume_to_the_same_bits(tmp_path: Path) -> None:
    x = even(5)
    options = TrainOptions(epochs=4, lr=0.02, batch_size=4, device="cpu", schedule="constant")
    whole, part, rest = (BornMachine(5, 3, noise=0.3) for _ in range(3))
    train_density(whole, x, options)
    train_density(part, x, replace(options, epochs=2), run_dir=tmp_path)
    train_density(rest, x, options, run_dir=tmp_path, resume=True)
    for one, other in zip(whole.parameters(), rest.parameters(), strict=True):
        assert torch.equal(one, other)
    with pytest.raises(InputError, match="belongs to another run"):
        train_density(BornMachine(5, 3, hidden=2), x, options, run_dir=tmp_path, resume=True)


def test_sweeps_of_a_long_chain_stay_finite() -> None:
    """Amplitudes of 300 bits are about 2^-150, below the smallest number of single precision."""
    x = torch.bernoulli(torch.full((60, 300), 0.5), generator=torch.Generator().manual_seed(0))
    x[:, 1::2] = x[:, ::2]
    born = BornMachine(300, 1).start_(x)
    before = float(-born(x).mean().detach())
    (row,) = sweep_density(born, x, replace(QUICK, sweeps=1, max_bond=2, iterations=3)).history
    assert before == pytest.approx(300 * math.log(2), rel=0.05)
    assert 0 < row["loss"] < 0.7 * before
    assert float(-born(x).mean().detach()) == pytest.approx(row["loss"], rel=1e-4)


def test_what_sweeps_cannot_train_is_refused() -> None:
    x = even(4)
    for born, options, text in (
        (BornMachine(4, dtype="complex64"), QUICK, "sweeps train real layers"),
        (BornMachine(4), SweepOptions(), "sweeps of the likelihood need metric='frobenius', got 'data'"),
        (BornMachine(4), replace(QUICK, ridge=1.0), "need ridge=2.0, got 1.0"),
        (MPSLayer(4, 1), QUICK, "sweep_density trains a BornMachine, got MPSLayer"),
    ):
        with pytest.raises(InputError, match=text):
            sweep_density(born, x, options)
    with pytest.raises(InputError, match="patience needs a held-out part"):
        sweep_density(BornMachine(4), x, QUICK, patience=2)
