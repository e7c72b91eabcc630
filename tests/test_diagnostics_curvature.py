"""Extremes of the Hessian against the dense Hessian, and the law of batches."""

import copy
import math

import pytest
import torch
from torch import nn
from torch.autograd.functional import hessian, jacobian
from torch.func import functional_call
from torch.nn.functional import cross_entropy, mse_loss

from tnml.diagnostics import batch_hessian_curve, hessian_extremes, scale_lr
from tnml.errors import InputError
from tnml.nn import MPSLayer


def models():
    torch.manual_seed(0)
    yield nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Dropout(0.5), nn.Linear(3, 3)).double()
    yield MPSLayer(4, 3, 2, dtype="float64", seed=1, noise=0.3)


def data(rows=30):
    generator = torch.Generator().manual_seed(2)
    return torch.rand(rows, 4, generator=generator, dtype=torch.float64), torch.arange(rows) % 3


def dense(model, x, y):
    """The Hessian and its Gauss-Newton part as matrices."""
    names, parts = zip(*model.named_parameters(), strict=True)
    shapes = [p.shape for p in parts]
    flat = torch.cat([p.detach().reshape(-1) for p in parts])
    quiet = copy.deepcopy(model).eval()

    def outputs(vector):
        pieces = vector.split([math.prod(shape) for shape in shapes])
        named = {name: piece.view(shape) for name, piece, shape in zip(names, pieces, shapes, strict=True)}
        return functional_call(quiet, named, (x,))

    full = hessian(lambda v: cross_entropy(outputs(v), y), flat)
    slopes = jacobian(outputs, flat).reshape(-1, len(flat))
    f = outputs(flat)
    bent = hessian(lambda g: cross_entropy(g.view_as(f), y), f.reshape(-1))
    return full, slopes.T @ bent @ slopes


@pytest.mark.parametrize("model", list(models()), ids=["network", "mps"])
def test_extremes_and_density_are_those_of_the_dense_matrix(model):
    x, y = data()
    before = copy.deepcopy(model.state_dict())
    for kind, matrix in zip(("hessian", "ggn"), dense(model, x, y), strict=True):
        values = torch.linalg.eigvalsh(matrix)
        found = hessian_extremes(model, cross_entropy, x, y, steps=200, kind=kind)
        scale = float(values.abs().max())
        assert found.largest == pytest.approx(float(values[-1]), abs=1e-8 * scale)
        assert found.smallest == pytest.approx(float(values[0]), abs=1e-6 * scale)
        few = hessian_extremes(model, cross_entropy, x, y, steps=12, kind=kind)
        assert few.largest == pytest.approx(found.largest, rel=1e-3)
        # In the first vector the matrix has the moments of the Ritz values, exactly up to degree 23.
        start = torch.randn(len(matrix), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        start /= start.norm()
        for power in (1, 2, 5):
            expected = start @ torch.linalg.matrix_power(matrix / scale, power) @ start
            torch.testing.assert_close(few.weights @ (few.ritz / scale) ** power, expected, atol=1e-9, rtol=0)
    assert model.training
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())


def test_frozen_parameters_stay_out():
    model = nn.Linear(2, 1, bias=False)
    model.weight.requires_grad_(False)
    both = nn.Sequential(nn.Linear(1, 2, bias=False), model)
    with torch.no_grad():
        both[0].weight.fill_(1.0)
        model.weight.copy_(torch.tensor([[1.0, 2.0]]))
    found = hessian_extremes(both, mse_loss, torch.tensor([[1.0]]), torch.zeros(1, 1))
    assert found.largest == pytest.approx(2 * 5.0)
    assert found.ritz.shape == (2,)


@pytest.mark.slow
def test_the_excess_of_small_batches_falls_as_their_size_grows():
    generator = torch.Generator().manual_seed(0)
    centres = 0.7 * torch.randn(5, 20, generator=generator)
    y = torch.randint(5, (4096,), generator=generator)
    x = centres[y] + torch.randn(4096, 20, generator=generator)
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(20, 24), nn.Tanh(), nn.Linear(24, 5))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    for step in range(300):
        rows = torch.arange(64 * step, 64 * step + 64) % 4096
        optimizer.zero_grad()
        cross_entropy(net(x[rows]), y[rows]).backward()
        optimizer.step()
    sizes = [8, 16, 32, 64, 128, 256]
    curve = batch_hessian_curve(net, cross_entropy, x, y, sizes, draws=24, steps=20)
    excess = torch.tensor(curve.largest) - curve.whole
    assert bool((excess > 0).all())
    logs = torch.tensor(sizes).double().log(), excess.double().log()
    centred = [each - each.mean() for each in logs]
    slope = float((centred[0] @ centred[1]) / (centred[0] @ centred[0]))
    assert -1.3 <= slope <= -0.8, slope
    assert curve.smallest[0] < curve.smallest[-1] < 0
    assert scale_lr(0.1, 8, 256, "rmt", curve=curve, samples=4096) > 0.1


def test_learning_rates():
    assert scale_lr(0.1, 32, 128) == pytest.approx(0.4)
    assert scale_lr(0.1, 32, 128, "sqrt") == pytest.approx(0.2)
    x, y = data()
    curve = batch_hessian_curve(next(models()), cross_entropy, x, y, [2, 10], draws=4, steps=5)
    known = scale_lr(0.1, 2, 10, "rmt", curve=curve, samples=30)
    assert known == pytest.approx(0.1 * curve.at(2, 30) / curve.at(10, 30))
    assert curve.at(30, 30) == curve.whole


def of_a_line(**changes):
    given = {"model": nn.Linear(1, 1), "loss": mse_loss, "x": torch.ones(1, 1), "y": torch.ones(1, 1)}
    return {**given, **changes}


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: hessian_extremes(**of_a_line(model=nn.Tanh())), "no parameter"),
        (lambda: hessian_extremes(**of_a_line(loss=lambda f, y: f.sum() / 0)), "the loss is"),
        (lambda: hessian_extremes(**of_a_line(), kind="h"), "kind"),
        (lambda: batch_hessian_curve(**of_a_line(), sizes=[]), "sizes"),
        (lambda: scale_lr(0.1, 1, 2, "rmt"), "needs curve"),
        (lambda: scale_lr(-0.1, 1, 2), "lr"),
        (lambda: scale_lr(0.1, 1, 2, "half"), "rule"),
    ],
)
def test_bad_input(call, match):
    with pytest.raises(InputError, match=match):
        call()
