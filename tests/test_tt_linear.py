"""TTLinear stands where torch.nn.Linear stands: values, gradients, start, conversion, bad input."""

import copy
import math

import numpy as np
import pytest
import torch
import tt_oracles
from torch import nn

from tnml.contraction import PLANS
from tnml.errors import InputError
from tnml.nn import TTLinear

SHAPES = [  # in, out, options
    (12, 8, {"rank": 3}),
    (13, 7, {"rank": 2}),
    (12, 8, {"rank": (2, 4), "n_cores": 3}),
    (10, 9, {"rank": 3, "in_factors": (3, 4), "out_factors": (5, 2), "bias": False}),
    (8, 16, {"rank": 2, "n_cores": 4}),
    (5, 3, {"n_cores": 1}),
    (1, 1, {"rank": 4}),
    (1, 6, {"rank": 2}),
]


def numpy_cores(layer):
    return [core.detach().double().numpy() for core in layer.cores]


def dense_of(layer):
    return tt_oracles.matrix(numpy_cores(layer))[: layer.out_features, : layer.in_features]


def double(columns, rows, options, **more):
    return TTLinear(columns, rows, dtype=torch.float64, **options, **more)


@pytest.mark.parametrize("plan", PLANS)
@pytest.mark.parametrize(("columns", "rows", "options"), SHAPES)
def test_outputs_are_those_of_the_matrix(columns, rows, options, plan, generator):
    layer = double(columns, rows, options, plan=plan)
    dense = dense_of(layer)
    assert np.allclose(layer.weight.detach(), dense, rtol=0, atol=1e-14)
    x = torch.randn(4, columns, generator=generator, dtype=torch.float64)
    bias = 0 if layer.bias is None else layer.bias.detach().numpy()
    assert np.allclose(layer(x).detach(), x.numpy() @ dense.T + bias, rtol=0, atol=1e-13)
    assert np.allclose(layer.to_linear()(x).detach(), x.numpy() @ dense.T + bias, rtol=0, atol=1e-13)


@pytest.mark.parametrize("plan", PLANS)
@pytest.mark.parametrize(("columns", "rows", "options"), SHAPES)
def test_gradients_are_those_of_the_matrix(columns, rows, options, plan, generator):
    """W is linear in every core: the gradient of an entry is that of W against W with this entry 1 alone."""
    layer = double(columns, rows, options, plan=plan)
    x = torch.randn(3, columns, generator=generator, dtype=torch.float64, requires_grad=True)
    out = torch.randn(3, rows, generator=generator, dtype=torch.float64)
    layer(x).backward(out)
    assert np.allclose(x.grad, out.numpy() @ dense_of(layer), rtol=0, atol=1e-13)
    of_weight = out.numpy().T @ x.detach().numpy()
    cores = numpy_cores(layer)
    for place, core in enumerate(layer.cores):
        expected = np.zeros(core.shape)
        for index in np.ndindex(*core.shape):
            unit = np.zeros(core.shape)
            unit[index] = 1
            moved = tt_oracles.matrix([*cores[:place], unit, *cores[place + 1 :]])
            expected[index] = np.sum(of_weight * moved[:rows, :columns])
        assert np.allclose(core.grad, expected, rtol=0, atol=1e-12)
    if layer.bias is not None:
        assert torch.allclose(layer.bias.grad, out.sum(0))


@pytest.mark.parametrize("plan", PLANS)
@pytest.mark.parametrize(("columns", "rows", "options"), SHAPES[:5])
def test_second_gradients(columns, rows, options, plan, generator):
    layer = double(columns, rows, options, plan=plan)
    names, parameters = zip(*layer.named_parameters(), strict=True)
    x = torch.randn(2, columns, generator=generator, dtype=torch.float64, requires_grad=True)

    def outputs(x, *parameters):
        return torch.func.functional_call(layer, dict(zip(names, parameters, strict=True)), (x,))

    assert torch.autograd.gradcheck(outputs, (x, *parameters), fast_mode=True)
    assert torch.autograd.gradgradcheck(outputs, (x, *parameters), fast_mode=True)


@pytest.mark.parametrize("plan", PLANS)
@pytest.mark.parametrize("lead", [(), (0,), (3,), (2, 0), (2, 3), (2, 1, 3)])
def test_leading_axes(lead, plan, generator):
    layer = double(12, 8, {"rank": 3}, plan=plan)
    x = torch.randn(*lead, 12, generator=generator, dtype=torch.float64, requires_grad=True)
    y = layer(x)
    assert y.shape == (*lead, 8)
    expected = nn.functional.linear(x, layer.weight, layer.bias)
    assert torch.allclose(y, expected, rtol=0, atol=1e-13)
    y.sum().backward()
    assert x.grad.shape == x.shape
    assert layer.bias.grad.tolist() == [float(math.prod(lead))] * 8
    assert all(core.grad.shape == core.shape for core in layer.cores)


def test_inputs_that_are_not_contiguous(generator):
    layer = double(12, 8, {"rank": 3})
    x = torch.randn(12, 5, 2, generator=generator, dtype=torch.float64).permute(2, 1, 0)
    assert torch.allclose(layer(x), layer(x.contiguous()))


@pytest.mark.parametrize(
    ("columns", "rows", "options"), [*SHAPES, (784, 512, {}), (101, 997, {"rank": 20}), (2000, 30, {})]
)
@pytest.mark.parametrize("std", [None, 0.7])
def test_starting_weights_have_exactly_their_mean_square(columns, rows, options, std):
    layer = double(columns, rows, options, std=std)
    dense = layer.weight.detach().numpy()
    expected = 1 / (3 * columns) if std is None else std**2
    assert np.mean(dense**2) == pytest.approx(expected, rel=1e-10)
    if layer.bias is not None:
        assert layer.bias.abs().max() <= 1 / math.sqrt(columns)


def test_starting_cores_are_gaussians_of_one_size():
    """Moments of 40 draws: mean 0, kurtosis 3, and the variance that the ranks ask for."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        draws = [TTLinear(256, 256, rank=4, n_cores=2, bias=False) for _ in range(40)]
    for place in range(2):
        values = torch.stack([layer.cores[place].detach() for layer in draws]).double()
        variance = values.square().mean()
        assert abs(values.mean()) < 0.02 * variance.sqrt()  # four standard deviations
        assert values.pow(4).mean() / variance**2 == pytest.approx(3, abs=0.15)
        assert variance == pytest.approx(math.sqrt(1 / (3 * 256) / 4), rel=0.05)


def test_starting_weights_come_from_torchs_random_state():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        first, second = TTLinear(12, 8), TTLinear(12, 8)
        torch.manual_seed(1)
        again = TTLinear(12, 8)
        assert torch.equal(first.weight, again.weight)
        assert torch.equal(first.bias, again.bias)
        assert not torch.equal(first.weight, second.weight)
        before = first.weight.detach()
        torch.manual_seed(1)
        again.reset_parameters()
        assert torch.equal(again.weight, before)


def test_conversions_draw_no_random_numbers(generator):
    linear, before = nn.Linear(12, 8), torch.get_rng_state()
    layer, _ = TTLinear.from_linear(linear, rank=3)
    layer.truncate(rank=2)
    layer.to_linear()
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(("columns", "rows"), [(12, 8), (13, 7), (101, 50), (1, 5)])
@pytest.mark.parametrize("count", [1, 2, 3])
def test_from_linear_tells_the_error_it_makes(columns, rows, count):
    linear = nn.Linear(columns, rows, dtype=torch.float64)
    for limits in ({"rank": 2}, {"max_error": 0.3}, {"rank": 4, "max_error": 1e-3}):
        layer, error = TTLinear.from_linear(linear, n_cores=count, **limits)
        change = torch.linalg.vector_norm(layer.weight - linear.weight)
        assert abs(error - change / torch.linalg.vector_norm(linear.weight)) <= 1e-10
        assert layer.rank <= limits.get("rank", 10**6)
        assert "rank" in limits or error <= 0.3
        assert torch.equal(layer.bias, linear.bias)
        assert layer.bias is not linear.bias


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_full_rank_gives_the_dense_layer(count, generator):
    linear = nn.Linear(60, 40)
    layer, error = TTLinear.from_linear(linear, rank=10_000, n_cores=count)
    x = torch.randn(20, 60, generator=generator)
    assert error <= 1e-6
    assert (layer(x) - linear(x)).abs().max() <= 2e-6 * linear(x).abs().max()


def test_what_a_conversion_keeps():
    linear = nn.Linear(12, 8, bias=False, dtype=torch.float64).requires_grad_(False).eval()
    layer, _ = TTLinear.from_linear(linear, rank=3, in_factors=(2, 6), out_factors=(4, 2), plan="right")
    assert (layer.shape.ins, layer.shape.outs, layer.plan) == ((2, 6), (4, 2), "right")
    assert not layer.training
    assert layer.bias is None
    assert {p.dtype for p in layer.parameters()} == {torch.float64}
    assert not any(p.requires_grad for p in layer.parameters())
    back = layer.to_linear()
    assert (back.training, back.bias, back.weight.requires_grad) == (False, None, False)
    layer.cores[1].requires_grad_(True)
    smaller, _ = layer.truncate(rank=2)
    assert [core.requires_grad for core in smaller.cores] == [False, True]
    assert (smaller.training, smaller.plan, smaller.bias) == (False, layer.plan, None)
    assert smaller.to_linear().weight.requires_grad
    frozen = nn.Linear(12, 8)
    frozen.bias.requires_grad_(False)
    layer, _ = TTLinear.from_linear(frozen, rank=3)
    assert {n: p.requires_grad for n, p in layer.named_parameters()} == {
        "bias": False,
        "cores.0": True,
        "cores.1": True,
    }
    assert not layer.truncate(rank=1).layer.bias.requires_grad
    assert layer.training


@pytest.mark.parametrize(("columns", "rows", "options"), SHAPES)
def test_truncate_tells_the_error_it_makes(columns, rows, options):
    layer = double(columns, rows, options)
    before = copy.deepcopy(layer.state_dict())
    for limits in ({"rank": 1}, {"rank": 2}, {"max_error": 0.5}, {"max_error": 0.0}):
        smaller, error = layer.truncate(**limits)
        change = torch.linalg.vector_norm(smaller.weight - layer.weight)
        assert abs(error - change / torch.linalg.vector_norm(layer.weight)) <= 1e-10
        assert smaller.rank <= limits.get("rank", layer.rank)
        assert error <= limits.get("max_error", 1.5) + 1e-12
    assert all(torch.equal(layer.state_dict()[name], before[name]) for name in before)


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("outs", [8, 10], ids=["whole", "padded"])
def test_a_dense_layer_shares_no_memory(count, outs):
    factors = {"out_factors": [outs] + [1] * (count - 1), "in_factors": [1] * (count - 1) + [outs + 4]}
    layer = double(12, 8, factors)
    before, linear = copy.deepcopy(layer.state_dict()), layer.to_linear()
    assert linear.weight.is_contiguous()
    assert linear.weight.untyped_storage().nbytes() == 12 * 8 * 8
    for parameter in linear.parameters():
        parameter.data.fill_(7.0)
    assert all(torch.equal(layer.state_dict()[name], before[name]) for name in before)


def test_sizes_and_ranks_by_numpy():
    layer = TTLinear(np.int64(12), np.int32(8), rank=np.int64(2), n_cores=np.int64(2), std=np.float32(0.5))
    assert repr(layer) == repr(TTLinear(12, 8, rank=2))
    assert (type(layer.in_features), type(layer.out_features), type(layer.std)) == (int, int, float)
    assert TTLinear.from_linear(nn.Linear(12, 8), rank=np.int64(2)).layer.rank == 2
    assert layer.truncate(max_error=np.float32(0.5)).error <= 0.5


def test_large_padded_layers_start_with_their_mean_square():
    """Rank 64 at sizes that are padded: the matrix of 4001 x 4003 in parts of its rows."""
    layer = TTLinear(4001, 4003, rank=64, n_cores=3, std=0.5, bias=False, dtype=torch.float64)
    first, *others = layer.cores
    square, (_, *outs), known = 0.0, layer.shape.outs, 0
    for core in first.detach().split(1, dim=1):
        part = core[0, 0]
        for other in others:
            part = torch.einsum("...l,lpjr->...pjr", part, other.detach())
        rows = part[..., 0].permute(1, 3, 0, 2, 4).reshape(math.prod(outs), -1)
        rows = rows[: max(0, 4003 - known), :4001]
        square, known = square + rows.square().sum().item(), known + math.prod(outs)
    assert square / (4001 * 4003) == pytest.approx(0.25, rel=1e-12)


def test_a_fit_trains_like_any_layer(generator):
    """A dense layer, compressed and trained towards itself: the error falls below that of the TT-SVD."""
    linear = nn.Linear(16, 16, dtype=torch.float64)
    layer, _ = TTLinear.from_linear(linear, rank=4, n_cores=3)
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.01)
    losses = []
    for _ in range(100):
        loss = (layer.weight - linear.weight.detach()).square().sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.99 * losses[0]


def test_names_and_text():
    layer = TTLinear(256, 101, rank=4)
    assert repr(layer) == "TTLinear(256 = 16 x 16, 101 -> 102 = 17 x 6 (padded), ranks=(1, 4, 1), bias=True)"
    assert (layer.in_features, layer.out_features, layer.rank, layer.ranks) == (256, 101, 4, (1, 4, 1))
    assert layer.n_parameters == 4 * 16 * 17 + 4 * 16 * 6 + 101
    assert repr(TTLinear(4, 4, rank=1, plan="dense")).endswith("ranks=(1, 1, 1), bias=True, plan='dense')")
    assert TTLinear(12, 8, rank=100).ranks == (1, 8, 1)


def test_a_matrix_that_would_fill_terabytes(generator):
    size = 2**20
    layer = TTLinear(size, size, rank=4, n_cores=6)
    x = torch.randn(2, size, generator=generator)
    y = layer(x)
    assert y.shape == (2, size)
    # sum over random inputs of unit variance: the mean square of W times the number of inputs
    assert (y - layer.bias).square().mean().item() == pytest.approx(1 / 3, rel=0.2)
    assert layer.truncate(rank=2).layer.rank == 2


@pytest.mark.usefixtures("unchecked")
class TestBadInput:
    @pytest.mark.parametrize("shape", [(), (11,), (3, 11), (12, 3), (3, 0)])
    def test_inputs_of_another_size(self, shape):
        with pytest.raises(InputError, match=r"expected inputs \[\.\.\., 12\], got \["):
            TTLinear(12, 8)(torch.zeros(shape))

    @pytest.mark.parametrize("std", [0, -1.0, float("nan"), float("inf"), "1", True])
    def test_std(self, std):
        with pytest.raises(InputError, match="std must be a number, above 0, got"):
            TTLinear(12, 8, std=std)

    def test_plan(self):
        with pytest.raises(InputError, match="unknown plan 'lefft'; did you mean 'left'"):
            TTLinear(12, 8, plan="lefft")

    def test_sizes_name_their_argument(self):
        with pytest.raises(InputError, match="in_features must be a whole number, at least 1, got 0"):
            TTLinear(0, 8)
        with pytest.raises(InputError, match="out_features must be a whole number, at least 1, got -1"):
            TTLinear(3, -1)

    def test_what_is_no_linear_layer(self):
        with pytest.raises(InputError, match=r"expected a torch.nn.Linear, got Conv2d"):
            TTLinear.from_linear(nn.Conv2d(1, 1, 1), rank=2)

    def test_no_limit(self):
        with pytest.raises(InputError, match="a limit is needed: give rank, max_error or both"):
            TTLinear.from_linear(nn.Linear(4, 4))
        with pytest.raises(InputError, match="a limit is needed: give rank, max_error or both"):
            TTLinear(4, 4).truncate()
