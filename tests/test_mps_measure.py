"""Density matrices, expectations, samples and probabilities against dense tensors."""

import itertools
import math

import mps_oracles as oracles
import numpy as np
import pytest
import tensornetwork
import torch
from scipy.stats import chi2

from tnml import InputError
from tnml.mps import MatrixProductState

DTYPES = ["float64", "complex128"]


def random(n, dtype, physical=2):
    return MatrixProductState.random(n, 5, physical, dtype=dtype, seed=n) * 4.0


def matrix(d, dtype, seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(d, d, dtype=getattr(torch, dtype), generator=generator)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n", [1, 2, 4, 6])
def test_density_matrices_of_any_sites(n, dtype):
    state = random(n, dtype, [2, 3, 2, 2, 3, 2][:n])
    dense = oracles.of(state)
    for size in (1, 2, 3):
        for sites in itertools.permutations(range(n), size):
            found = state.reduced_density_matrix(sites).numpy()
            assert np.abs(found - oracles.density(dense, list(sites))).max() <= 1e-13
            assert np.trace(found) == pytest.approx(1.0, abs=1e-13)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("sites", [range(2, 11), range(12, 3, -1), [0, 1, 3, 4, 8, 9, 11, 12], [12, 3, 1, 7]])
def test_density_matrices_of_many_sites(sites, dtype):
    """Neighbours and sites apart from each other, in either direction, by halves that meet in the middle."""
    state = MatrixProductState.random(13, 4, dtype=dtype, seed=2)
    found = state.reduced_density_matrix(sites).numpy()
    assert np.abs(found - oracles.density(oracles.of(state), list(sites))).max() <= 1e-13


@pytest.mark.parametrize("dtype", DTYPES)
def test_density_matrices_have_gradients(dtype):
    state = random(3, dtype)
    cores = [core.clone().requires_grad_() for core in state.cores]

    def density(*cores):
        return MatrixProductState(cores).reduced_density_matrix([2, 0])

    assert torch.autograd.gradcheck(density, cores)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n", [1, 2, 5, 10])
def test_expectations_and_correlations(n, dtype):
    state = random(n, dtype)
    dense = oracles.of(state)
    a, b = matrix(2, dtype, 1), matrix(2, dtype, 2)
    cases = [{}, {0: a}, {n - 1: b}, {site: a + site * b for site in range(n)}]
    for operators in cases:
        exact = oracles.expectation(dense, {site: op.numpy() for site, op in operators.items()})
        assert abs(state.expectation(operators).item() - exact) <= 1e-12 * max(1, abs(exact))
    for i, j in itertools.product(range(n), repeat=2):
        together = {i: (a @ b).numpy()} if i == j else {i: a.numpy(), j: b.numpy()}
        exact = oracles.expectation(dense, together)
        exact -= oracles.expectation(dense, {i: a.numpy()}) * oracles.expectation(dense, {j: b.numpy()})
        assert abs(state.correlation(a, i, b, j).item() - exact) <= 1e-12


@pytest.mark.parametrize("dtype", DTYPES)
def test_expectations_equal_those_of_tensornetwork(dtype):
    state = random(6, dtype)
    a, b = matrix(2, dtype, 1), matrix(2, dtype, 2)
    tensors = [core.numpy() for core in state.canonical(0).cores]
    peer = tensornetwork.FiniteMPS(tensors, center_position=0, canonicalize=True, backend="numpy")
    local = peer.measure_local_operator([a.numpy()] * 6, list(range(6)))
    for site, exact in enumerate(local):
        assert abs(state.expectation({site: a}).item() - complex(exact)) <= 1e-12
    pairs = peer.measure_two_body_correlator(a.numpy(), b.numpy(), 2, list(range(6)))
    for site, exact in enumerate(pairs):
        together = {2: a @ b} if site == 2 else {2: a, site: b}
        assert abs(state.expectation(together).item() - complex(exact)) <= 1e-12


@pytest.mark.parametrize("dtype", DTYPES)
def test_mutual_information(dtype):
    state = random(5, dtype)
    dense = oracles.of(state)
    for i, j in itertools.permutations(range(5), 2):
        exact = oracles.mutual_information(dense, i, j)
        assert state.mutual_information(i, j).item() == pytest.approx(exact, abs=1e-12)
    ghz = MatrixProductState.from_dense(torch.from_numpy(oracles.ghz(5))).to(dtype)
    assert ghz.mutual_information(0, 4).item() == pytest.approx(math.log(2), abs=1e-12)
    bell = MatrixProductState.from_dense(torch.eye(2, dtype=torch.float64))
    assert bell.mutual_information(0, 1).item() == pytest.approx(2 * math.log(2), abs=1e-12)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n", [1, 2, 4, 7])
def test_probabilities(n, dtype):
    state = random(n, dtype)
    weights = np.abs(oracles.of(state)) ** 2
    configurations = torch.tensor(list(itertools.product(range(2), repeat=n)))
    found = state.log_probability(configurations)
    assert np.abs(found.exp().numpy() - weights.ravel() / weights.sum()).max() <= 1e-13
    assert found.dtype == torch.float64


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("dims", [[3], [2, 2], [2, 3, 2, 2], [2] * 6])
def test_samples_follow_the_exact_probabilities(dims, dtype):
    state = random(len(dims), dtype, dims)
    weights = (np.abs(oracles.of(state)) ** 2).ravel()
    n_samples = 20_000
    samples = state.sample(n_samples, seed=5).numpy()
    assert samples.shape == (n_samples, len(dims))
    counts = np.bincount(np.ravel_multi_index(samples.T, dims), minlength=weights.size)
    expected = weights / weights.sum() * n_samples
    usual = expected >= 5  # the rest goes into one bin
    observed = np.append(counts[usual], counts[~usual].sum())
    expected = np.append(expected[usual], expected[~usual].sum())
    used = expected > 0
    statistic = ((observed - expected)[used] ** 2 / expected[used]).sum()
    assert chi2.sf(statistic, used.sum() - 1) > 1e-3
    assert observed[~used].sum() == 0


def test_samples_are_reproducible_and_never_impossible():
    ghz = MatrixProductState.from_dense(torch.from_numpy(oracles.ghz(8)))
    samples = ghz.sample(500, seed=1)
    assert torch.equal(samples, ghz.sample(500, seed=1))
    assert not torch.equal(samples, ghz.sample(500, seed=2))
    assert set(samples.sum(1).tolist()) == {0, 8}
    w = MatrixProductState.from_dense(torch.from_numpy(oracles.w_state(8))).to("float32")
    assert set(w.sample(500).sum(1).tolist()) == {1}
    odd = torch.tensor([[0] * 7 + [1], [0] * 8])
    assert ghz.log_probability(odd).tolist() == [-math.inf, pytest.approx(math.log(0.5))]


def test_samples_come_in_pieces_when_many(monkeypatch):
    state = random(5, "float64")
    monkeypatch.setattr("tnml.mps.measure.CHUNK", 100)
    samples = state.sample(3001)
    assert samples.shape == (3001, 5)
    density = state.reduced_density_matrix([2]).diagonal()
    assert (samples[:, 2] == 0).double().mean().item() == pytest.approx(density[0].item(), abs=0.04)


@pytest.mark.slow
def test_a_thousand_sites():
    state = MatrixProductState.random(1000, 4, seed=3)
    samples = state.sample(3, seed=1)
    log = state.log_probability(samples)
    assert torch.isfinite(log).all()
    assert (log < -100).all()
    scaled = MatrixProductState([core * 100 for core in state.cores], log_scale=-9.0)
    assert torch.allclose(scaled.log_probability(samples), log, rtol=1e-10)
    assert torch.equal(scaled.sample(3, seed=1), samples)
    density = scaled.reduced_density_matrix([10, 990])
    assert torch.linalg.eigvalsh(density).min() >= -1e-12
    z = torch.diag(torch.tensor([1.0, -1.0], dtype=torch.float64))
    assert abs(scaled.correlation(z, 10, z, 990).item()) <= 1e-10
    assert scaled.expectation({500: torch.eye(2, dtype=torch.float64)}).item() == pytest.approx(1.0)


STATE = MatrixProductState([torch.ones(1, 2, 1)] * 3)
ZERO = STATE * 0
EYE = torch.eye(2)

BAD = {
    "too wide": (
        lambda: MatrixProductState.random(30, 260).reduced_density_matrix(range(9, 21)),
        "rows over bonds of 260 needs 2.8e.08 numbers",
    ),
    "no sites": (lambda: STATE.reduced_density_matrix([]), "one or more different sites"),
    "twice": (lambda: STATE.reduced_density_matrix([1, 1]), r"different sites, got \[1, 1\]"),
    "no such site": (lambda: STATE.reduced_density_matrix([3]), "site must be .* 0 to 2, got 3"),
    "too many": (
        lambda: MatrixProductState.random(20, 1).reduced_density_matrix(range(13)),
        "8192 rows is too large",
    ),
    "operator site": (lambda: STATE.expectation({5: EYE}), "site must be .* 0 to 2, got 5"),
    "operator shape": (
        lambda: STATE.expectation({0: torch.eye(3)}),
        r"site 0 must be a \[2, 2\].* got \[3, 3\]",
    ),
    "operator dtype": (lambda: STATE.expectation({0: EYE.double()}), "got .* torch.float64"),
    "operator type": (lambda: STATE.expectation({0: [[1]]}), "got list"),
    "correlation": (lambda: STATE.correlation(EYE, 0, EYE, 3), "site must be .* got 3"),
    "mutual": (lambda: STATE.mutual_information(1, 1), "different sites"),
    "samples": (lambda: STATE.sample(0), "n_samples must be .* at least 1, got 0"),
    "zero sample": (lambda: ZERO.sample(2), "the state is zero"),
    "zero density": (lambda: ZERO.reduced_density_matrix([0]), "the state is zero"),
    "zero expectation": (lambda: ZERO.expectation({0: EYE}), "the state is zero"),
    "zero probability": (lambda: ZERO.log_probability(torch.zeros(1, 3).long()), "the state is zero"),
    "configurations": (lambda: STATE.log_probability(torch.zeros(1, 2).long()), r"\[b, 3\], got \[1, 2\]"),
    "not integers": (lambda: STATE.log_probability(torch.zeros(1, 3)), "got .* of torch.float32"),
    "not a tensor": (lambda: STATE.log_probability([[0, 0, 0]]), "got list"),
    "out of range": (lambda: STATE.log_probability(torch.tensor([[0, 2, 0]])), "index that its site"),
    "negative": (lambda: STATE.log_probability(torch.tensor([[0, -1, 0]])), "index that its site"),
}


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_clear_error(case):
    call, message = BAD[case]
    with pytest.raises(InputError, match=message):
        call()
