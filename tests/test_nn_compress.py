"""compress: which layers are replaced, by what, how far they are from the dense ones, and the report."""

import copy
import math

import numpy as np
import opt_einsum
import pytest
import torch
from torch import nn
from torch.nn.utils import prune

from tnml.contraction import TTShape
from tnml.errors import InputError
from tnml.nn import TTLinear, compress
from tnml.nn.tt.compression import flops_per_sample


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(3)


def decaying(inputs, outputs, power, dtype=torch.float64):
    """A dense layer whose unfolding of two equal factors has singular values k^-power, as after training."""
    layer = nn.Linear(inputs, outputs, dtype=dtype)
    p, q = math.isqrt(outputs), math.isqrt(inputs)
    assert p * p == outputs
    assert q * q == inputs
    generator = np.random.default_rng(0)
    u, _ = np.linalg.qr(generator.standard_normal((p * q, p * q)))
    v, _ = np.linalg.qr(generator.standard_normal((p * q, p * q)))
    unfolded = u * np.arange(1, p * q + 1.0) ** -power @ v
    weight = unfolded.reshape(p, q, p, q).transpose(0, 2, 1, 3).reshape(outputs, inputs)
    layer.weight.data.copy_(torch.from_numpy(weight))
    return layer


def tails(layer):
    """Relative error of the best tensor train of two cores, for ranks 0, 1, ..: a truncated SVD, in numpy."""
    outputs, inputs = layer.weight.shape
    p, q = math.isqrt(outputs), math.isqrt(inputs)
    unfolded = layer.weight.detach().numpy().reshape(p, p, q, q).transpose(0, 2, 1, 3).reshape(p * q, p * q)
    squares = np.linalg.svd(unfolded, compute_uv=False) ** 2
    return np.sqrt(np.append(np.cumsum(squares[::-1])[::-1], 0) / squares.sum())


def measured(before, after):
    before, after = before.weight.detach().numpy(), after.weight.detach().numpy()
    return np.linalg.norm(before - after) / np.linalg.norm(before)


def mlp(dtype=torch.float64):
    first, second = decaying(144, 64, 1.0, dtype), decaying(64, 64, 0.6, dtype)
    return nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), nn.Linear(64, 10, dtype=dtype))


def n_parameters(model):
    return sum(parameter.numel() for parameter in model.parameters())


def test_rank_gives_the_best_tensor_trains():
    model = mlp()
    smaller, report = compress(model, rank=5, min_parameters=1000)
    for index, row in zip((0, 2), report.rows, strict=False):
        assert row.shape.ranks == (1, 5, 1)
        assert row.error == pytest.approx(tails(model[index])[5], abs=1e-10)
        assert row.error == pytest.approx(measured(model[index], smaller[index]), abs=1e-10)
        assert torch.equal(smaller[index].bias, model[index].bias)
    dense = copy.deepcopy(model)
    for index in (0, 2):
        dense[index].weight.data.copy_(smaller[index].weight)
    x = torch.randn(7, 144, dtype=torch.float64)
    assert torch.allclose(smaller(x), dense(x), atol=1e-12)


@pytest.mark.parametrize("max_error", [0.2, 0.4, 0.6])
def test_max_error_takes_the_smallest_ranks_that_keep_it(max_error):
    model = mlp()
    _, report = compress(model, max_error=max_error, min_parameters=1000)
    for index, row in zip((0, 2), report.rows, strict=False):
        rank = int((tails(model[index]) > max_error).sum())
        if row.replaced:
            assert row.shape.ranks == (1, rank, 1)
            assert row.error <= max_error
        else:
            p, q = math.isqrt(row.out_features), math.isqrt(row.in_features)
            assert row.reason == "a tensor train is no smaller"
            assert 2 * rank * p * q >= row.in_features * row.out_features
    assert any(row.replaced for row in report.rows)


@pytest.mark.parametrize("n_cores", [3, 4])
def test_max_error_holds_for_more_cores_and_padded_sizes(n_cores):
    outer = torch.outer(torch.linspace(1, 2, 90), torch.linspace(-1, 3, 101)) + 0.01 * torch.randn(90, 101)
    model = nn.Linear(101, 90, dtype=torch.float64)
    model.weight.data.copy_(outer)
    smaller, report = compress(model, max_error=0.1, n_cores=n_cores)
    (row,) = report.rows
    assert row.replaced
    assert row.shape.n_cores == n_cores
    assert 0 < row.error <= 0.1
    assert row.error == pytest.approx(measured(model, smaller), abs=1e-10)


@pytest.mark.parametrize("n_cores", [3, 4])
def test_max_error_holds_where_every_unfolding_loses_its_part(n_cores):
    model = nn.Linear(128, 128, dtype=torch.float64)  # noise: all unfoldings have flat spectra
    smaller, report = compress(model, max_error=0.9, n_cores=n_cores)
    assert report.rows[0].replaced
    assert 0.7 < measured(model, smaller) <= 0.9


@pytest.mark.parametrize("ratio", [0.15, 0.3, 0.5])
def test_ratio_is_reached_with_one_error_for_all_layers(ratio):
    model = mlp()
    smaller, report = compress(model, ratio=ratio, min_parameters=1000)
    assert report.parameters_before == n_parameters(model)
    assert report.parameters_after == n_parameters(smaller)
    assert report.ratio == n_parameters(smaller) / n_parameters(model) <= ratio

    # By hand: of all errors that the truncated SVDs can make, the smallest that fits.
    dense = [model[0], model[2]]
    known = [tails(layer) for layer in dense]
    rest = n_parameters(model) - sum(n_parameters(layer) for layer in dense)

    def total(error):
        sizes = [n_parameters(layer) for layer in dense]
        for k, layer in enumerate(dense):
            per_rank = 2 * math.isqrt(layer.in_features) * math.isqrt(layer.out_features)
            rank = max(1, int((known[k] > error).sum()))
            sizes[k] = min(sizes[k], rank * per_rank + layer.out_features)
        return rest + sum(sizes)

    fitting = [error for error in np.concatenate(known) if total(error * (1 + 1e-9)) <= ratio * total(-1)]
    assert report.parameters_after == total(min(fitting) * (1 + 1e-9))


def test_a_ratio_out_of_reach_says_what_can_be_reached():
    model = mlp()
    with pytest.raises(InputError, match=r"ratio 0\.01 cannot be reached") as caught:
        compress(model, ratio=0.01)
    nearest = float(str(caught.value).split(" at ")[1].split(";")[0])
    assert compress(model, ratio=nearest).report.ratio <= nearest
    with pytest.raises(InputError):
        compress(model, ratio=nearest - 2e-4)


def test_the_model_itself_stays_as_it_is():
    model = mlp()
    before = copy.deepcopy(model.state_dict())
    smaller, report = compress(model, rank=3)
    with torch.no_grad():
        for parameter in smaller.parameters():
            parameter.zero_()
    assert [type(module) for module in model] == [nn.Linear, nn.ReLU] * 2 + [nn.Linear]
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert [row.replaced for row in report.rows] == [True, True, False]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_mode_dtype_and_what_is_trained_stay(dtype):
    model = mlp(dtype).eval()
    model[2].weight.requires_grad_(False)
    smaller = compress(model, rank=3).model
    assert not any(module.training for module in smaller.modules())
    assert all(parameter.dtype == dtype for parameter in smaller.parameters())
    assert all(core.requires_grad for core in smaller[0].cores)
    assert not any(core.requires_grad for core in smaller[2].cores)
    assert smaller[2].bias.requires_grad


class Shares(nn.Module):
    """One layer under two names, and in a list that is no module."""

    def __init__(self):
        super().__init__()
        self.one = decaying(64, 64, 1.0)
        self.two = self.one
        self.known = [self.one]

    def forward(self, x):
        return self.two(torch.relu(self.one(x))) + self.known[0](x)


def test_a_shared_layer_becomes_one_layer():
    model = Shares()
    smaller, report = compress(model, ratio=0.3)
    assert isinstance(smaller.one, TTLinear)
    assert smaller.one is smaller.two is smaller.known[0]
    (row,) = report.rows
    assert (row.name, row.also) == ("one", ("two",))
    assert report.parameters_before == 64 * 64 + 64
    assert report.parameters_after == n_parameters(smaller) == row.parameters_after
    assert "one = two" in str(report)
    x = torch.randn(5, 64, dtype=torch.float64)
    weight, bias = smaller.one.weight, smaller.one.bias
    inner = torch.relu(x @ weight.T + bias)
    assert torch.allclose(smaller(x), inner @ weight.T + bias + x @ weight.T + bias, atol=1e-12)


def test_layers_named_in_skip_stay():
    model = nn.ModuleDict({"body": mlp(), "head": decaying(64, 64, 1.0)})
    report = compress(model, rank=3, skip=["body.0", "head"]).report
    assert [row.reason for row in report.rows[:2]] == ["named in skip", ""]
    assert report.rows[3].reason == "named in skip"
    report = compress(model, rank=3, skip={"body"}).report
    assert [row.replaced for row in report.rows] == [False, False, False, True]


def test_smaller_layers_are_looked_at_on_request():
    report = compress(mlp(), rank=1, min_parameters=0).report
    assert [row.replaced for row in report.rows] == [True] * 3
    report = compress(nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 1)), rank=1, min_parameters=5000).report
    assert [row.reason for row in report.rows] == ["fewer than 5,000 parameters"] * 2


def test_a_model_that_is_one_layer():
    model = decaying(64, 64, 1.0)
    smaller, report = compress(model, rank=3)
    assert isinstance(smaller, TTLinear)
    assert str(report).splitlines()[1].startswith("(model)")


def test_a_model_without_dense_layers():
    smaller, report = compress(nn.ConvTranspose1d(2, 3, 1), max_error=0.1)
    assert isinstance(smaller, nn.ConvTranspose1d)
    assert report.rows == ()
    assert "0 of 0 dense layers replaced; model: 9 parameters (100.0%)" in str(report)


def test_the_encoder_of_a_transformer():
    """Its fused path reads the weights of its layers, which a tensor train makes on request."""
    model = nn.TransformerEncoderLayer(64, 4, 256, batch_first=True, dropout=0.0)
    smaller, report = compress(model, rank=4)
    assert [row.name for row in report.rows if row.replaced] == ["linear1", "linear2"]
    assert report.rows[0].name == "self_attn.out_proj"
    assert "subclass of Linear" in report.rows[0].reason
    x = torch.randn(2, 5, 64)
    expected = smaller(x)
    with torch.no_grad():
        assert torch.allclose(smaller.eval()(x), expected, atol=1e-5)


def test_the_copy_can_be_trained():
    torch.manual_seed(0)
    model = mlp(torch.float32)
    smaller = compress(model, ratio=0.2).model
    x = torch.randn(200, 144)
    target = model(x).detach()
    optimizer = torch.optim.Adam(smaller.parameters(), lr=3e-3)
    losses = []
    for _ in range(40):
        loss = (smaller(x) - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize("batch", [1, 4, 64, 4096])
@pytest.mark.parametrize(
    ("ins", "outs", "rank"),
    [((4, 8), (8, 4), 2), ((16, 16), (4, 4), 3), ((2, 9), (32, 2), 4), ((8, 8), (8, 8), 40)],
)
def test_operations_are_those_of_the_cheapest_order(ins, outs, rank, batch):
    sizes = ((batch, *ins), (outs[0], ins[0], rank), (rank, outs[1], ins[1]))
    _, best = opt_einsum.contract_path("bij,oir,rpj->bop", *sizes, shapes=True, optimize="optimal")
    found = flops_per_sample(TTShape(ins, outs, (1, rank, 1)), batch)
    assert found == math.ceil(int(best.opt_cost) / batch / 2) * 2


def test_the_table_is_aligned():
    lines = str(compress(mlp(), rank=3).report).splitlines()
    assert len(lines) == 5
    assert lines[0].split() == ["layer", "size", "factors", "ranks", "parameters", "flops", "error"]
    for title in ("size", "parameters", "flops"):
        at = lines[0].index(title)
        assert all(line[at - 2 : at] == "  " and line[at] != " " for line in lines[:4])
    first = "0      144 -> 64  12 x 12 -> 8 x 8  3      9,280 -> 640  18,432 -> "
    assert lines[1].startswith(first)
    assert lines[4].startswith("2 of 3 dense layers replaced; model: 14,090 -> ")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "got none of them"),
        ({"rank": 3, "ratio": 0.5}, "got ratio and rank"),
        ({"max_error": 1.0}, r"max_error \(a relative error\) must be"),
        ({"max_error": -0.1}, r"max_error \(a relative error\) must be"),
        ({"ratio": 0.0}, r"ratio \(parameters after over before\) "),
        ({"ratio": 1.0}, r"ratio \(parameters after over before\) "),
        ({"rank": 0}, "rank"),
        ({"rank": 2, "n_cores": 0}, "cores"),
        ({"rank": 2, "n_cores": 7}, "n_cores must be a whole number, from 1 to 6, got 7"),
        ({"rank": 2, "n_cores": 7, "skip": [""]}, "n_cores must be a whole number, from 1 to 6, got 7"),
        ({"rank": 2, "batch": 0}, "batch must be a whole number, at least 1, got 0"),
        ({"rank": 2, "batch": 2.5}, r"batch must be a whole number, at least 1, got 2\.5"),
        ({"rank": 2, "min_parameters": "9"}, "min_parameters must be a number, got '9'"),
        ({"rank": 2, "skip": 3}, "skip is a collection of names"),
        ({"rank": 2.5}, r"rank must be a whole number, at least 1, got 2\.5"),
        ({"ratio": "0.5"}, r"ratio \(parameters after over before\) .* got '0.5'"),
        ({"max_error": "0.5"}, r"max_error \(a relative error\) must be .* got '0.5'"),
        ({"rank": 2, "skip": ["3"]}, "unknown layer in skip '3'"),
        ({"rank": 2, "skip": "0"}, "skip is a collection of names"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(InputError, match=message):
        compress(nn.Sequential(nn.Linear(64, 64)), **options)


def test_what_is_no_module():
    with pytest.raises(InputError, match=r"expected a torch.nn.Module, got str"):
        compress("x", rank=2)


def test_a_model_whose_sizes_are_not_known_yet():
    with pytest.raises(InputError, match="run it once on a batch first"):
        compress(nn.Sequential(nn.LazyLinear(64)), rank=2)


def test_a_model_that_cannot_be_copied():
    model = nn.Sequential(prune.l1_unstructured(nn.Linear(64, 64), "weight", amount=0.5))
    with pytest.raises(InputError, match="the model cannot be copied: Only Tensors created explicitly"):
        compress(model, rank=2)
