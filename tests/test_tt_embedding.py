"""TTEmbedding stands where torch.nn.Embedding stands: rows, gradients, padding, conversion, bad indices."""

import copy
import math
import pickle
import re

import numpy as np
import pytest
import torch
import tt_oracles
from forks import complete
from torch import nn

from tnml.errors import InputError
from tnml.nn import TTEmbedding

SHAPES = [  # rows, columns, options
    (12, 8, {"rank": 3}),
    (13, 7, {"rank": 2}),
    (30, 12, {"rank": (2, 4), "n_cores": 3}),
    (29, 11, {"rank": 3, "n_cores": 3}),
    (9, 10, {"rank": 3, "row_factors": (5, 2), "column_factors": (3, 4)}),
    (5, 3, {"n_cores": 1}),
    (1, 1, {}),
    (6, 1, {"rank": 2}),
]


def double(rows, columns, options, **more):
    return TTEmbedding(rows, columns, dtype=torch.float64, **options, **more)


def table_of(table):
    dense = tt_oracles.matrix([core.detach().double().numpy() for core in table.cores])
    return dense[: table.num_embeddings, : table.embedding_dim]


@pytest.mark.parametrize(("rows", "columns", "options"), SHAPES)
def test_every_row_is_that_of_the_table(rows, columns, options):
    table = double(rows, columns, options)
    dense = table_of(table)
    everything = torch.arange(rows)
    assert np.allclose(table(everything).detach(), dense, rtol=0, atol=1e-13)
    assert np.allclose(table.weight.detach(), dense, rtol=0, atol=1e-13)
    assert np.allclose(table.to_embedding()(everything).detach(), dense, rtol=0, atol=1e-13)


@pytest.mark.parametrize("lead", [(), (0,), (3,), (2, 0), (2, 3), (2, 1, 3)])
@pytest.mark.parametrize("dtype", [torch.int64, torch.int32])
def test_leading_axes(lead, dtype, generator):
    table = double(30, 12, {"rank": 3, "n_cores": 3})
    indices = torch.randint(30, lead, generator=generator).to(dtype)
    rows = table(indices)
    assert rows.shape == (*lead, 12)
    assert np.allclose(rows.detach(), table_of(table)[indices.numpy()], rtol=0, atol=1e-13)
    rows.sum().backward()
    assert all(core.grad.shape == core.shape for core in table.cores)
    assert all(bool(core.grad.any()) == (math.prod(lead) > 0) for core in table.cores)


@pytest.mark.parametrize(("rows", "columns", "options"), SHAPES)
def test_gradients_are_those_of_the_table(rows, columns, options, generator):
    """W is linear in every core: the gradient of an entry is that of W against W with this entry 1 alone."""
    table = double(rows, columns, options)
    indices = torch.randint(rows, (7,), generator=generator)
    out = torch.randn(7, columns, generator=generator, dtype=torch.float64)
    table(indices).backward(out)
    of_table = np.zeros((rows, columns))
    np.add.at(of_table, indices.numpy(), out.numpy())  # indices come more than once
    cores = [core.detach().numpy() for core in table.cores]
    for place, core in enumerate(table.cores):
        expected = np.zeros(core.shape)
        for index in np.ndindex(*core.shape):
            unit = np.zeros(core.shape)
            unit[index] = 1
            moved = tt_oracles.matrix([*cores[:place], unit, *cores[place + 1 :]])
            expected[index] = np.sum(of_table * moved[:rows, :columns])
        assert np.allclose(core.grad, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("padding", [None, 2])
def test_second_gradients(padding):
    table = double(13, 7, {"rank": 2, "n_cores": 3, "padding_idx": padding})
    indices = torch.tensor([[0, 12, 2], [5, 5, 12]])

    def rows(*cores):
        names = (f"cores.{place}" for place in range(3))
        return torch.func.functional_call(table, dict(zip(names, cores, strict=True)), (indices,))

    cores = tuple(table.cores)
    assert torch.autograd.gradcheck(rows, cores, fast_mode=True)
    assert torch.autograd.gradgradcheck(rows, cores, fast_mode=True)


@pytest.mark.parametrize("padding", [4, -9])
def test_padding_gives_zeros_and_no_gradient(padding):
    table = double(13, 8, {"rank": 3, "padding_idx": padding})
    assert table.padding_idx == 4
    rows = table(torch.tensor([4, 3, 4]))
    assert rows[[0, 2]].count_nonzero() == 0
    assert rows[1].count_nonzero() == 8
    assert torch.equal(table.weight[4], torch.zeros(8, dtype=torch.float64))
    table(torch.tensor([4, 4])).sum().backward()
    assert not any(bool(core.grad.any()) for core in table.cores)
    dense = table.to_embedding()
    assert dense.padding_idx == 4
    assert torch.equal(dense.weight, table.weight)


@pytest.mark.parametrize(("rows", "columns", "options"), [*SHAPES, (5000, 64, {"rank": 4})])
@pytest.mark.parametrize("std", [1.0, 0.02])
def test_starting_entries_have_exactly_their_mean_square(rows, columns, options, std):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        table = double(rows, columns, options, std=std)
        torch.manual_seed(3)
        again = double(rows, columns, options, std=std)
    assert table.weight.square().mean().item() == pytest.approx(std**2, rel=1e-10)
    assert torch.equal(table.weight, again.weight)
    table.reset_parameters()
    assert table.weight.square().mean().item() == pytest.approx(std**2, rel=1e-10)
    assert not torch.equal(table.cores[0], again.cores[0])


@pytest.mark.parametrize(("rows", "columns"), [(12, 8), (13, 7), (101, 20)])
@pytest.mark.parametrize("padding", [None, 3])
@pytest.mark.parametrize("filled", [False, True], ids=["zeros", "filled"])
def test_from_embedding_tells_the_error_it_makes(rows, columns, padding, filled):
    dense = nn.Embedding(rows, columns, padding_idx=padding, dtype=torch.float64)
    if filled:
        nn.init.ones_(dense.weight)
        dense.weight.data += 0.1 * torch.randn_like(dense.weight)
    for limits in ({"rank": 2}, {"max_error": 0.3}, {"rank": 10_000}):
        table, error = TTEmbedding.from_embedding(dense, **limits)
        change = torch.linalg.vector_norm(table.weight - dense.weight)
        assert abs(error - change / torch.linalg.vector_norm(dense.weight)) <= 1e-10
        assert table.padding_idx == padding
        if "rank" in limits and not filled:
            assert (error <= 1e-12) == (limits["rank"] > 2)


@pytest.mark.parametrize(("rows", "columns", "options"), SHAPES)
def test_truncate_tells_the_error_it_makes(rows, columns, options):
    table = double(rows, columns, options)
    for limits in ({"rank": 1}, {"rank": 2}, {"max_error": 0.5}):
        smaller, error = table.truncate(**limits)
        change = torch.linalg.vector_norm(smaller.weight - table.weight)
        assert abs(error - change / torch.linalg.vector_norm(table.weight)) <= 1e-10
        assert smaller.rank <= limits.get("rank", table.rank)
        assert error <= limits.get("max_error", 1.5) + 1e-12


def test_what_a_conversion_keeps():
    dense = nn.Embedding(12, 8, padding_idx=1, dtype=torch.float64).requires_grad_(False).eval()
    before = torch.get_rng_state()
    table, _ = TTEmbedding.from_embedding(dense, rank=3, row_factors=(2, 6), column_factors=(4, 2))
    assert (table.shape.outs, table.shape.ins) == ((2, 6), (4, 2))
    assert not table.training
    assert [(core.dtype, core.requires_grad) for core in table.cores] == [(torch.float64, False)] * 2
    assert not table.to_embedding().weight.requires_grad
    table.cores[1].requires_grad_(True)
    smaller, _ = table.truncate(rank=2)
    assert [core.requires_grad for core in smaller.cores] == [False, True]
    assert (smaller.training, smaller.padding_idx) == (False, 1)
    back = smaller.to_embedding()
    assert (back.training, back.weight.requires_grad) == (False, True)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("options", [{}, {"row_factors": 14, "column_factors": 8}, {"padding_idx": 3}])
def test_a_dense_table_shares_no_memory(count, options):
    if "row_factors" in options:
        options = {"row_factors": [1] * (count - 1) + [14], "column_factors": [8] + [1] * (count - 1)}
    table = double(12, 8, {"n_cores": count, **options})
    before, dense = table.weight.detach().clone(), table.to_embedding()
    assert dense.weight.is_contiguous()
    assert dense.weight.untyped_storage().nbytes() == 12 * 8 * 8
    dense.weight.data.fill_(7.0)
    assert torch.equal(table.weight, before)


def test_sizes_and_padding_by_numpy():
    sizes = np.array([12, 8])
    table = TTEmbedding(sizes[0], sizes[1], rank=sizes[1] // 4, padding_idx=sizes[1] - 9, std=np.float32(0.5))
    assert repr(table) == repr(TTEmbedding(12, 8, rank=2, padding_idx=-1))
    assert [type(n) for n in (table.num_embeddings, table.embedding_dim, table.padding_idx)] == [int] * 3
    assert table.std == 0.5


def test_a_table_of_a_trillion_entries(generator):
    rows, columns = 2**28, 4096
    table = TTEmbedding(rows, columns, rank=4, n_cores=4)
    assert table.n_parameters < 200_000
    indices = torch.tensor([0, rows - 1, 123_456_789])
    found = table(indices).detach()
    assert found.shape == (3, columns)
    for index, row in zip(indices.tolist(), found, strict=True):
        product = np.ones((1, 1))
        for core in table.cores:  # the last digit changes fastest
            stride = math.prod(other.shape[1] for other in list(table.cores)[table_place(table, core) + 1 :])
            slices = core.detach().double().numpy()[:, index // stride % core.shape[1]]
            product = np.einsum("ql,lir->qir", product, slices).reshape(-1, slices.shape[2])
        assert np.allclose(row, product[:, 0], rtol=0, atol=1e-5 * np.abs(product).max())


def table_place(table, core):
    return next(place for place, other in enumerate(table.cores) if other is core)


def test_state_dict_copies_and_dtypes():
    one, two = TTEmbedding(13, 7, rank=3), TTEmbedding(13, 7, rank=3)
    two.load_state_dict(one.state_dict())
    assert torch.equal(one.weight, two.weight)
    with pytest.raises(RuntimeError, match=r"size mismatch for cores\.0"):
        TTEmbedding(13, 7, rank=2).load_state_dict(one.state_dict())
    for other in (copy.deepcopy(one), pickle.loads(pickle.dumps(one))):
        assert torch.equal(other.weight, one.weight)
        assert repr(other) == repr(one)
    assert one.to(torch.float64)(torch.tensor([3])).dtype == torch.float64
    assert TTEmbedding(13, 7, device="meta")(torch.empty(3, dtype=torch.int64, device="meta")).shape == (3, 7)


def test_text():
    table = TTEmbedding(101, 64, rank=4, padding_idx=-1)
    expected = "TTEmbedding(101 -> 102 = 17 x 6 (padded), 64 = 8 x 8, ranks=(1, 4, 1), padding_idx=100)"
    assert repr(table) == expected
    assert (table.num_embeddings, table.embedding_dim, table.rank) == (101, 64, 4)


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")
def test_torch_func(generator):
    table = double(13, 7, {"rank": 3, "padding_idx": 1})
    parameters = dict(table.named_parameters())
    indices = torch.tensor([0, 12, 1, 5])

    def loss(parameters, indices):
        return torch.func.functional_call(table, parameters, (indices,)).square().sum()

    each = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0))(parameters, indices)
    for sample, index in enumerate(indices):
        alone = torch.autograd.grad(loss(parameters, index), list(parameters.values()))
        for name, one in zip(parameters, alone, strict=True):
            assert torch.allclose(each[name][sample], one)
    towards = {name: torch.randn_like(p) for name, p in parameters.items()}
    value, slope = torch.func.jvp(lambda p: loss(p, indices), (parameters,), (towards,))
    gradient = torch.func.grad(loss)(parameters, indices)
    assert torch.allclose(value, loss(parameters, indices))
    assert torch.allclose(slope, sum((gradient[n] * towards[n]).sum() for n in parameters))


COMPILED = """
import torch
from tnml.nn import TTEmbedding
table = TTEmbedding(101, 12, rank=3, padding_idx=2)
indices = torch.tensor([[3, 2, 100], [0, 3, 77]])
expected = torch.autograd.grad(table(indices).square().sum(), list(table.parameters()))
compiled = torch.compile(table, fullgraph=True, backend="aot_eager")
found = torch.autograd.grad(compiled(indices).square().sum(), list(table.parameters()))
assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(found, expected))
dynamic = torch.compile(table, fullgraph=True, dynamic=True, backend="aot_eager")
assert torch.allclose(dynamic(indices.reshape(-1)), table(indices.reshape(-1)), atol=1e-6)
try:
    compiled(torch.tensor([[101, 0, 0], [0, 0, 0]]))  # within the padding of 102 rows
except (IndexError, RuntimeError) as error:
    print(error)
"""


@pytest.mark.slow
def test_torch_compile_takes_the_layer_whole():
    shown = complete(["-c", COMPILED])
    assert re.fullmatch(
        r"(INDICES element is out of DATA bounds, id=\d+ axis_dim=\d+|index out of range).*\n", shown
    ), shown


@pytest.mark.usefixtures("unchecked")
class TestBadInput:
    @pytest.mark.parametrize("indices", [[-1], [101], [0, 5, 110], [10**12]])
    def test_indices_out_of_range(self, indices):
        """101 lies in the padding, where the cores do have a row."""
        with pytest.raises(
            InputError, match=rf"in 0 \.\. 100, got some from {min(indices)} to {max(indices)}"
        ):
            TTEmbedding(101, 8)(torch.tensor(indices))

    @pytest.mark.parametrize("dtype", [torch.float32, torch.bool, torch.complex64])
    def test_indices_that_are_no_integers(self, dtype):
        with pytest.raises(InputError, match="expected indices of an integer dtype, got torch"):
            TTEmbedding(12, 8)(torch.ones(3, dtype=dtype))

    @pytest.mark.parametrize("padding", [12, -13, 1.0, True])
    def test_padding_idx(self, padding):
        with pytest.raises(InputError, match="padding_idx must be a whole number, from -12 to 11, got"):
            TTEmbedding(12, 8, padding_idx=padding)

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ((0, 8, {}), "num_embeddings must be a whole number, at least 1, got 0"),
            ((12, 0, {}), "embedding_dim must be a whole number, at least 1, got 0"),
            ((12, 8, {"row_factors": (2, 5)}), "row_factors must be at least 12, got 2 x 5 = 10"),
            ((12, 8, {"column_factors": (2, 3)}), "column_factors must be at least 8, got 2 x 3 = 6"),
            ((12, 8, {"std": 0.0}), "std must be a number, above 0"),
        ],
    )
    def test_arguments(self, arguments, message):
        rows, columns, options = arguments
        with pytest.raises(InputError, match=message):
            TTEmbedding(rows, columns, **options)

    def test_tables_that_cannot_be_kept(self):
        with pytest.raises(InputError, match=r"expected a torch.nn.Embedding, got Linear"):
            TTEmbedding.from_embedding(nn.Linear(3, 3), rank=1)
        with pytest.raises(InputError, match=r"max_norm=2\.0"):
            TTEmbedding.from_embedding(nn.Embedding(4, 4, max_norm=2.0), rank=1)
        with pytest.raises(InputError, match=r"sparse=True, .*; set sparse to False first"):
            TTEmbedding.from_embedding(nn.Embedding(4, 4, sparse=True), rank=1)
        with pytest.raises(InputError, match=r"scale_grad_by_freq=True, .*; set scale_grad_by_freq to False"):
            TTEmbedding.from_embedding(nn.Embedding(4, 4, scale_grad_by_freq=True), rank=1)
        with pytest.raises(InputError, match="a limit is needed"):
            TTEmbedding.from_embedding(nn.Embedding(4, 4))
