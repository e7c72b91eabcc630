"""Evidence of least squares and the posterior of a label core, against scikit-learn and by hand."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import BayesianRidge

from tnml.nn import MPSLayer
from tnml.training import SweepOptions, sweep_regressor
from tnml.training.dmrg.evidence import evidence, evidence_rank
from tnml.training.dmrg.local import BondOutputs, Objective
from tnml.training.dmrg.posterior import fit_label_core, label_design
from tnml.training.dmrg.sides import Side
from tnml.training.dmrg.solvers import SOLVE
from tnml.training.losses import SquaredError


def bayesian_ridge(design, y, weight=None):
    """scikit-learn's, without priors on the two variances, at its fixed point."""
    flat = {"alpha_1": 0.0, "alpha_2": 0.0, "lambda_1": 0.0, "lambda_2": 0.0}
    model = BayesianRidge(fit_intercept=False, tol=1e-13, max_iter=100_000, compute_score=True, **flat)
    return model.fit(design, y, sample_weight=weight)


def regression(rows, columns, noise=0.5):
    rng = np.random.RandomState(0)
    design = rng.randn(rows, columns) * np.linspace(0.2, 2.0, columns)
    return design, design @ rng.randn(columns) + noise * rng.randn(rows)


# The evidence is flat at its maximum: a relative error of 1e-14 in it moves the maximum by 1e-7.
CLOSE = {"rtol": 1e-5}


@pytest.mark.parametrize(("rows", "columns"), [(60, 8), (200, 30), (40, 39)])
def test_noise_ridge_and_posterior_are_those_of_bayesian_ridge(rows, columns):
    design, y = regression(rows, columns)
    found, model = evidence(torch.tensor(design), torch.tensor(y)[:, None]), bayesian_ridge(design, y)
    np.testing.assert_allclose(found.noise, 1 / model.alpha_, **CLOSE)
    np.testing.assert_allclose(found.prior, 1 / model.lambda_, **CLOSE)
    np.testing.assert_allclose(found.mean[:, 0], model.coef_, rtol=1e-5, atol=1e-5 * abs(model.coef_).max())
    np.testing.assert_allclose(found.log_evidence, model.scores_[-1], rtol=1e-9)


@pytest.mark.parametrize(("rows", "columns"), [(50, 6), (20, 30)])
def test_the_evidence_is_the_density_of_the_targets(rows, columns):
    """By its definition, y ~ N(0, noise + prior design design'), and its maximum is one."""
    design, y = regression(rows, columns)

    def density(noise, prior):
        covariance = noise * np.eye(rows) + prior * design @ design.T
        _, log_det = np.linalg.slogdet(2 * np.pi * covariance)
        return -0.5 * (log_det + y @ np.linalg.solve(covariance, y))

    # few rows: below the smallest ridge that is looked at there is no noise at all, which explains all
    targets = y if rows > columns else y + 3 * np.sign(y)
    y = targets
    found = evidence(torch.tensor(design), torch.tensor(y)[:, None])
    noise, prior = found.noise.item(), found.prior.item()
    best = density(noise, prior)
    assert found.log_evidence.item() == pytest.approx(best, rel=1e-9)
    if rows > columns:
        for a in (0.9, 1.1):
            assert density(a * noise, prior) < best
            assert density(noise, a * prior) < best


def test_each_target_by_itself():
    design, y = regression(60, 8)
    both = np.stack([y, np.sin(5 * y)], axis=1)
    found = evidence(torch.tensor(design), torch.tensor(both))
    for column in range(2):
        alone = evidence(torch.tensor(design), torch.tensor(both[:, [column]]))
        torch.testing.assert_close(found.mean[:, [column]], alone.mean, rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(found.noise[[column]], alone.noise, rtol=1e-6, atol=0)


def test_weights_are_repeats():
    design, y = regression(40, 5)
    times = np.random.RandomState(1).randint(1, 4, 40)
    root = torch.tensor(np.sqrt(times))[:, None]
    weighted = evidence(root * torch.tensor(design), root * torch.tensor(y)[:, None], float(times.sum()))
    repeated = evidence(torch.tensor(design.repeat(times, 0)), torch.tensor(y.repeat(times))[:, None])
    torch.testing.assert_close(weighted.mean, repeated.mean, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(weighted.noise, repeated.noise, rtol=1e-6, atol=0)
    torch.testing.assert_close(weighted.log_evidence, repeated.log_evidence, rtol=1e-9, atol=0)


def test_targets_without_noise_and_without_anything():
    design, y = regression(50, 4, noise=0.0)
    found = evidence(torch.tensor(design), torch.tensor(y)[:, None])
    np.testing.assert_allclose(design @ found.mean[:, 0].numpy(), y, atol=1e-8 * abs(y).max())
    nothing = evidence(torch.tensor(design), torch.zeros(50, 2, dtype=torch.float64))
    assert not nothing.mean.any()
    assert torch.isfinite(nothing.noise).all()
    empty = evidence(torch.zeros(5, 3, dtype=torch.float64), torch.ones(5, 1, dtype=torch.float64))
    assert not empty.mean.any()
    assert empty.noise.item() == pytest.approx(1.0)


def local_problem(rank, noise, rows=400, p=6, q=5, c=1):
    """Targets of a tensor of that rank on white sides, and the mean of its posterior."""
    generator = torch.Generator().manual_seed(0)
    left, right = (torch.randn(rows, k, generator=generator, dtype=torch.float64) for k in (p, q))
    factors = [torch.randn(*s, generator=generator, dtype=torch.float64) for s in ((p, rank), (rank, c * q))]
    tensor = (factors[0] @ factors[1]).view(p, c, q)
    outputs = BondOutputs(Side(left, None, left=True), Side(right, None, left=False))
    targets = outputs(tensor)
    targets = targets + noise * torch.randn(rows, c, generator=generator, dtype=torch.float64)
    objective = Objective(outputs, targets, SquaredError(), tensor, 0.0, 0.0)
    return objective, SOLVE["evidence"](objective, 1)[0]


@pytest.mark.parametrize("classes", [1, 2])
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_the_evidence_finds_the_rank(rank, classes):
    objective, solved = local_problem(rank, noise=0.5, c=classes)
    assert evidence_rank(objective, solved, label_right=True) == rank


def test_the_label_leg_may_be_on_either_side():
    """Swapping the sides and the leg changes nothing."""
    objective, solved = local_problem(2, noise=0.5, c=3)
    sides = objective.outputs
    swapped = BondOutputs(
        Side(sides.right.vectors, None, left=True), Side(sides.left.vectors, None, left=False)
    )
    other = Objective(swapped, objective.targets, SquaredError(), objective.start, 0.0, 0.0)
    flipped = solved.permute(2, 1, 0).contiguous()
    for label_right in (True, False):
        found = evidence_rank(objective, solved, label_right=label_right)
        assert evidence_rank(other, flipped, label_right=not label_right) == found


def test_noise_has_no_rank():
    objective, solved = local_problem(1, noise=30.0)
    assert evidence_rank(objective, solved, label_right=True) == 1


def test_the_design_is_the_derivative_by_the_label_core():
    layer = MPSLayer(6, 2, bond_dim=3, dtype="float64", noise=0.3)
    x = torch.rand(4, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    design = label_design(layer, x)
    for row in range(4):
        layer.zero_grad()
        layer(x[row : row + 1])[0, 1].backward()
        assert not layer.label.grad[:, 0].any()
        torch.testing.assert_close(layer.label.grad[:, 1].flatten(), design[row])


def chain(sites, outputs, rows=80, weighted=False):
    """A layer after two sweeps, and what it was trained on."""
    x = torch.rand(rows, sites, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    y = torch.stack([x[:, 0] * x[:, -1], x.sum(1)], 1)[:, :outputs]
    y = y - y.mean(0) + 0.1 * torch.randn(rows, outputs, generator=torch.Generator().manual_seed(1))
    weight = torch.linspace(0.5, 1.5, rows, dtype=torch.float64) if weighted else None
    layer = MPSLayer(sites, outputs, bond_dim=1, noise=0.0, dtype="float64")
    if sites > 1:
        options = SweepOptions(
            solver="evidence", loss="mse", label="travels", sweeps=2, max_bond=4, device="cpu"
        )
        sweep_regressor(layer, x, y, options, sample_weight=weight)
    return layer, x, y, weight


@pytest.mark.parametrize("sites", [1, 2, 5])
@pytest.mark.parametrize("outputs", [1, 2])
@pytest.mark.parametrize("weighted", [False, True])
def test_error_bars_are_those_of_bayesian_ridge_on_the_design(sites, outputs, weighted):
    layer, x, y, weight = chain(sites, outputs, weighted=weighted)
    posterior = fit_label_core(layer, x, y, weight=weight)
    assert layer.label_site == max(1, sites // 2)
    design = label_design(layer, x).numpy()
    variance = posterior.variance(design)
    for column in range(outputs):
        model = bayesian_ridge(design, y[:, column].numpy(), None if weight is None else weight.numpy())
        mean, deviation = model.predict(design, return_std=True)
        scale = abs(mean).max()
        np.testing.assert_allclose(layer(x).detach()[:, column], mean, atol=1e-5 * scale)
        np.testing.assert_allclose(np.sqrt(variance[:, column]), deviation, rtol=1e-4)
        np.testing.assert_allclose(posterior.log_evidence[column], model.scores_[-1], rtol=1e-7)


def test_directions_without_samples_keep_their_prior():
    """More numbers in the label core than samples: the variance is that of the dense formula."""
    layer, x, y, _ = chain(4, 1, rows=6)
    layer = MPSLayer(4, 1, bond_dim=4, noise=0.5, dtype="float64")
    posterior = fit_label_core(layer, x, y)
    more = torch.rand(5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    seen, asked = (label_design(layer, z).numpy() for z in (x, more))
    assert seen.shape[1] > len(seen)
    noise, prior = posterior.noise[0], posterior.prior[0]
    covariance = np.linalg.inv(seen.T @ seen / noise + np.eye(seen.shape[1]) / prior)
    np.testing.assert_allclose(
        posterior.variance(asked)[:, 0], noise + np.einsum("bi,ij,bj->b", asked, covariance, asked), rtol=1e-6
    )


def test_moving_the_label_core_changes_no_output_but_by_the_fit():
    """Without noise the fit is exact already, so that the outputs stay."""
    x = torch.rand(100, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    layer = MPSLayer(6, 1, bond_dim=2, noise=0.2, dtype="float64", label_site=1)
    y = layer(x).detach()
    fit_label_core(layer, x, y, damping=1e-3)
    assert layer.label_site == 3
    assert max(layer.bond_dims) <= 2
    torch.testing.assert_close(layer(x), y, rtol=0, atol=1e-4 * y.abs().max().item())
