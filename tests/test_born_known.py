"""Densities whose answers are known: GHZ states, Ising chains, hidden Markov models, a normal density."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import norm

from tnml.features import feature_map
from tnml.nn import BornMachine
from tnml.nn.born.basis import basis_of, levels
from tnml.nn.born.state import BornState
from tnml.training.dmrg.chain import give


def with_cores(cores: list[torch.Tensor], **options) -> BornMachine:
    """A machine of these cores `(l, d, r)`."""
    born = BornMachine(len(cores), 2, dtype="float64", **options)
    middle = len(cores) // 2
    bond = cores[middle].shape[0]
    give(born.psi, cores, torch.eye(bond, dtype=torch.float64).unsqueeze(1), middle)
    return born


def test_a_ghz_state_has_two_samples():
    copy = torch.zeros(2, 2, 2, dtype=torch.float64)
    copy[0, 0, 0] = copy[1, 1, 1] = 1
    born = with_cores([copy.sum(0, keepdim=True), *[copy] * 18, copy.sum(2, keepdim=True)])
    draws = born.sample(1000)
    assert set(draws.sum(1).tolist()) == {0.0, 20.0}
    assert abs(float(draws[:, 0].mean()) - 0.5) < 5 * 0.5 / 1000**0.5
    assert born.log_prob(draws).numpy() == pytest.approx(np.full(1000, -math.log(2)))
    x = torch.full((1, 20), torch.nan, dtype=torch.float64)
    x[0, 7] = 1
    assert born.impute(x).tolist() == [[1.0] * 20]
    assert born.mutual_information().numpy() == pytest.approx(np.full((20, 20), math.log(2)))
    x[0, 3] = 0
    assert born.log_prob(x).tolist() == [-math.inf]
    assert born.bond_entropies()[:9].numpy() == pytest.approx(np.full(9, math.log(2)))


def test_an_ising_chain_is_its_transfer_matrix():
    """psi = exp(-E / 2 T): the cores are the root of the transfer matrix, split over the bonds."""
    n, coupling, field = 60, 0.7, 0.2
    spins = np.array([-1.0, 1.0])
    transfer = np.exp(coupling * np.outer(spins, spins) + field * (spins[:, None] + spins) / 2)
    half = torch.from_numpy(np.sqrt(transfer))
    copy = torch.einsum("ij,ik->ijk", torch.eye(2).double(), torch.eye(2).double())
    inner = torch.einsum("lds,sr->ldr", copy, half)
    first = inner.sum(0, keepdim=True) * torch.from_numpy(np.exp(field * spins / 4)).view(1, 2, 1)
    last = copy.sum(2, keepdim=True) * torch.from_numpy(np.exp(field * spins / 4)).view(1, 2, 1)
    born = with_cores([first, *[inner] * (n - 2), last])
    ends = np.exp(field * spins / 2)
    partition = ends @ np.linalg.matrix_power(transfer, n - 1) @ ends
    x = torch.from_numpy(np.random.RandomState(0).randint(0, 2, (5, n)).astype(float))
    s = 2 * x.numpy() - 1
    wanted = coupling * (s[:, 1:] * s[:, :-1]).sum(1) + field * s.sum(1) - math.log(partition)
    assert born.log_prob(x).numpy() == pytest.approx(wanted, abs=1e-10)
    assert born(x)[:, 0].detach().numpy() == pytest.approx(wanted, abs=1e-10)
    left, right = np.linalg.matrix_power(transfer, 30), np.linalg.matrix_power(transfer, n - 31)
    magnetisation = (ends @ left) * (right @ ends) / partition
    assert born.marginal(30).density[0].numpy() == pytest.approx(magnetisation, abs=1e-10)


def test_a_hidden_markov_model_is_the_forward_algorithm():
    """Purified: a core of column x has a hidden leg k = (from, to), so that |psi|² is a sum over paths."""
    rng = np.random.RandomState(0)
    start, move, emit = rng.dirichlet(np.ones(3)), rng.dirichlet(np.ones(3), 3), rng.dirichlet(np.ones(4), 3)
    cores = []
    for site in range(40):
        source = 1 if site == 0 else 3
        core = np.zeros((source, 4, source * 3, 3))
        for i in range(source):
            for j in range(3):
                arrival = start[j] if site == 0 else move[i, j]
                core[i, :, 3 * i + j, j] = np.sqrt(arrival * emit[j])
        cores.append(torch.from_numpy(core))
    cores[-1] = cores[-1].permute(0, 1, 2, 3).flatten(2).unsqueeze(3)  # the last state is hidden, too
    state = BornState(cores, [levels(4, 4, step=1.0)] * 40, list(range(40)))
    x = torch.from_numpy(rng.randint(0, 4, (6, 40)).astype(float))
    x[3, 10:20] = torch.nan
    x[4, 0] = x[4, 39] = torch.nan

    def forward(row: np.ndarray) -> float:
        alpha = start.copy()
        for place, value in enumerate(row):
            alpha = alpha if place == 0 else alpha @ move
            alpha = alpha if np.isnan(value) else alpha * emit[:, int(value)]
        return math.log(alpha.sum())

    assert state.log_prob(x).numpy() == pytest.approx([forward(row) for row in x.numpy()], abs=1e-10)
    rho = state.densities(x)[12][3]
    weights = []
    for value in range(4):
        row = x[3].numpy().copy()
        row[12] = value
        weights.append(math.exp(forward(row)))
    assert rho.diagonal().real.numpy() == pytest.approx(np.array(weights) / sum(weights), abs=1e-10)


def test_a_normal_density_in_legendre_functions():
    """The root of a normal density of width 0.12 around 0.5, in 24 Legendre functions by quadrature."""
    basis = feature_map("legendre", dim=24)
    density = norm(0.5, 0.12)
    grid = np.polynomial.legendre.leggauss(200)
    points, weights = torch.from_numpy(grid[0] + 1) / 2, torch.from_numpy(grid[1]) / 2
    root = torch.from_numpy(np.sqrt(density.pdf(points.numpy())))
    amplitudes = (basis(points) * (weights * root).unsqueeze(1)).sum(0)
    state = BornState([amplitudes.view(1, -1, 1, 1)], [basis_of(basis, 24)], [0])
    x = torch.linspace(0.15, 0.85, 15, dtype=torch.float64)
    inside = density.cdf(1) - density.cdf(0)
    assert state.log_prob(x.unsqueeze(1)).numpy() == pytest.approx(
        density.logpdf(x.numpy()) - math.log(inside), abs=1e-4
    )
    rho = state.densities(torch.full((1, 1), torch.nan))[0].expand(4_000, -1, -1)
    uniform = torch.rand(4_000, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    draws = state.bases[0].draw(rho, uniform).sort().values.numpy()
    gap = np.abs(density.cdf(draws) - (np.arange(4_000) + 0.5) / 4_000).max()
    assert gap < 1.95 / 4_000**0.5, "Kolmogorov and Smirnov, at about 1e-3; the draws are seeded"
