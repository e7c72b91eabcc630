"""Random-matrix tests and the filter, against the theory of noise and of spikes in it."""

import math

import pytest
import torch
from scipy import stats
from scipy.integrate import quad

from tnml.diagnostics import marchenko_pastur, porter_thomas, random_matrix, rmt_filter
from tnml.errors import InputError

THETA = torch.tensor([60.0, 50.0, 40.0, 30.0, 25.0], dtype=torch.float64)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def spiked(seed=0, m=200, n=400):
    left, right = (torch.linalg.qr(normal(size, 5, seed=seed + k))[0] for k, size in enumerate((m, n)))
    signal = (left * THETA) @ right.T
    return signal, signal + normal(m, n, seed=seed + 9)


@pytest.mark.parametrize("seed", [0, 20, 40])
def test_spikes_are_pushed_up_and_pulled_back(seed):
    signal, noisy = spiked(seed)
    theory = ((THETA**2 + 200) * (THETA**2 + 400) / THETA**2).sqrt()
    torch.testing.assert_close(torch.linalg.svdvals(noisy)[:5], theory, rtol=0.05, atol=0.0)
    bulk = marchenko_pastur(noisy)
    assert bulk.outliers == 5
    assert bulk.sigma == pytest.approx(1.0, abs=0.03)
    assert bulk.edge == pytest.approx(math.sqrt(200) + 20, rel=0.03)
    assert bulk.distance < 0.03
    found = {how: rmt_filter(noisy, shrink=how) for how in ("none", "level_repulsion", "frobenius")}
    error = {how: float((value - signal).norm() / signal.norm()) for how, value in found.items()}
    assert float((noisy - signal).norm() / signal.norm()) > 2.5
    assert error["frobenius"] < error["level_repulsion"] <= 0.9 * error["none"]
    pulled = torch.linalg.svdvals(found["level_repulsion"])[:5]
    torch.testing.assert_close(pulled, THETA, rtol=0.15, atol=0.0)


@pytest.mark.parametrize("shape", [(60, 60), (60, 240), (240, 60)])
def test_the_law_of_the_bulk_is_that_of_noise(shape):
    ratio = min(shape) / max(shape)
    low, high = (1 - math.sqrt(ratio)) ** 2, (1 + math.sqrt(ratio)) ** 2

    def density(x):
        return math.sqrt(max(0.0, (high - x) * (x - low))) / (2 * math.pi * ratio * x)

    for share in (0.0, 0.1, 0.5, 0.9, 1.0):
        x = low + share * (high - low)
        expected = quad(density, low, x, limit=200)[0] if share else 0.0
        found = random_matrix._law(torch.tensor(x, dtype=torch.float64), ratio)
        assert found.item() == pytest.approx(expected, abs=1e-7)
    assert quad(density, low, random_matrix._median(ratio), limit=200)[0] == pytest.approx(0.5, abs=1e-7)
    found = marchenko_pastur(3 * normal(*shape))
    assert found.sigma == pytest.approx(3.0, rel=0.05)
    assert found.outliers <= 1


def test_p_values_are_those_of_scipy():
    matrix = normal(40, 60)
    _, _, right = torch.linalg.svd(matrix, full_matrices=False)
    found = porter_thomas(matrix).p
    n = 60
    for vector, p in zip(right.numpy() * math.sqrt(n), found, strict=True):
        off = stats.kstest(vector, "norm").statistic
        expected = stats.kstwobign.sf((math.sqrt(n) + 0.12 + 0.11 / math.sqrt(n)) * off)
        assert p.item() == pytest.approx(expected, abs=1e-9)
    assert 0.4 < found.mean() < 0.7


def test_localised_directions_are_seen_and_normal_ones_are_not():
    local = torch.eye(300, dtype=torch.float64)[:10]
    spread = torch.linalg.qr(normal(300, 10, seed=5))[0].T
    strength = torch.diag(torch.linspace(300, 100, 10, dtype=torch.float64))
    left = torch.linalg.qr(normal(200, 10, seed=3))[0]
    for directions, seen in ((local, True), (spread, False)):
        found = porter_thomas(left @ strength @ directions + normal(200, 300), window=5)
        assert bool((found.p[:10] < 1e-6).all()) == seen
        assert (8 <= found.boundary <= 12) if seen else (found.boundary <= 2)
    assert porter_thomas(normal(200, 300)).boundary == 0


def test_what_is_kept():
    signal, noisy = spiked()
    rank = torch.linalg.matrix_rank
    assert rank(rmt_filter(noisy, 3)) == 3
    assert rank(rmt_filter(noisy, 0.01)) == 2
    assert rank(rmt_filter(noisy, 9)) == 5, "values inside the bulk are noise alone"
    assert rank(rmt_filter(noisy, 9, shrink="none")) == 9
    assert not bool(rmt_filter(noisy, 0).any())
    single = rmt_filter(noisy.float().requires_grad_())
    assert (single.dtype, single.requires_grad) == (torch.float32, False)
    torch.testing.assert_close(rmt_filter(noisy.T), rmt_filter(noisy).T)
    assert float((rmt_filter(noisy) - signal).norm()) < float((noisy - signal).norm())


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: marchenko_pastur(torch.ones(1, 5)), "a real matrix, two rows"),
        (lambda: marchenko_pastur(torch.zeros(3, 5)), "no noise"),
        (lambda: porter_thomas(torch.full((3, 3), math.nan)), "NaN"),
        (lambda: porter_thomas(torch.eye(3), "up"), "side"),
        (lambda: rmt_filter(normal(5, 5), 1.0), "below 1"),
        (lambda: rmt_filter(normal(5, 5), 6), "from 0 to 5"),
        (lambda: rmt_filter(normal(5, 5), "all"), "keep"),
        (lambda: rmt_filter(normal(5, 5), shrink="a bit"), "shrink"),
    ],
)
def test_bad_input(call, match):
    with pytest.raises(InputError, match=match):
        call()
