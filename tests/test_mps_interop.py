"""States to and from tensornetwork, and its graphs contracted, against tensornetwork on numpy and numpy."""

from itertools import pairwise

import numpy as np
import opt_einsum
import oracles
import pytest
import tensornetwork as tn
import torch

from tnml.contraction.einsum import find_path
from tnml.errors import InputError
from tnml.mps import (
    MatrixProductState,
    contract_nodes,
    from_finite_mps,
    from_nodes,
    to_finite_mps,
    to_nodes,
)

CASES = [
    (1, "float64", "numpy"),
    (2, "complex128", "numpy"),
    (5, "float64", "numpy"),
    (6, "complex128", "numpy"),
    (1, "float64", "pytorch"),
    (5, "float32", "pytorch"),
]


def make_state(sites: int, dtype: str, seed: int = 0, scale: float = 0.0) -> MatrixProductState:
    """Mixed physical dimensions 2, 3, 4, 2, .. and a scale."""
    generator = torch.Generator().manual_seed(seed)
    bonds = [1, *[3 + n % 2 for n in range(sites - 1)], 1]
    shapes = [(l, 2 + n % 3, r) for n, (l, r) in enumerate(pairwise(bonds))]
    cores = [torch.randn(shape, generator=generator, dtype=getattr(torch, dtype)) for shape in shapes]
    return MatrixProductState(cores, log_scale=scale)


def dense(state: MatrixProductState) -> np.ndarray:
    """The full tensor with the scale, by numpy."""
    cores = [core.detach().numpy() for core in state.cores]
    return oracles.dense_half(cores)[..., 0] * np.exp(state.log_scale.item())


@pytest.fixture(params=CASES, ids=str)
def case(request):
    sites, dtype, backend = request.param
    return make_state(sites, dtype, scale=1.5), backend, 1e-5 if dtype == "float32" else 1e-12


def test_finite_mps_and_back(case):
    state, backend, tolerance = case
    there = to_finite_mps(state, backend)
    assert there.backend.name == backend
    assert there.center_position is None
    assert there.physical_dimensions == state.physical_dims
    assert there.bond_dimensions == state.bond_dims
    tensors = [np.asarray(tensor) for tensor in there.tensors]
    assert oracles.relative(oracles.dense_half(tensors)[..., 0], dense(state)) <= tolerance
    back = from_finite_mps(there, label_site=0)
    assert (back.dtype, back.label_site, back.bond_dims) == (state.dtype, 0, state.bond_dims)
    assert oracles.relative(dense(back), dense(state)) <= tolerance


def test_nodes_and_back(case):
    state, backend, tolerance = case
    nodes = to_nodes(state, backend)
    assert [node.backend.name for node in nodes] == [backend] * state.n_sites
    dangling = [node["physical"] for node in nodes]
    assert {id(e) for e in tn.get_all_dangling(nodes)} == {id(e) for e in dangling}
    back = from_nodes(nodes, label_site=state.n_sites - 1)
    assert (back.dtype, back.label_site) == (state.dtype, state.n_sites - 1)
    assert oracles.relative(dense(back), dense(state)) <= tolerance
    assert oracles.relative(contract_nodes(nodes), dense(state)) <= tolerance
    theirs = tn.contractors.greedy(nodes, output_edge_order=dangling)
    assert oracles.relative(theirs.tensor, dense(state)) <= tolerance


@pytest.mark.parametrize("dtype", ["float64", "complex128"])
def test_norm_and_inner_product_are_tensornetworks_on_numpy(dtype):
    one, two = make_state(6, dtype, 1, 0.5), make_state(6, dtype, 2, -0.25)
    norm = to_finite_mps(one).canonicalize(normalize=False)
    assert one.norm().item() == pytest.approx(norm, rel=1e-12)
    assert norm == pytest.approx(np.linalg.norm(dense(one)), rel=1e-12)
    inner = inner_product(to_nodes(one), to_nodes(two))
    assert inner == pytest.approx(np.vdot(dense(one), dense(two)), rel=1e-12)
    assert one.inner(two).item() == pytest.approx(inner, rel=1e-12)


def inner_product(bra: list[tn.Node], ket: list[tn.Node]) -> complex:
    """<bra|ket> by tensornetwork alone, on the backend of the nodes."""
    conjugated, plain = tn.copy(bra, conjugate=True)[0], tn.copy(ket)[0]
    for left, right in zip(bra, ket, strict=True):
        conjugated[left]["physical"] ^ plain[right]["physical"]
    return tn.contractors.greedy([*conjugated.values(), *plain.values()]).tensor.item()


@pytest.mark.parametrize("backend", ["numpy", "pytorch"])
def test_conjugation_where_tensornetwork_is_wrong(backend):
    """tensornetwork's pytorch backend gives sum psi phi for <psi|phi>; the way through tnml does not."""
    one, two = make_state(4, "complex128", 1), make_state(4, "complex128", 2)
    right, wrong = np.vdot(dense(one), dense(two)), np.sum(dense(one) * dense(two))
    if backend == "pytorch":
        with pytest.warns(UserWarning, match="does not conjugate"):
            bra, ket = to_nodes(one, backend), to_nodes(two, backend)
        with pytest.warns(UserWarning, match="does not conjugate"):
            there = to_finite_mps(two, backend)
    else:
        bra, ket, there = to_nodes(one), to_nodes(two), to_finite_mps(two)
    theirs = inner_product(bra, ket)
    assert theirs == pytest.approx(wrong if backend == "pytorch" else right, rel=1e-12)
    assert abs(right - wrong) > 0.1 * abs(right)
    assert from_nodes(bra).inner(from_nodes(ket)).item() == pytest.approx(right, rel=1e-12)
    assert from_nodes(bra).inner(from_finite_mps(there)).item() == pytest.approx(right, rel=1e-12)


def test_environments_of_a_complex_finite_mps_are_wrong_on_pytorch():
    """What the warning says, seen at FiniteMPS: its environment is not Hermitian there."""
    state = make_state(3, "complex128")
    with pytest.warns(UserWarning, match="does not conjugate"):
        wrong = np.asarray(to_finite_mps(state, "pytorch").left_envs([1])[1])
    right = np.asarray(to_finite_mps(state).left_envs([1])[1])
    assert oracles.relative(right, right.conj().T) <= 1e-12
    assert oracles.relative(wrong, wrong.conj().T) > 0.1


@pytest.mark.parametrize("backend", ["numpy", "pytorch"])
def test_nothing_is_shared(backend):
    """FiniteMPS divides its tensors in place."""
    state = make_state(3, "float64")
    before = dense(state)
    there, nodes = to_finite_mps(state, backend), to_nodes(state, backend)
    back = [from_finite_mps(there), from_nodes(nodes)]
    for tensor in [*there.tensors, *[node.tensor for node in nodes]]:
        tensor[...] = 0
    for again in [state, *back]:
        assert np.array_equal(dense(again), before)


def test_gradients_flow_through_pytorch():
    state = make_state(3, "float64")
    cores = [core.clone().requires_grad_() for core in state.cores]

    def norms(*cores):
        mine = MatrixProductState(list(cores), log_scale=0.3)
        again, nodes = from_finite_mps(to_finite_mps(mine, "pytorch")), to_nodes(mine, "pytorch")
        return contract_nodes(to_nodes(again, "pytorch")).sum() + contract_nodes(nodes).square().sum()

    assert torch.autograd.gradcheck(norms, cores)


def test_long_states_keep_their_scale():
    cores = [torch.full((1, 2, 1), 1.0, dtype=torch.float64)] * 1000
    state = MatrixProductState(cores, log_scale=-2000.0)
    back = from_finite_mps(to_finite_mps(state))
    assert back.log_norm().item() == pytest.approx(-2000 + 500 * np.log(2), rel=1e-12)
    with pytest.raises(InputError, match=r"does not fit torch\.float64; convert the normalized state"):
        to_finite_mps(MatrixProductState(cores[:2], log_scale=-2000.0))
    with pytest.raises(InputError, match=r"exp\(2000\) over 2 cores"):
        to_nodes(MatrixProductState(cores[:2], log_scale=2000.0))


def node(
    *shape: int, seed: int = 0, dtype: str = "complex128", backend: str = "numpy", name: str | None = None
):
    random = np.random.default_rng(seed)
    tensor = random.standard_normal(shape)
    if dtype == "complex128":
        tensor = tensor + 1j * random.standard_normal(shape)
    return tn.Node(torch.from_numpy(tensor) if backend == "pytorch" else tensor, name=name, backend=backend)


@pytest.mark.parametrize("dtype", ["float64", "complex128"])
@pytest.mark.parametrize("backend", ["numpy", "pytorch"])
def test_ring(backend, dtype):
    nodes = [node(2, 3, 2, seed=n, dtype=dtype, backend=backend) for n in range(4)]
    for n in range(4):
        nodes[n][2] ^ nodes[(n + 1) % 4][0]
    arrays = [np.asarray(n.tensor) for n in nodes]
    expected = np.einsum("aib,bjc,ckd,dla->lijk", *arrays)
    order = [nodes[3][1], nodes[0][1], nodes[1][1], nodes[2][1]]
    for given in (nodes, set(nodes)):
        assert oracles.relative(contract_nodes(given, order), expected) <= 1e-12
    assert oracles.relative(contract_nodes(nodes), expected.transpose(1, 2, 3, 0)) <= 1e-12
    assert all(n.tensor is not None for n in nodes), "the graph is still there"
    theirs = tn.contractors.optimal(nodes, output_edge_order=order)
    assert oracles.relative(theirs.tensor, expected) <= 1e-12


def test_peps_norm():
    """<psi|psi> of a 2x2 projected entangled pair state, both layers one graph."""
    arrays = [np.asarray(node(3, 2, 2, seed=n).tensor) for n in range(4)]
    layers = [
        [tn.Node(a, backend="numpy") for a in arrays],
        [tn.Node(a.conj(), backend="numpy") for a in arrays],
    ]
    for layer in layers:
        for n in range(4):
            layer[n][2] ^ layer[(n + 1) % 4][1]
    for ket, bra in zip(*layers, strict=True):
        ket[0] ^ bra[0]
    psi = np.einsum("iab,jbc,kcd,lda->ijkl", *arrays)
    result = contract_nodes({*layers[0], *layers[1]})
    assert result.shape == ()
    assert result.item() == pytest.approx(np.vdot(psi, psi), rel=1e-12)
    with pytest.raises(InputError, match="memory_limit is 3"):
        contract_nodes([*layers[0], *layers[1]], memory_limit=3)


def test_path_is_found_once_for_graphs_built_alike(monkeypatch):
    searches, original = [], opt_einsum.contract_path
    find_path.cache_clear()
    monkeypatch.setattr(
        opt_einsum, "contract_path", lambda *a, **o: searches.append(a[0]) or original(*a, **o)
    )
    for seed in range(3):
        nodes = [node(2, 7, 2, seed=seed + n) for n in range(5)]
        for n in range(5):
            nodes[n][2] ^ nodes[(n + 1) % 5][0]
        contract_nodes(nodes)
    assert len(searches) == 1


def test_trace_edges_parallel_edges_and_parts():
    one, two, three = node(2, 3, 2, 4, seed=1), node(4, 3, 5, seed=2), node(2, seed=3)
    one[0] ^ one[2]
    one[1] ^ two[1]
    one[3] ^ two[0]
    expected = np.einsum("abac,cbd,e->ed", one.tensor, two.tensor, three.tensor)
    assert oracles.relative(contract_nodes([one, two, three], [three[0], two[2]]), expected) <= 1e-12


def test_copy_nodes_are_one_index():
    """A batch through a copy node: as a dense tensor it would have 200^4 elements."""
    batch, size = 200, 3
    random = np.random.default_rng(0)
    arrays = [random.standard_normal((batch, size)) for _ in range(3)]
    core = random.standard_normal((size,) * 3)
    nodes, middle = [tn.Node(a, backend="numpy") for a in arrays], tn.Node(core, backend="numpy")
    copy = tn.CopyNode(4, batch, backend="numpy")
    for n, vectors in enumerate(nodes):
        vectors[0] ^ copy[n]
        vectors[1] ^ middle[n]
    result = contract_nodes([*nodes, middle, copy], [copy[3]])
    assert oracles.relative(result, np.einsum("na,nb,nc,abc->n", *arrays, core)) <= 1e-12


def test_copy_nodes_where_one_index_is_not_enough():
    vector = node(3)
    copy = tn.CopyNode(3, 3, backend="numpy")
    copy[0] ^ vector[0]
    assert oracles.relative(contract_nodes([copy, vector]), np.diag(vector.tensor)) <= 1e-15
    left, right = tn.CopyNode(2, 3, backend="numpy"), tn.CopyNode(2, 3, backend="numpy")
    left[0] ^ right[0]
    left[1] ^ right[1]
    assert contract_nodes([left, right]).item() == 3


def test_bad_graphs():
    one, two = node(2, 3, name="one"), node(3, 2, name="two")
    bond = one[1] ^ two[0]
    with pytest.raises(
        InputError, match=r"axis 1 of node 0 \('one'\) is connected to node 'two', which is not"
    ):
        contract_nodes([one])
    with pytest.raises(InputError, match="2 edges dangle and a set has no order; give output_edge_order"):
        contract_nodes({one, two})
    with pytest.raises(
        InputError, match="each of the 2 dangling edges of the nodes once, got 1 edges, 1 of them"
    ):
        contract_nodes([one, two], [one[0]])
    with pytest.raises(InputError, match="got 3 edges, 2 of them dangling"):
        contract_nodes([one, two], [one[0], two[1], bond])
    with pytest.raises(InputError, match=r"node 0 \('one'\) comes twice"):
        contract_nodes([one, two, one])
    with pytest.raises(InputError, match="at least one node"):
        contract_nodes([])
    with pytest.raises(InputError, match="expected tensornetwork nodes, got ndarray at position 1"):
        contract_nodes([one, np.ones(2)])
    two.tensor = np.ones((4, 2), dtype=complex)
    with pytest.raises(
        InputError, match=r"axis 1 of node 0 \('one'\) has dimension 3, expected 4 as in axis 0"
    ):
        contract_nodes([one, two])
    two.tensor = np.ones((3, 2))
    with pytest.raises(InputError, match=r"operand 1 has dtype torch\.float64, expected torch\.complex128"):
        contract_nodes([one, two])
    with pytest.raises(InputError, match="node 0 has dtype int64, expected floating point or complex"):
        contract_nodes([tn.Node(np.ones(2, dtype=int), backend="numpy")])


def test_axes_of_nodes_may_lie_in_any_order():
    arrays = [node(2, 1, 3, seed=1).tensor, node(4, 3, 2, seed=2).tensor, node(2, 4, 1, seed=3).tensor]
    first, second, third = (tn.Node(array, backend="numpy") for array in arrays)
    first[2] ^ second[1]
    second[0] ^ third[1]
    state = from_nodes([first, second, third])
    assert state.bond_dims == [1, 3, 4, 1]
    assert oracles.relative(dense(state), np.einsum("iaq,bqj,kbx->ijk", *arrays)) <= 1e-12


def test_nodes_that_are_no_open_chain():
    ring = [node(2, 2, 2, seed=n) for n in range(3)]
    for n in range(3):
        ring[n][2] ^ ring[(n + 1) % 3][0]
    with pytest.raises(InputError, match="axis 0 of node 0 is connected to node 2, expected neighbours only"):
        from_nodes(ring)
    nodes = to_nodes(make_state(3, "float64"))
    with pytest.raises(
        InputError, match=r"axis 1 of node 0 \('site 0'\) is connected to node 2 \('site 1'\)"
    ):
        from_nodes([nodes[0], nodes[2], nodes[1]])
    with pytest.raises(InputError, match="is connected to node 'site 2', which is not among the nodes"):
        from_nodes(nodes[:2])
    with pytest.raises(InputError, match="node 0 has 0 bonds to the node after, expected 1"):
        from_nodes([node(2), node(2)])
    with pytest.raises(InputError, match="node 0 has 2 dangling edges, expected 1"):
        from_nodes([node(2, 3)])
    looped = node(2, 3, 3)
    looped[1] ^ looped[2]
    with pytest.raises(InputError, match="axis 1 of node 0 is connected to node 0, expected neighbours only"):
        from_nodes([looped])
    one, two = node(2, 3, 3), node(3, 3, 2)
    one[1] ^ two[0]
    one[2] ^ two[1]
    with pytest.raises(InputError, match="2 bonds to the node after, expected 1; flatten parallel edges"):
        from_nodes([one, two])


def test_bad_backends_and_states():
    state = make_state(3, "float64")
    for convert in (to_nodes, to_finite_mps):
        with pytest.raises(InputError, match="unknown backend 'torch'"):
            convert(state, "torch")
    with pytest.raises(InputError, match="expected a tensornetwork FiniteMPS, got list"):
        from_finite_mps(state.cores)
    open_ends = tn.FiniteMPS([np.ones((2, 2, 1))], canonicalize=False, backend="numpy")
    with pytest.raises(InputError, match="left bond 2, expected 1"):
        from_finite_mps(open_ends)
    symmetric = tn.FiniteMPS([np.ones((1, 2, 1))], canonicalize=False, backend="numpy")
    symmetric.backend = tn.backends.backend_factory.get_backend("symmetric")
    with pytest.raises(
        InputError, match="tensor 0 is of tensornetwork's backend 'symmetric', expected numpy or"
    ):
        from_finite_mps(symmetric)
