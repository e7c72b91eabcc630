"""Convolutions of tensor trains against torch's own with the rebuilt kernel, in float64."""

import itertools
from typing import Any

import pytest
import torch
from torch import nn

from tnml.errors import InputError
from tnml.nn import TTConv1d, TTConv2d, TTConv3d, TTLinear, compress

KINDS = {1: (TTConv1d, nn.Conv1d), 2: (TTConv2d, nn.Conv2d), 3: (TTConv3d, nn.Conv3d)}


@pytest.mark.parametrize("axes", KINDS)
def test_it_is_the_convolution_with_the_rebuilt_kernel(axes: int) -> None:
    """Both plans, with strides, padding, dilation and bias: outputs and the gradients of all parameters."""
    kind, dense = KINDS[axes]
    generator = torch.Generator().manual_seed(0)
    for stride, padding, dilation, bias in [(1, 0, 1, True), (2, 1, 1, False), (1, 2, 2, True)]:
        layer: Any = kind(4, 5, 2, stride, padding, dilation, rank=(3, 2), bias=bias, dtype=torch.float64)
        size = [7, 6, 5][:axes]
        x = torch.rand(3, 4, *size, dtype=torch.float64, generator=generator).requires_grad_()
        first, middle, last = (core.detach() for core in layer.cores)
        kernel = torch.einsum("aoir,rpks,sqjb->qik", first, middle, last).reshape(5, 4, *[2] * axes)
        conv = dense(4, 5, 2, stride, padding, dilation, bias=bias, dtype=torch.float64)
        with torch.no_grad():
            conv.weight.copy_(kernel)
            if bias:
                conv.bias.copy_(layer.bias)
        expected = conv(x)
        torch.testing.assert_close(layer.kernel, conv.weight, rtol=1e-12, atol=1e-14)
        torch.testing.assert_close(layer.to_conv()(x), expected, rtol=1e-12, atol=1e-14)
        grads = []
        for plan in ("cores", "dense"):
            layer.plan = plan
            found = layer(x)
            torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-14)
            grads.append(torch.autograd.grad(found.square().sum(), [x, *layer.parameters()]))
        for one, other in zip(*grads, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


def test_from_conv_keeps_its_error_and_everything_else() -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(6, 8, 3, stride=2, padding=1, dtype=torch.float64).eval()
    conv.weight.requires_grad_(False)
    whole, nothing = TTConv2d.from_conv(conv, max_error=0.0)
    x = torch.rand(2, 6, 9, 9, dtype=torch.float64)
    torch.testing.assert_close(whole(x), conv(x), rtol=1e-12, atol=1e-14)
    assert nothing < 1e-14
    assert not whole.training
    assert not any(core.requires_grad for core in whole.cores)
    last = 0.0
    for limit in (0.1, 0.4, 0.8):
        layer, error = TTConv2d.from_conv(conv, max_error=limit)
        made = (layer.kernel - conv.weight).norm() / conv.weight.norm()
        assert error == pytest.approx(made.item(), rel=1e-9)
        assert last <= error <= limit
        last = error
    assert TTConv2d.from_conv(conv, rank=(2, 3))[0].ranks == (1, 2, 3, 1)


def test_the_plan_follows_the_operations() -> None:
    """Multiply-adds counted by loops; a small rank goes core by core, a full one densely."""
    layer = TTConv2d(8, 16, 3, stride=2, padding=1, rank=2)
    cores, dense = layer.flops((10, 8))
    outputs = len(list(itertools.product(range(-1, 9, 2), range(-1, 7, 2))))
    assert outputs == layer(torch.rand(1, 8, 10, 8))[0, 0].numel()
    assert cores == 80 * 8 * 2 + outputs * (2 * 9 * 2 + 2 * 16)
    assert dense == outputs * 8 * 9 * 16
    assert layer._chosen(torch.rand(1, 8, 10, 8)) == "cores"
    assert TTConv2d(8, 16, 3, rank=100)._chosen(torch.rand(1, 8, 10, 8)) == "dense"


def test_compress_takes_convolutions() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 32, 3, groups=2), nn.Conv2d(32, 32, 3),
        nn.Conv2d(32, 32, 3, padding_mode="reflect", padding=1), nn.AdaptiveAvgPool2d(4), nn.Flatten(),
        nn.Linear(512, 64),
    )  # fmt: skip
    smaller, report = compress(model, rank=4)
    assert [type(smaller[k]) for k in (0, 3, 7)] == [TTConv2d, TTConv2d, TTLinear]
    assert [row.reason for row in report.rows] == [
        *("", "it has groups", "", "its padding is not a number of zeros", "")
    ]
    assert report.parameters_after == sum(p.numel() for p in smaller.parameters())
    x = torch.rand(2, 16, 8, 8)
    assert smaller(x).shape == model(x).shape
    row = report.rows[0]
    assert (row.in_features, row.out_features) == (144, 32)
    assert row.error == pytest.approx(TTConv2d.from_conv(model[0], rank=4).error)
    exact, _ = compress(model, max_error=1e-3, min_parameters=0)
    torch.testing.assert_close(exact(x), model(x), rtol=2e-2, atol=2e-2)
    _, half = compress(model, ratio=0.6)
    assert half.ratio <= 0.6


@pytest.mark.usefixtures("unchecked")
def test_bad_input() -> None:
    for call, text in (
        (lambda: TTConv2d(4, 4, (3, 3, 3)), "kernel_size must be a whole number or 2"),
        (lambda: TTConv2d(4, 4, 3, padding=-1), "padding must be a whole number"),
        (lambda: TTConv2d(4, 4, 3, plan="fast"), "unknown plan 'fast'"),
        (lambda: TTConv2d(4, 4, 3)(torch.rand(2, 3, 5, 5)), r"expected inputs \[b, 4, h, w\]"),
        (lambda: TTConv2d.from_conv(nn.Conv1d(2, 2, 1), rank=1), "expected a torch.nn.Conv2d, got Conv1d"),
        (lambda: TTConv2d.from_conv(nn.Conv2d(2, 2, 1, groups=2), rank=1), "it has groups"),
        (lambda: TTConv2d.from_conv(nn.Conv2d(2, 2, 1)), "a limit is needed"),
    ):
        with pytest.raises(InputError, match=text):
            call()
