"""Born machines against enumeration: norms, probabilities, conditionals, samples and information."""

import copy
import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from born_cases import CASES, LEVELS, agrees, machine, table
from scipy.stats import chi2

import tnml
from tnml.contraction import ChainShape
from tnml.contraction.norm import chain_log_norm, reference_ends
from tnml.errors import InputError
from tnml.features import feature_map
from tnml.features.orthonormal import orthonormal, quadrature
from tnml.nn import BornMachine, MPSLayer

EXACT = 1e-10


def gaps(every: torch.Tensor, rows: int = 6) -> torch.Tensor:
    """Some samples with values left out: none, one, several, all."""
    generator = torch.Generator().manual_seed(1)
    x = every[torch.randint(0, len(every), (rows,), generator=generator)].clone()
    hidden = torch.rand(x.shape, generator=generator) < torch.linspace(0, 1, rows).unsqueeze(1)
    x[hidden] = torch.nan
    x[-1] = torch.nan
    return x


@pytest.mark.parametrize("name", CASES)
def test_probabilities_are_those_of_the_dense_amplitude(name):
    born = machine(name)
    every, p = table(born)
    found = born(every)[:, 0]
    assert found.detach().exp().numpy() == pytest.approx(p, abs=EXACT)
    assert born.log_prob(every).exp().numpy() == pytest.approx(p, abs=EXACT)
    x = gaps(every)
    wanted = [p[agrees(every, row)].sum() for row in x]
    assert born.log_prob(x).exp().numpy() == pytest.approx(wanted, abs=EXACT)
    assert born.anomaly_score(x).numpy() == pytest.approx(-np.log(wanted), abs=EXACT)
    if born.classes is not None:
        unknown = every.clone()
        unknown[:, -1] = -1
        every[:, -1] = torch.nan
        wanted = [p[agrees(table(born)[0], row)].sum() for row in every[:5]]
        assert born(unknown[:5])[:, 0].detach().exp().numpy() == pytest.approx(wanted, abs=EXACT)


@pytest.mark.parametrize("name", CASES)
def test_conditionals_gaps_and_surprises_are_those_of_the_table(name):
    born = machine(name)
    every, p = table(born)
    x = gaps(every)
    for column in range(born.n_columns):
        found = born.conditional(x, column)
        open_ = x.clone()
        open_[:, column] = torch.nan
        for row, density in zip(open_, found.density, strict=True):
            masses = [p[agrees(every, row) & (every[:, column] == v).numpy()].sum() for v in found.values]
            assert density.numpy() == pytest.approx(np.array(masses) / sum(masses), abs=EXACT)
    surprise, means, modes = born.surprise(x), born.impute(x), born.impute(x, "mode")
    medians = born.impute(x, "median")
    for i, row in enumerate(x):
        for column in range(born.n_columns):
            values = born.marginal(column).values
            if torch.isnan(row[column]):
                assert torch.isnan(surprise[i, column])
                inside = p * agrees(every, row)
                assert float(means[i, column]) == pytest.approx(
                    inside @ every[:, column].numpy() / inside.sum()
                )
                masses = [inside[(every[:, column] == v).numpy()].sum() for v in values]
                assert float(modes[i, column]) == float(values[int(np.argmax(masses))])
                half = np.cumsum(masses) >= 0.5 * sum(masses)
                assert float(medians[i, column]) == float(values[int(half.argmax())])
            else:
                open_ = row.clone()
                open_[column] = torch.nan
                share = p[agrees(every, row)].sum() / p[agrees(every, open_)].sum()
                assert float(surprise[i, column]) == pytest.approx(-np.log(share), abs=EXACT)
                assert float(means[i, column]) == float(row[column])


@pytest.mark.parametrize("name", CASES)
def test_samples_have_the_probabilities_of_the_table(name):
    """Pearson's statistic of cells of expected count above 5, below its 1 - 1e-6 quantile; seeded."""
    born = machine(name)
    every, p = table(born)
    given = torch.full((born.n_columns,), torch.nan, dtype=torch.float64)
    given[1] = every[0, 1]
    for draws, inside in (
        (born.sample(4000), np.ones(len(p), bool)),
        (born.sample(2000, given=given), agrees(every, given)),
        (born.sample(2000, given=torch.stack([given, every[3]]))[:, 0], agrees(every, given)),
        (born.impute(given.expand(2000, -1), "draw", seed=3), agrees(every, given)),
    ):
        share = np.where(inside, p, 0) / p[inside].sum()
        place = (draws.unsqueeze(1) == every).all(2)
        assert bool(place.any(1).all())
        counts = place.sum(0).numpy()
        assert counts[~inside].sum() == 0
        large = len(draws) * share > 5
        observed = np.append(counts[large], counts[~large].sum())
        expected = len(draws) * np.append(share[large], max(share[~large].sum(), 1e-9))
        statistic = ((observed - expected) ** 2 / expected).sum()
        assert statistic < chi2.ppf(1 - 1e-6, len(observed) - 1)
    assert torch.equal(born.sample(5, seed=7), born.sample(5, seed=7))
    both = born.sample(3, given=torch.stack([given, every[3]]))
    assert torch.equal(both[:, 1], every[3].expand(3, -1)), "nothing is missing there"


@pytest.mark.parametrize("name", ["real", "all"])
def test_information_is_that_of_the_table(name):
    born = machine(name)
    every, p = table(born)

    def entropy(*columns: int) -> float:
        _, groups = np.unique(every[:, list(columns)].numpy(), axis=0, return_inverse=True)
        masses = np.bincount(groups.ravel(), weights=p)
        return float(-(masses[masses > 0] * np.log(masses[masses > 0])).sum())

    found = born.mutual_information().numpy()
    alone = [entropy(i) for i in range(born.n_columns)]
    assert born.entropy().numpy() == pytest.approx(alone, abs=EXACT)
    assert np.diag(found) == pytest.approx(alone, abs=EXACT)
    for i in range(born.n_columns):
        for j in range(i):
            wanted = alone[i] + alone[j] - entropy(i, j)
            assert found[i, j] == pytest.approx(wanted, abs=EXACT)
            assert found[j, i] == found[i, j]
    assert (born.bond_entropies() >= 0).all()


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
@pytest.mark.parametrize(
    ("left", "right"),
    [((1, 2, 3, 3, 3, 3, 3), (3, 3, 3, 3, 3, 2, 1)), ((1, 2), (3, 4, 2, 1)), ((1,), (2, 1))],
)
def test_the_norm_and_its_gradients(left, right, dtype):
    shape = ChainShape(2, left, right)
    generator = torch.Generator().manual_seed(0)
    weight, label = (
        torch.randn(*size, dtype=dtype, generator=generator).requires_grad_()
        for size in ((shape.n_weights,), (left[-1], 2, right[0]))
    )
    tensor = torch.ones(1, 1, dtype=dtype)
    cores = [core.transpose(0, 1) for core in shape.split(weight)]
    for core in (*cores[: shape.label_site], label, *cores[shape.label_site :]):
        tensor = torch.einsum("pl,ldr->pdr", tensor, core).flatten(0, 1)
    wanted = tensor.abs().square().sum().log()
    found = chain_log_norm(weight, label, shape)
    assert found.item() == pytest.approx(wanted.item(), abs=1e-12)
    pairs = zip(
        *(torch.autograd.grad(f, (weight, label), retain_graph=True) for f in (found, wanted)), strict=True
    )
    for one, other in pairs:
        assert torch.allclose(one, other, rtol=1e-10, atol=1e-12)
    if shape.n_weights < 60:
        function = lambda w, l: chain_log_norm(w, l, shape)  # noqa: E731
        assert torch.autograd.gradcheck(function, (weight, label))
        assert torch.autograd.gradgradcheck(function, (weight, label), fast_mode=True)
    hand, plain = (
        chain_log_norm(weight, label, shape),
        torch.func.vmap(lambda w: chain_log_norm(w, label, shape)),
    )
    assert torch.allclose(plain(weight.unsqueeze(0))[0], hand)


def test_the_ends_are_hermitian_and_a_wrong_size_is_refused():
    shape = ChainShape(2, (1, 2, 3), (3, 2, 1))
    weight = torch.randn(shape.n_weights, dtype=torch.complex128, generator=torch.Generator().manual_seed(0))
    left, right, _ = reference_ends(weight, shape)
    assert torch.allclose(left, left.mH)
    assert torch.allclose(right, right.mH)
    with pytest.raises(InputError, match=r"expected 32 weights and a label core \(3, c, 3\)"):
        chain_log_norm(weight[1:], torch.ones(3, 1, 3), shape)


def test_long_chains_are_the_same_in_double_precision():
    born = BornMachine(500, 2, noise=0.3)
    x = torch.randint(0, 2, (2, 500), generator=torch.Generator().manual_seed(0)).float()
    assert born(x)[:, 0].tolist() == pytest.approx(born.log_prob(x).tolist(), rel=1e-4)


@pytest.mark.slow
def test_ten_thousand_sites_are_finite():
    born = BornMachine(10_000, 2, noise=0.3)
    x = torch.randint(0, 2, (2, 10_000), generator=torch.Generator().manual_seed(0)).float()
    log = born(x)
    (-log.mean()).backward()
    assert torch.isfinite(log).all()
    assert torch.isfinite(born.psi.weight.grad).all()
    for scale in (30.0, 1 / 900):  # 2^98,000 in the norm, and then 2^-98,000
        with torch.no_grad():
            born.psi.weight.mul_(scale)
        assert float(born(x).detach()[0, 0]) == pytest.approx(float(log.detach()[0, 0]), rel=1e-3)


@pytest.mark.parametrize("name", ["linear", "rbf", "trigonometric", "polynomial", "legendre", "fourier"])
def test_an_orthonormal_map_spans_the_same_functions(name):
    plain = feature_map(name)
    basis = orthonormal(plain)
    x, w = quadrature()
    values = basis(x)
    assert torch.allclose(
        values.T @ (w[:, None] * values), torch.eye(basis.dim, dtype=torch.float64), atol=1e-9
    )
    mixing = torch.linalg.lstsq(values, plain(x)).solution
    assert torch.allclose(values @ mixing, plain(x), atol=1e-9)
    assert (basis.identity is None) == (plain.identity is None and name == "trigonometric")
    if basis.identity is not None:
        assert torch.allclose(
            values @ torch.tensor(basis.identity, dtype=torch.float64), torch.ones(256).double(), atol=1e-5
        )
    assert orthonormal(basis) is basis
    y = x.clone().requires_grad_()
    (slope,) = torch.autograd.grad(basis(y)[:, -1].sum(), y)
    assert torch.allclose(slope, basis.derivative(x)[:, -1], atol=1e-9)


@pytest.mark.parametrize("features", ["linear", {"name": "legendre", "dim": 4}, {"name": "rbf", "dim": 3}])
def test_densities_of_numbers_integrate_to_one(features):
    born = BornMachine(2, 3, features=features, noise=1.0, dtype="float64")
    x, w = quadrature(12, 4)
    grid = torch.cartesian_prod(x, x)
    p = born(grid)[:, 0].detach().exp().view(len(x), len(x))
    assert float(w @ p @ w) == pytest.approx(1, abs=1e-9)
    missing = torch.stack([x, torch.full_like(x, torch.nan)], 1)
    assert torch.allclose(born.log_prob(missing).exp(), p @ w, atol=1e-9)
    given = born.conditional(missing[[7]], 1)
    assert float(given.density @ given.weights) == pytest.approx(1, abs=1e-9)
    mean = float(p[7] @ (w * x) / (p[7] @ w))
    assert float(born.impute(missing[[7]])[0, 1]) == pytest.approx(mean, abs=1e-9)
    draws = born.sample(4000, given=missing[7])[:, 1]
    spread = float((p[7] @ (w * x**2) / (p[7] @ w) - mean**2).sqrt())
    assert float(draws.mean()) == pytest.approx(mean, abs=5 * spread / 4000**0.5)
    pair = p / (p @ w)[:, None] / (w @ p)[None]
    joint = w[:, None] * p * w
    assert float(born.mutual_information()[0, 1]) == pytest.approx(
        float((joint * pair.log()).sum()), abs=1e-4
    )


def test_padding_stays_empty():
    born = machine("real").start_(table(machine("real"))[0])
    dims = [LEVELS[column] for column in born.psi.order.tolist()]
    for core, dim in zip(born.psi.cores, dims, strict=True):
        assert not core[:, dim:].any()
    (-born(table(born)[0]).mean()).backward()
    for core, dim in zip(born.psi.chain_shape.split(born.psi.weight.grad), dims, strict=True):
        assert not core[dim:].any(), "what is zero has no gradient"


@pytest.mark.parametrize("name", ["real", "all"])
def test_files_copies_and_pickles_hold_every_bit(name, tmp_path: Path):
    born = machine(name)
    every, _ = table(born)
    born.save(tmp_path / "born.safetensors")
    json.dumps(born.config)
    fresh = BornMachine(**born.config)
    fresh.load_state_dict(born.state_dict())
    for other in (
        tnml.load(tmp_path / "born.safetensors"),
        copy.deepcopy(born),
        pickle.loads(pickle.dumps(born)),
        fresh,
    ):
        assert type(other) is BornMachine
        assert torch.equal(other(every), born(every))
        assert other.config == born.config
    again = machine(name, seed=1)
    again.load_state_dict(born.state_dict())
    assert torch.equal(again(every), born(every))
    again.reset_parameters()
    assert not torch.equal(again(every), born(every))


def test_bad_input_is_refused():
    born = machine("classes")
    for bad, text in (
        (torch.zeros(2, 5), r"expected samples \[b, 6\], got \[2, 5\]"),
        (torch.full((1, 6), 3.0), "the last column is the class, 0 to 2 or negative, got 3"),
    ):
        with pytest.raises(InputError, match=text):
            born(bad)
    with pytest.raises(InputError, match="infinite"):
        born.log_prob(torch.full((1, 6), torch.inf))
    with pytest.raises(InputError, match="unknown how 'meen'; did you mean 'mean'"):
        born.impute(torch.zeros(1, 6), "meen")
    with pytest.raises(InputError, match="column must be a whole number, from 0 to 5, got 6"):
        born.conditional(torch.zeros(1, 6), 6)
    with pytest.raises(InputError, match="classes must be a whole number, at least 2"):
        BornMachine(3, classes=1)
    assert isinstance(born.psi, MPSLayer)
