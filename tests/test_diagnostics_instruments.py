"""Smaller instruments: active units, conditioning, alignment, localisation, significance, moments."""

import copy
import math

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

from tnml.diagnostics import (
    activation_sparsity,
    ams,
    class_moments,
    gaussian_moments,
    inverse_participation,
    layer_conditioning,
    ridge_head,
    spectral_alignment,
)
from tnml.diagnostics.discovery import significance
from tnml.errors import InputError
from tnml.nn import MPSLayer, TTLinear
from tnml.nn.tt.network import Elementwise


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_active_and_dead_units_are_counted():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.BatchNorm1d(5), nn.Linear(5, 4), nn.ReLU())
    with torch.no_grad():
        net[0].bias[2] = -100.0
    x, before = torch.randn(40, 3), copy.deepcopy(net.state_dict())
    found = activation_sparsity(net, x)
    net.eval()
    first = net[:2](x) > 0
    second = net(x) > 0
    every = torch.cat([first, second], 1)
    assert found["active_fraction"] == pytest.approx(every.double().mean().item())
    assert found["dead_fraction"] == pytest.approx((~every.any(0)).double().mean().item())
    assert found["dead_fraction"] >= 1 / 9
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())
    assert not net[1]._forward_hooks


class Block(nn.Module):
    """act(W x), with x added where there is a skip connection."""

    def __init__(self, weight, act, skip):
        super().__init__()
        self.weight, self.act, self.skip = weight, act, skip

    def forward(self, x):
        y = self.act(x @ self.weight.T)
        return y + x if self.skip else y


def test_skip_connections_keep_blocks_well_conditioned():
    """Riedi et al.: at half the usual gain skips give single digits where plain blocks lose directions."""
    x = normal(8, 64)
    for act in (nn.ReLU(), nn.LeakyReLU(0.1), Elementwise(torch.abs)):
        cond = {True: [], False: []}
        for seed in range(5):
            weight = 0.5 / 8 * normal(64, 64, seed=seed)
            for skip, values in cond.items():
                values.append(layer_conditioning(nn.Sequential(Block(weight, act, skip)), x)["0"]["cond"])
        assert np.median(cond[True]) < 10
        assert np.median(cond[False]) > 100


def test_conditioning_is_that_of_the_matrix_and_of_masks():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 3), nn.Dropout(0.5), nn.Sequential(nn.ReLU(), nn.Linear(3, 3))).double()
    x = normal(9, 4)
    found = layer_conditioning(net, x)
    values = torch.linalg.svdvals(net[0].weight)
    assert found["0"] == pytest.approx(
        {"smax": values[0].item(), "smin": values[-1].item(), "cond": (values[0] / values[-1]).item()}
    )
    masks = (net[0](x) > 0).double()
    expected = [torch.linalg.svdvals(net[2][1].weight * mask)[0].item() for mask in masks]
    assert layer_conditioning(net, x, ["2"])["2"]["smax"] == pytest.approx(np.sort(expected)[4])
    assert net.training


def test_good_features_carry_clean_labels_and_no_noise():
    """The table of the paper's kind of data: the step in the spectrum decides, and ridge matters."""
    generator = torch.Generator().manual_seed(0)
    n, d, classes = 1000, 256, 10
    y = torch.randint(classes, (n,), generator=generator)
    noisy = torch.where(
        torch.rand(n, generator=generator) < 0.6, torch.randint(classes, (n,), generator=generator), y
    )
    found = {}
    for scale in (4.0, 0.2):
        centres = scale * normal(classes, d, seed=1)
        features = (centres[y] + normal(n, d, seed=2)) / (math.sqrt(n) + math.sqrt(d))  # noise up to 1
        weights = ridge_head(features, noisy, 0.01 * n)
        right = float(((features @ weights).argmax(1) == y).double().mean())
        found[scale] = (spectral_alignment(features, y, noisy), right)
    good, poor = found[4.0], found[0.2]
    assert good[0].gap > 3 > poor[0].gap
    assert good[0].clean > 0.95
    assert good[1] == 1.0
    assert poor[0].clean < good[0].clean
    assert good[0].noise < 0.4, "the mean of the noise within each class, and little more"
    loose = spectral_alignment(features, y, noisy, k=255)
    assert loose.clean > poor[0].clean


def test_the_ridge_head_is_that_of_the_normal_equations():
    features, y = normal(12, 4), torch.arange(12) % 3
    weights = ridge_head(features, y, 0.3)
    stacked = torch.cat([features, math.sqrt(0.3) * torch.eye(4, dtype=torch.float64)])
    target = torch.cat([torch.eye(3, dtype=torch.float64)[y], torch.zeros(4, 3, dtype=torch.float64)])
    torch.testing.assert_close(weights, torch.linalg.lstsq(stacked, target).solution)


def test_inverse_participation():
    w = normal(3, 50)
    expected = (w**4).sum(1) / (w**2).sum(1) ** 2
    torch.testing.assert_close(inverse_participation(w), expected)
    torch.testing.assert_close(inverse_participation(1e-200 * w), expected)
    kurtosis = torch.from_numpy(stats.kurtosis(w.numpy() - 0, axis=1, fisher=False))
    assert torch.allclose(50 * inverse_participation(w), kurtosis, rtol=0.2)


def test_the_cut_is_the_best_of_all():
    scores = normal(60).round(decimals=1)  # some are equal
    y = (normal(60, seed=1) + scores > 0).long()
    weights = normal(60, seed=2).square()
    found = ams(scores, y, weights)
    best = 0.0
    for cut in scores.unique():
        chosen = scores >= cut
        s, b = float((weights * y)[chosen].sum()), float((weights * (1 - y))[chosen].sum())
        best = max(best, math.sqrt(2 * ((s + b + 10) * math.log(1 + s / (b + 10)) - s)))
    assert found.ams == pytest.approx(best)
    assert 0 < found.error < found.ams
    assert significance(torch.tensor(50.0), torch.tensor(1000.0)).item() == pytest.approx(1.561, abs=5e-4)


def moments_of_samples(net, mean, covariance, count=400_000):
    root = torch.linalg.cholesky(covariance)
    z = net(mean + normal(count, len(mean), seed=4) @ root.T)
    return z.mean(0), torch.cov(z.T)


@pytest.mark.parametrize(
    "function", [torch.relu, torch.erf, lambda z: z + 0.5 * z**2], ids=["relu", "erf", "square"]
)
def test_closure_behind_the_first_function_is_exact(function):
    mean = torch.tensor([0.3, -0.2, 0.0], dtype=torch.float64)
    root = 0.5 * normal(3, 3, seed=1)
    covariance = root @ root.T + 0.05 * torch.eye(3)
    net = nn.Sequential(Elementwise(function))
    (found,) = gaussian_moments(net, mean, covariance)
    variance = covariance.diagonal()
    if function is torch.relu:
        s, r = variance.sqrt(), mean / variance.sqrt()
        expected = mean * torch.special.ndtr(r) + s * torch.exp(-(r**2) / 2) / math.sqrt(2 * math.pi)
    elif function is torch.erf:
        expected = torch.erf(mean / (1 + 2 * variance).sqrt())
    else:
        expected = mean + 0.5 * (mean**2 + variance)
        closed = covariance * torch.outer(1 + mean, 1 + mean) + 0.5 * covariance**2
        torch.testing.assert_close(found.covariance, closed, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(found.mean, expected, rtol=1e-9, atol=1e-12)
    means, covariances = moments_of_samples(net, mean, covariance)
    torch.testing.assert_close(found.mean, means, rtol=0, atol=4e-3)
    torch.testing.assert_close(found.covariance, covariances, rtol=0, atol=6e-3)


def test_closure_through_layers():
    torch.manual_seed(0)
    tt = TTLinear(4, 6, rank=2, n_cores=2, dtype=torch.float64)
    net = nn.Sequential(tt, nn.Tanh(), nn.Linear(6, 2).double(), nn.Identity())
    mean, covariance = normal(4, seed=3), torch.eye(4, dtype=torch.float64)
    found = gaussian_moments(net, mean, covariance)
    assert len(found) == 4
    torch.testing.assert_close(found[0].covariance, tt.weight @ covariance @ tt.weight.T)
    means, covariances = moments_of_samples(net, mean, covariance, 100_000)
    torch.testing.assert_close(found[-1].mean, means.detach(), rtol=0, atol=0.01)
    torch.testing.assert_close(found[-1].covariance, covariances.detach(), rtol=0.05, atol=0.01)
    certain = gaussian_moments(net, mean, torch.zeros(4, 4))
    torch.testing.assert_close(certain[-1].mean, net(mean).detach())
    assert float(certain[-1].covariance.abs().max()) < 1e-12


def test_moments_of_classes():
    x, y = normal(30, 3), torch.arange(30) % 2
    found = class_moments(x, y)
    for label in range(2):
        chosen = x[y == label].numpy()
        np.testing.assert_allclose(found[label].mean, chosen.mean(0))
        np.testing.assert_allclose(found[label].covariance, np.cov(chosen.T, bias=True))


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: activation_sparsity(nn.Linear(1, 1), torch.ones(1, 1)), "nn.ReLU"),
        (
            lambda: layer_conditioning(nn.Sequential(nn.Linear(1, 1)), torch.ones(1, 1), ["a"]),
            "no module 'a'",
        ),
        (lambda: spectral_alignment(torch.eye(3), torch.arange(3)), "more than k=3"),
        (lambda: ridge_head(torch.eye(3), torch.arange(3), 0.0), "beta"),
        (lambda: ams(torch.ones(2), torch.tensor([0, 2])), "labels 1"),
        (lambda: ams(torch.ones(2), torch.tensor([0])), "as many labels"),
        (lambda: class_moments(torch.ones(2, 1), torch.tensor([0, 2])), "class 1 has no sample"),
        (lambda: gaussian_moments(nn.Sequential(MPSLayer(2, 2)), torch.ones(2), torch.eye(2)), "MPSLayer"),
        (lambda: gaussian_moments(nn.Sequential(nn.Linear(3, 2)), torch.ones(2), torch.eye(2)), "takes 3"),
        (lambda: gaussian_moments(nn.Sequential(), torch.ones(2), torch.eye(3)), "covariance of 2"),
    ],
)
def test_bad_input(call, match):
    with pytest.raises(InputError, match=match):
        call()
