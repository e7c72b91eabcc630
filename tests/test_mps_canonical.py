"""Canonical forms, Schmidt values, entropies and truncation against dense tensors."""

import math

import mps_oracles as oracles
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tnml.mps import MatrixProductState, canonical

DTYPES = ["float64", "complex128"]


def random(n, dtype="float64", bond=6, physical=2, seed=1):
    return MatrixProductState.random(n, bond, physical, dtype=dtype, seed=seed) * 2.5


def padded(n, dtype="float64"):
    """A state with bonds larger than its rank: twice the same state."""
    state = random(n, dtype, bond=3)
    return state + state * 0.5


def decaying(n, dtype="float64", decay=3.0):
    """A dense tensor whose Schmidt values fall off."""
    generator = torch.Generator().manual_seed(n)
    tensor = torch.randn([2] * n, dtype=getattr(torch, dtype), generator=generator)
    grid = torch.stack(torch.meshgrid(*[torch.arange(2.0)] * n, indexing="ij")).sum(0)
    return MatrixProductState.from_dense(tensor * torch.exp(-decay * grid).to(tensor.dtype))


def identity_error(matrix):
    return np.abs(matrix - np.eye(len(matrix))).max()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("make", [random, padded])
@pytest.mark.parametrize("n", [1, 2, 3, 5, 8, 12])
def test_every_core_is_an_isometry_for_every_center(n, make, dtype):
    state = make(n, dtype)
    dense = oracles.of(state)
    for center in range(n):
        found = state.canonical(center)
        assert oracles.relative(oracles.of(found) if n < 9 else found.to_dense(), dense) <= 1e-13
        outwards = [2**i if i <= center else 2 ** (n - i) for i in range(n + 1)]
        assert all(bond <= most for bond, most in zip(found.bond_dims, outwards, strict=True))
        for site, core in enumerate(map(np.asarray, found.cores)):
            if site < center:
                assert identity_error(np.einsum("ldr,lds->rs", core.conj(), core)) <= 1e-13
            elif site > center:
                assert identity_error(np.einsum("ldr,mdr->lm", core, core.conj())) <= 1e-13
        assert np.linalg.norm(found.cores[center]) == pytest.approx(1.0, rel=1e-13)
        assert found.log_scale.item() == pytest.approx(math.log(np.linalg.norm(dense)), abs=1e-12)


def test_canonical_form_of_zero_and_of_extreme_states():
    zero = (random(4) * 0).canonical(2)
    assert torch.equal(zero.to_dense(), torch.zeros_like(zero.to_dense()))
    for factor in (1e-150, 1e150):
        state = MatrixProductState([core * factor for core in random(5).cores], log_scale=3.0)
        assert state.canonical(2).log_norm().item() == pytest.approx(state.log_norm().item(), rel=1e-13)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("make", [random, padded, decaying])
@pytest.mark.parametrize("n", [2, 3, 6, 10])
def test_schmidt_values_and_entropies_equal_those_of_dense_tensors(n, make, dtype):
    state = make(n, dtype)
    expected = oracles.schmidt(oracles.of(state))
    for found, exact in zip(state.schmidt_values(), expected, strict=True):
        size = min(len(found), len(exact))
        assert np.abs(found.numpy()[:size] - exact[:size]).max() <= 1e-13
        assert np.abs(exact[size:]).sum() <= 1e-13
        assert np.all(np.diff(found.numpy()) <= 0)
        assert found.square().sum().item() == pytest.approx(1.0, rel=1e-13)
    for order in (0.5, 1, 2, 3.5, math.inf):
        exact = [oracles.entropy(s**2, order) for s in expected]
        # The square root of rounding in zero probabilities counts at order 1/2.
        assert np.abs(state.entropies(order).numpy() - exact).max() <= (1e-12 if order >= 1 else 1e-6)
    assert np.allclose(state.effective_bond_dims().numpy(), np.exp(state.entropies().numpy()))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n", [2, 3, 7, 12])
def test_entropies_of_known_states(n, dtype):
    ghz = MatrixProductState.from_dense(torch.from_numpy(oracles.ghz(n))).to(dtype)
    w = MatrixProductState.from_dense(torch.from_numpy(oracles.w_state(n))).to(dtype)
    product = MatrixProductState.product(torch.rand(n, 2, dtype=torch.float64)).to(dtype)
    for order in (1, 2, math.inf):
        assert np.abs(ghz.entropies(order).numpy() - math.log(2)).max() <= 1e-12
        assert np.abs(product.entropies(order).numpy()).max() <= 1e-12
    expected = [oracles.entropy([cut / n, 1 - cut / n]) for cut in range(1, n)]
    assert np.abs(w.entropies().numpy() - expected).max() <= 1e-12
    assert np.allclose(ghz.effective_bond_dims(), 2.0)
    assert ghz.hadamard(ghz).truncate().state.bond_dims == [1, *[2] * (n - 1), 1]


def test_a_single_site_has_no_bonds():
    state = random(1)
    assert state.schmidt_values() == []
    assert state.entropies().shape == (0,)
    assert state.truncate(max_bond=1, max_error=0.1).error == 0.0
    gammas, values = state.vidal()
    assert values == []
    assert np.allclose(gammas[0].numpy(), state.cores[0].numpy() / np.linalg.norm(state.cores[0]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_renyi_entropies_of_orders_near_one_and_of_large_ones(dtype):
    p = torch.tensor([0.7, 0.2, 0.1, 0.0], dtype=dtype)
    tolerance = 1e-6 if dtype == torch.float32 else 1e-12
    shannon = canonical.spectrum_entropy(p).item()
    for order in (1 - 1e-12, 1 - 1e-7, 1 + 1e-9, 1 + 1e-6):
        assert abs(canonical.spectrum_entropy(p, order).item() - shannon) <= tolerance + abs(order - 1)
    for order in (0.5, 0.9 - 1e-9, 0.9 + 1e-9, 1.1 - 1e-9, 1.1 + 1e-9, 2.0, 30.0):
        exact = math.log(0.7**order + 0.2**order + 0.1**order) / (1 - order)
        assert abs(canonical.spectrum_entropy(p, order).item() - exact) <= 10 * tolerance
    assert abs(canonical.spectrum_entropy(p, 1e6).item() + math.log(0.7)) <= 1e-5
    free = p.clone().requires_grad_()
    for order in (1 + 1e-9, 0.95, 3.0):
        assert torch.isfinite(torch.autograd.grad(canonical.spectrum_entropy(free, order), free)[0]).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("make", [random, padded])
@pytest.mark.parametrize("n", [1, 2, 4, 8])
def test_vidal_form(n, make, dtype):
    state = make(n, dtype)
    dense = oracles.of(state)
    gammas, values = state.vidal()
    cores = [np.asarray(gamma) for gamma in gammas]
    whole = [core * np.asarray(s) for core, s in zip(cores, values, strict=False)] + [cores[-1]]
    assert oracles.relative(oracles.dense(whole), dense / np.linalg.norm(dense)) <= 1e-10
    for found, exact in zip(values, oracles.schmidt(dense), strict=True):
        assert np.abs(found.numpy() - exact[: len(found)]).max() <= 1e-13
    ends = [np.ones(1), *map(np.asarray, values), np.ones(1)]
    for site, gamma in enumerate(cores):
        left, right = ends[site].reshape(-1, 1, 1) * gamma, gamma * ends[site + 1]
        assert identity_error(np.einsum("ldr,lds->rs", left.conj(), left)) <= 1e-9
        assert identity_error(np.einsum("ldr,mdr->lm", right, right.conj())) <= 1e-9


def measured(state, truncated):
    return oracles.relative(truncated.to_dense(), state.to_dense())


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("make", [random, padded, decaying])
@pytest.mark.parametrize("n", [2, 3, 5, 8, 12])
def test_the_error_returned_is_the_error_made(n, make, dtype):
    state = make(n, dtype)
    for limits in (
        {"max_bond": 1},
        {"max_bond": 2},
        {"max_bond": 3, "max_error": 0.1},
        {"max_error": 0.3},
        {"max_error": 1e-2},
        {"max_error": 1e-6},
        {},
    ):
        truncated, error, discarded = state.truncate(**limits)
        assert error == pytest.approx(measured(state, truncated), abs=1e-10)
        assert error**2 == pytest.approx(sum(discarded), rel=1e-12)
        assert len(discarded) == n - 1
        assert max(truncated.bond_dims) <= limits.get("max_bond", 64)
        if "max_bond" not in limits:
            assert error <= limits.get("max_error", 1e-13)
        if limits == {}:
            assert all(p <= q for p, q in zip(truncated.bond_dims, state.bond_dims, strict=True))


@pytest.mark.parametrize("dtype", ["float32", "complex64"])
def test_single_precision_truncates_to_rounding(dtype):
    state = MatrixProductState.random(300, 12, dtype=dtype, seed=2)
    twice = (state + state * 0.5).truncate()
    assert max(twice.state.bond_dims) <= 14
    assert twice.error <= 1e-5
    assert twice.state.fidelity(state).item() == pytest.approx(1.0, abs=1e-4)
    assert state.truncate(max_error=1e-2).error <= 1e-2
    assert state.schmidt_values()[150].dtype == torch.float32


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n", [2, 4, 7])
def test_the_error_of_one_bond_is_its_schmidt_tail(n, dtype):
    state = random(n, dtype, bond=16)
    exact = oracles.schmidt(oracles.of(state))
    for bond in range(n - 1):
        for keep in range(1, len(exact[bond])):
            limits = [64] * (n - 1)
            limits[bond] = keep
            truncated, error, discarded = state.truncate(max_bond=limits)
            tail = np.linalg.norm(exact[bond][keep:])
            assert error == pytest.approx(tail, abs=1e-10)
            assert measured(state, truncated) == pytest.approx(tail, abs=1e-10)
            assert discarded[bond] == pytest.approx(tail**2, abs=1e-12)
            assert truncated.bond_dims[bond + 1] == keep


@pytest.mark.parametrize("dtype", DTYPES)
def test_truncation_of_dense_tensors_keeps_to_its_limits(dtype):
    tensor = decaying(8, dtype, decay=1.0).to_dense()
    for error in (0.5, 1e-2, 1e-8, 0.0):
        state = MatrixProductState.from_dense(tensor, max_error=error)
        assert oracles.relative(state.to_dense(), tensor) <= max(error, 1e-13)
    assert MatrixProductState.from_dense(tensor, max_bond=3).bond_dims == [1, 2, *[3] * 5, 2, 1]
    assert MatrixProductState.from_dense(tensor, max_bond=[2, 1, 2, 5, 4, 3, 2]).bond_dims[2] == 1


def test_a_truncated_state_of_rank_one_is_the_best_product_of_two_sites():
    state = random(2)
    u, s, vh = np.linalg.svd(state.to_dense().numpy())
    best = s[0] * np.outer(u[:, 0], vh[0])
    assert oracles.relative(state.truncate(max_bond=1).state.to_dense(), best) <= 1e-13


@settings(deadline=None, max_examples=40)
@given(
    dims=st.lists(st.integers(1, 4), min_size=1, max_size=5),
    bond=st.integers(1, 6),
    max_bond=st.integers(1, 4),
    max_error=st.floats(0, 1),
    seed=st.integers(0, 1000),
)
def test_any_state_keeps_its_promises(dims, bond, max_bond, max_error, seed):
    state = MatrixProductState.random(len(dims), bond, dims, dtype="complex128", seed=seed)
    dense = oracles.of(state)
    center = seed % len(dims)
    assert oracles.relative(oracles.of(state.canonical(center)), dense) <= 1e-12
    truncated, error, _ = state.truncate(max_error=max_error)
    assert error <= max_error + 1e-13
    assert error == pytest.approx(oracles.relative(oracles.of(truncated), dense), abs=1e-10)
    assert max(state.truncate(max_bond=max_bond).state.bond_dims) <= max_bond
