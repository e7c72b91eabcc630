"""The state as a value: makers, overlaps, sums, products, operators, scales, gradients and bad input."""

import itertools
import math

import mps_oracles as oracles
import numpy as np
import pytest
import tensornetwork
import torch

from tnml import InputError
from tnml.mps import MatrixProductState
from tnml.shapes import check_cores

DTYPES = ["float64", "complex128"]
SIZES = [1, 2, 3, 4, 6, 9, 12]


def pair(n, dtype, physical=2):
    first = MatrixProductState.random(n, 5, physical, dtype=dtype, seed=1)
    second = MatrixProductState.random(n, 3, physical, dtype=dtype, kind="isometric", seed=2)
    return first * 3.0, second


def number(dtype):
    return 0.3 - 1.7j if dtype == "complex128" else -1.7


def operator(n, dtype, out=2, seed=3):
    generator = torch.Generator().manual_seed(seed)
    bonds = [1, *[3] * (n - 1), 1]
    return [
        torch.randn(l, out, 2, r, dtype=getattr(torch, dtype), generator=generator)
        for l, r in itertools.pairwise(bonds)
    ]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n", SIZES)
def test_inner_products_equal_those_of_dense_tensors(n, dtype):
    a, b = pair(n, dtype)
    x, y = oracles.of(a), oracles.of(b)
    assert oracles.relative(a.to_dense(), x) <= 1e-13
    expected = np.vdot(x, y)
    assert abs(a.inner(b).item() - expected) <= 1e-12 * np.linalg.norm(x) * np.linalg.norm(y)
    phase, log = a.log_inner(b)
    assert abs(phase.item() * math.exp(log) - expected) <= 1e-12 * np.linalg.norm(x)
    assert a.norm().item() == pytest.approx(np.linalg.norm(x), rel=1e-12)
    assert a.log_norm().item() == pytest.approx(math.log(np.linalg.norm(x)), abs=1e-12)
    fidelity = abs(expected) ** 2 / np.linalg.norm(x) ** 2 / np.linalg.norm(y) ** 2
    assert a.fidelity(b).item() == pytest.approx(fidelity, abs=1e-12)
    assert a.log_fidelity(b).item() == pytest.approx(math.log(fidelity), rel=1e-9)
    assert a.normalized().norm().item() == pytest.approx(1.0, rel=1e-13)
    assert oracles.relative(oracles.of(a.normalized()), x / np.linalg.norm(x)) <= 1e-13


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n", [2, 5, 10])
def test_norms_equal_those_of_tensornetwork(n, dtype):
    state, _ = pair(n, dtype)
    tensors = [core.numpy() for core in state.cores]
    left = tensornetwork.Node(np.ones((1, 1)), backend="numpy")
    right = tensornetwork.Node(np.ones((1, 1)), backend="numpy")
    kets = [tensornetwork.Node(t, backend="numpy") for t in tensors]
    bras = [tensornetwork.Node(t.conj(), backend="numpy") for t in tensors]
    for nodes, leg in ((kets, 0), (bras, 1)):
        edges = [left[leg], *(node[2] for node in nodes)]
        for edge, node in zip(edges, nodes, strict=False):
            tensornetwork.connect(edge, node[0])
        tensornetwork.connect(nodes[-1][2], right[leg])
    for ket, bra in zip(kets, bras, strict=True):
        tensornetwork.connect(ket[1], bra[1])
    value = tensornetwork.contractors.greedy([left, right, *kets, *bras]).tensor
    expected = complex(value) * math.exp(2 * state.log_scale)
    assert state.inner(state).item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n", [1, 2, 3, 7])
def test_algebra_equals_that_of_dense_tensors(n, dtype):
    a, b = pair(n, dtype)
    x, y, c = oracles.of(a), oracles.of(b), number(dtype)
    for found, expected in (
        (a + b, x + y),
        (a - b, x - y),
        (-a, -x),
        (c * a, c * x),
        (a * torch.tensor(c, dtype=a.dtype), c * x),
        (a * 0, 0 * x),
        (a.hadamard(b), x * y),
        (a.conj(), x.conj()),
        (a + a - a, x),
        (a.detach(), x),
    ):
        assert np.abs(oracles.of(found) - expected).max() <= 1e-12 * max(1.0, np.abs(x).max())
        assert found.dtype == a.dtype
    assert (a + b).bond_dims[1:-1] == [p + q for p, q in zip(a.bond_dims, b.bond_dims, strict=True)][1:-1]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n", [1, 2, 5, 8])
@pytest.mark.parametrize("out", [2, 3])
def test_operators_equal_dense_matrices(n, out, dtype):
    state, _ = pair(n, dtype)
    mpo = operator(n, dtype, out)
    expected = (oracles.dense_operator(mpo) @ oracles.of(state).reshape(-1)).reshape([out] * n)
    assert oracles.relative(oracles.of(state.apply(mpo)), expected) <= 1e-12
    assert oracles.relative(oracles.of(state.apply(mpo, max_error=0.0)), expected) <= 1e-12
    rough = state.apply(mpo, max_bond=2)
    assert max(rough.bond_dims) <= 2
    assert oracles.relative(oracles.of(rough), expected) < 1.0
    assert oracles.relative(oracles.of(state.apply(mpo, max_error=0.2)), expected) <= 0.2


def test_sites_may_differ_and_a_label_core_is_one_of_them():
    state = MatrixProductState.random(4, 3, [2, 10, 3, 2], seed=4)
    labelled = MatrixProductState(state.cores, log_scale=0.5, label_site=1)
    assert labelled.physical_dims == [2, 10, 3, 2]
    assert labelled.bond_dims == [1, 2, 3, 2, 1]
    dense = oracles.of(labelled)
    for made in (
        labelled.canonical(2),
        labelled.truncate().state,
        labelled * 1.0,
        MatrixProductState.from_dense(torch.from_numpy(dense), label_site=1),
    ):
        assert made.label_site == 1
        assert oracles.relative(oracles.of(made), dense) <= 1e-13
    assert "label_site=1" in repr(labelled)
    check_cores(labelled.cores, same_physical=False)
    with pytest.raises(InputError, match="core 1 has physical dimension 10, expected 2"):
        check_cores(labelled.cores)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n", SIZES)
def test_dense_tensors_come_back(n, dtype):
    tensor = oracles.of(MatrixProductState.random(n, 64, dtype=dtype, seed=5))
    state = MatrixProductState.from_dense(torch.from_numpy(tensor))
    assert oracles.relative(oracles.of(state), tensor) <= 1e-13
    assert MatrixProductState.from_dense(torch.from_numpy(oracles.w_state(n))).bond_dims == [
        1,
        *[2] * (n - 1),
        1,
    ]
    zero = MatrixProductState.from_dense(torch.zeros([2] * n))
    assert zero.bond_dims == [1] * (n + 1)
    assert zero.log_norm().item() == -math.inf


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_state_divided_summed_and_counted(dtype):
    one, other = (MatrixProductState.random(4, 3, dtype=dtype, seed=seed) for seed in (1, 2))
    x, y = oracles.of(one), oracles.of(other)
    numbers = [2, -0.5, np.float64(4.0), np.int64(3), torch.tensor(2.0), 1e-200, 1e200]
    for number in [*numbers, *([1 + 2j, torch.tensor(2j)] if dtype == "complex128" else [])]:
        divided = one / number
        assert divided.log_scale.isfinite()
        np.testing.assert_allclose(oracles.of(divided * number), x, rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(oracles.of(one / 2), x / 2, rtol=1e-13, atol=1e-15)
    np.testing.assert_allclose(oracles.of(sum([one, other, one])), 2 * x + y, rtol=1e-13, atol=1e-14)
    assert sum([one]) is one
    assert len(one) == 4
    assert one


def test_gradients_flow_to_a_divisor():
    divisor = torch.tensor(2.0, requires_grad=True)
    (MatrixProductState.random(3, 2) / divisor).norm().backward()
    norm = MatrixProductState.random(3, 2).norm()
    assert divisor.grad.item() == pytest.approx(-norm.item() / 4)


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        (lambda s: s / 0, "cannot be divided by zero"),
        (lambda s: s / torch.tensor(0.0), "cannot be divided by zero"),
        (lambda s: s / np.inf, "divided by a finite number, got inf"),
        (lambda s: s / 1j, "cannot be divided by a complex number"),
        (lambda s: s / s, "divided by a number, got MatrixProductState"),
        (lambda s: s / torch.ones(2), "divided by a number, got Tensor"),
        (lambda s: s + 1, "expected a MatrixProductState, got int"),
    ],
)
def test_what_a_state_cannot_be_divided_by(wrong, text):
    with pytest.raises(InputError, match=text):
        wrong(MatrixProductState.random(3, 2))


@pytest.mark.parametrize("other", [1, False, "a", None])
def test_nothing_but_the_zero_of_sum_can_be_added_to(other):
    with pytest.raises(TypeError):
        other + MatrixProductState.random(3, 2)
    with pytest.raises(TypeError):
        2 / MatrixProductState.random(3, 2)


def test_random_states_are_reproducible_and_of_norm_one():
    for kind in ("gaussian", "isometric"):
        a, b, c = (MatrixProductState.random(6, 4, kind=kind, seed=s) for s in (3, 3, 4))
        assert torch.equal(a.to_dense(), b.to_dense())
        assert not torch.equal(a.to_dense(), c.to_dense())
        single = MatrixProductState.random(6, 4, kind=kind, seed=3, dtype=torch.float32)
        assert torch.equal(a.cores[2].float(), single.cores[2])
    for dtype in DTYPES:
        isometric = MatrixProductState.random(9, 5, kind="isometric", dtype=dtype)
        assert isometric.norm().item() == pytest.approx(1.0, abs=1e-13)
        weights = [MatrixProductState.random(5, 3, dtype=dtype, seed=s).norm() ** 2 for s in range(300)]
        assert sum(weights).item() / 300 == pytest.approx(1.0, abs=0.15)


@pytest.mark.slow
def test_states_of_a_thousand_sites_keep_their_scale():
    small = MatrixProductState([torch.full((1, 2, 1), 1e-3, dtype=torch.float64)] * 1000)
    large = MatrixProductState([torch.full((1, 2, 1), 1e3, dtype=torch.float64)] * 1000)
    half = 500 * math.log(2)
    assert small.log_norm().item() == pytest.approx(1000 * math.log(1e-3) + half)
    assert large.log_norm().item() == pytest.approx(1000 * math.log(1e3) + half)
    assert small.log_inner(large)[1].item() == pytest.approx(2 * half)
    assert small.log_fidelity(large).item() == pytest.approx(0.0, abs=1e-8)
    assert (small + large).log_norm().item() == pytest.approx(large.log_norm().item())
    assert small.hadamard(large).log_norm().item() == pytest.approx(half)
    first, second = (MatrixProductState.random(1000, 4, seed=s) for s in (1, 2))
    for factor in (1e-30, 1e30):
        wild = MatrixProductState([core * factor for core in first.to("float32").cores], log_scale=3.0)
        expected = first.log_norm().item() + 1000 * math.log(factor) + 3
        assert wild.log_norm().item() == pytest.approx(expected, rel=1e-5)
        assert wild.canonical(999).log_norm().item() == pytest.approx(expected, rel=1e-5)
    tiny = small.to("float32") * 1e-200 * 1e-200 * 1e-200
    assert tiny.log_norm().item() == pytest.approx(small.log_norm().item() - 600 * math.log(10))
    for state in (large, first, small.to("float32")):
        expected = state.log_norm().item()
        assert state.canonical(500).log_norm().item() == pytest.approx(expected, rel=1e-5)
        truncated = state.truncate(max_bond=2)
        assert truncated.state.log_norm().item() <= expected + 1e-3
        assert 0 <= truncated.error <= 1
        assert torch.isfinite(state.entropies()).all()
    assert -5000 < first.log_fidelity(second).item() < -50


@pytest.mark.slow
@pytest.mark.parametrize("dtype", DTYPES)
def test_gradients_flow_to_every_core(dtype):
    a, b = pair(3, dtype)
    log_scale = torch.tensor(0.3, dtype=torch.float64)

    def made(log, *cores):
        return MatrixProductState(cores, log_scale=log)

    functions = [
        lambda s: torch.view_as_real(s.inner(b)) if b.dtype.is_complex else s.inner(b),
        lambda s: b.log_inner(s)[1],
        lambda s: s.log_norm(),
        lambda s: s.fidelity(b),
        lambda s: (s + b).log_norm(),
        lambda s: s.hadamard(b).log_norm(),
        lambda s: s.canonical(1).to_dense(),
        lambda s: s.normalized().to_dense(),
        lambda s: s.truncate(max_bond=1).state.to_dense(),
        lambda s: MatrixProductState.from_dense(s.to_dense(), max_bond=1).to_dense(),
        lambda s: s.entropies(),
        lambda s: s.entropies(2.0),
        lambda s: s.expectation({1: torch.diag(torch.tensor([1.0, -1.0])).to(s.dtype)}).real,
        lambda s: s.mutual_information(0, 2),
        lambda s: s.log_probability(torch.tensor([[0, 1, 0], [1, 1, 0]])),
    ]
    leaves = [core.clone().requires_grad_() for core in a.cores]
    for function in functions:
        inputs = (log_scale.clone().requires_grad_(), *leaves)
        assert torch.autograd.gradcheck(lambda *xs, f=function: f(made(*xs)), inputs, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("dtype", DTYPES)
def test_gradients_at_equal_and_zero_schmidt_values(dtype):
    """GHZ: all Schmidt values equal. Product: all but one zero, in bonds that are larger than needed."""
    ghz = MatrixProductState.from_dense(torch.from_numpy(oracles.ghz(4))).to(dtype)
    product = MatrixProductState.product(torch.ones(4, 2, dtype=torch.float64)).to(dtype)
    padded = product + product * 0.5
    for state in (ghz, padded):
        leaves = [core.clone().requires_grad_() for core in state.cores]
        made = MatrixProductState(leaves)
        found = made.truncate(max_bond=2).state.fidelity(pair(4, dtype)[1]) + made.entropies(2.0).sum()
        (found + made.entropies().sum() + made.vidal()[1][0].sum()).backward()
        assert all(torch.isfinite(leaf.grad).all() for leaf in leaves)
    leaves = [core.clone().requires_grad_() for core in ghz.cores]
    peer = pair(4, dtype)[1]
    assert torch.autograd.gradcheck(
        lambda *cores: MatrixProductState(cores).truncate(max_bond=2).state.fidelity(peer), leaves
    )


ONES = torch.ones(1, 2, 1)
STATE = MatrixProductState([ONES] * 3)
OTHER = MatrixProductState.random(4, 2)
PAULI = torch.eye(2)

BAD = {
    "no cores": (lambda: MatrixProductState([]), "at least one core"),
    "order": (lambda: MatrixProductState([torch.ones(2, 2)]), r"core 0 must be .* \(l, d, r\), got \(2, 2\)"),
    "bonds": (lambda: MatrixProductState([torch.ones(1, 2, 3), ONES]), "core 1 has left bond 1, expected 3"),
    "end": (lambda: MatrixProductState([torch.ones(1, 2, 3)]), "last core has right bond 3, expected 1"),
    "mixed dtypes": (lambda: MatrixProductState([ONES, ONES.double()]), "core 1 has dtype torch.float64"),
    "integers": (lambda: MatrixProductState([ONES.long()]), "core 0 has dtype torch.int64"),
    "nan": (lambda: MatrixProductState([ONES, ONES * torch.nan]), "core 1 holds NaN or infinite values"),
    "inf": (lambda: MatrixProductState([ONES * torch.inf]), "core 0 holds NaN or infinite values"),
    "empty": (lambda: MatrixProductState([torch.ones(1, 0, 1)]), "core 0 is empty"),
    "label": (lambda: MatrixProductState([ONES], label_site=1), "label_site must be .* 0 to 0, got 1"),
    "scale": (lambda: MatrixProductState([ONES], log_scale=math.inf), "one finite real number, got inf"),
    "scale type": (lambda: MatrixProductState([ONES], log_scale="1"), "log_scale must be a real number"),
    "sites": (lambda: MatrixProductState.random(0, 2), "n_sites must be .* at least 1, got 0"),
    "bond": (lambda: MatrixProductState.random(3, 0), "bond_dim must be .* at least 1, got 0"),
    "physical": (lambda: MatrixProductState.random(3, 2, [2, 2]), "3 sites, got 2"),
    "kind": (lambda: MatrixProductState.random(3, 2, kind="gausian"), "did you mean 'gaussian'"),
    "dtype": (lambda: MatrixProductState.random(3, 2, dtype="float23"), "unknown dtype 'float23'"),
    "vectors": (lambda: MatrixProductState.product([ONES]), r"vector 0 must be .* shape \[d\]"),
    "dense": (lambda: MatrixProductState.from_dense(torch.tensor(1.0)), "one axis .* per site"),
    "dense type": (lambda: MatrixProductState.from_dense(np.ones(2)), "torch tensor, got ndarray"),
    "dense dtype": (lambda: MatrixProductState.from_dense(torch.ones(2).int()), "unknown dtype 'int32'"),
    "dense nan": (lambda: MatrixProductState.from_dense(torch.tensor([torch.nan])), "holds NaN"),
    "center": (lambda: STATE.canonical(3), "center must be .* 0 to 2, got 3"),
    "negative center": (lambda: STATE.canonical(-1), "center must be .* got -1"),
    "max_bond 0": (lambda: STATE.truncate(max_bond=0), "max_bond must be a whole number, at least 1.* got 0"),
    "max_bond 1.5": (lambda: STATE.truncate(max_bond=1.5), r"max_bond must be .* got 1\.5"),
    "max_bond list": (lambda: STATE.truncate(max_bond=[1, 1, 1]), "2 inner bonds .* got 3"),
    "max_error": (lambda: STATE.truncate(max_error=-0.1), "max_error must be .* at least 0.* got -0.1"),
    "max_error nan": (lambda: STATE.truncate(max_error=math.nan), "max_error must be .* got nan"),
    "order of entropy": (lambda: STATE.entropies(0), "order of an entropy must be .* got 0"),
    "other dtype": (lambda: STATE.inner(STATE.to("float64")), "states differ in dtype"),
    "other size": (lambda: STATE + OTHER.to("float32"), "states differ in physical_dims"),
    "no state": (lambda: STATE.hadamard(torch.ones(2)), "expected a MatrixProductState, got Tensor"),
    "factor": (lambda: STATE * STATE, "multiplied by a number, got MatrixProductState"),
    "infinite factor": (lambda: STATE * math.inf, "a finite number, got inf"),
    "complex factor": (lambda: STATE * 1j, "multiplied by a complex number"),
    "to real": (lambda: STATE.to("complex64").to("float32"), "a complex state cannot become"),
    "large": (lambda: MatrixProductState.random(40, 1).to_dense(), r"1\.1e\+12 entries"),
    "zero": ((STATE * 0).normalized, "the state is zero"),
    "zero fidelity": (lambda: STATE.fidelity(STATE * 0), "the state is zero"),
    "zero values": ((STATE * 0).schmidt_values, "the state is zero"),
    "zero vidal": ((STATE * 0).vidal, "the state is zero"),
    "mpo length": (lambda: STATE.apply([]), "0 cores, expected 3"),
    "mpo order": (lambda: STATE.apply([ONES] * 3), r"operator core 0 must be .* \(l, o, i, r\)"),
    "mpo input": (lambda: STATE.apply([torch.ones(1, 2, 3, 1)] * 3), "input dimension 3, expected 2"),
    "mpo bond": (lambda: STATE.apply([torch.ones(1, 2, 2, 2)] * 3), "core 1 has left bond 1, expected 2"),
    "mpo dtype": (
        lambda: STATE.apply([torch.ones(1, 2, 2, 1).double()] * 3),
        "core 0 has dtype torch.float64",
    ),
}


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_clear_error(case):
    call, message = BAD[case]
    with pytest.raises(InputError, match=message):
        call()
