"""The user's own function as a feature map: what one trial finds out about it, and what it refuses."""

import json
import pickle
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tnml.errors import InputError
from tnml.features import FEATURE_NAMES, feature_map

GRID = torch.linspace(-0.2, 1.2, 84, dtype=torch.float64)


def own_linear(x: Tensor) -> Tensor:
    return torch.stack((1 - x, x), -1)


def own_circle(x: Tensor) -> Tensor:
    return torch.stack((torch.cos(x), torch.sin(x)), -1)


class OwnNet(torch.nn.Module):
    """A small network per pixel; its parameters are float32, so it takes float32 only."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(1, 3)

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(self.layer(x.unsqueeze(-1)))


def test_own_function_is_measured() -> None:
    linear, circle = feature_map(own_linear), feature_map(own_circle)
    assert (linear.name, linear.dim, linear.normalisation, linear.identity) == (
        "callable",
        2,
        "sum",
        (1.0, 1.0),
    )
    assert (circle.dim, circle.normalisation, circle.identity) == (2, "norm", None)
    assert feature_map(lambda x: torch.stack((x, 3 * x, x**2, x**0), -1)).identity == (0.0, 0.0, 0.0, 1.0)
    assert feature_map(lambda x: torch.stack((x, 2 - 2 * x), -1)).identity == (1.0, 0.5)
    assert feature_map(lambda x: x.unsqueeze(-1) ** torch.arange(1, 9)).identity is None, (
        "1 only by cancellation"
    )
    assert feature_map(lambda x: x.unsqueeze(-1) ** torch.arange(40)).identity is None, "too many to fit"


@pytest.mark.parametrize("dim", [3, 5])
@pytest.mark.parametrize("name", sorted({*FEATURE_NAMES} - {"linear", "affine", "one-hot"}))
def test_own_function_finds_what_the_built_in_map_knows(name: str, dim: int) -> None:
    known = feature_map(name, dim=dim)
    own = feature_map(known.function)
    assert own.dim == known.dim
    assert (own.identity is None) == (known.identity is None)
    if own.identity is not None:
        np.testing.assert_allclose(own.identity, known.identity, atol=1e-4)
    torch.testing.assert_close(own(GRID), known(GRID))
    torch.testing.assert_close(own.derivative(GRID), known.derivative(GRID), rtol=1e-9, atol=1e-9)


def test_own_function_is_called_once_to_learn_its_dimension() -> None:
    calls = []

    def counted(x: Tensor) -> Tensor:
        calls.append(x.shape)
        return own_linear(x)

    fmap = feature_map(counted)
    assert len(calls) == 1
    fmap(torch.rand(3, 4))
    assert len(calls) == 2, "one call for a whole batch"
    assert calls[1] == (3, 4)


def test_own_function_is_differentiable_and_keeps_dtype(generator: torch.Generator) -> None:
    fmap = feature_map(lambda x: torch.stack((x.float(), x.float() ** 3), -1).mT.contiguous().mT)
    x = torch.rand(4, 5, dtype=torch.float64, generator=generator)
    assert fmap(x).dtype == torch.float64
    smooth = feature_map(own_circle)
    x.requires_grad_()
    assert torch.autograd.gradcheck(smooth, (x,))
    assert torch.autograd.gradcheck(smooth.derivative, (x,))


def test_own_network_and_own_complex_features() -> None:
    net = OwnNet()
    fmap = feature_map(net)
    x = torch.linspace(0, 1, 5)
    slope = (1 - net(x).square()) * net.layer.weight[:, 0]
    torch.testing.assert_close(fmap.derivative(x), slope)
    assert fmap.spec["function"].endswith("OwnNet")
    phase = feature_map(lambda x: torch.stack((torch.exp(1j * x), torch.exp(-2j * x)), -1) / 2**0.5)
    assert phase(x).dtype == torch.complex64
    assert (phase.normalisation, phase.identity) == ("norm", None)


def test_own_function_pickles_with_its_module_and_json_says_who_it_was() -> None:
    fmap = feature_map(own_linear, dim=2)
    assert torch.equal(pickle.loads(pickle.dumps(fmap))(GRID), own_linear(GRID))
    spec = json.loads(json.dumps(fmap.spec))
    with pytest.raises(
        InputError, match=r"the function .*own_linear, which no file holds; give the function itself"
    ):
        feature_map(spec)


def raises_inside(x: Tensor) -> Tensor:
    raise KeyError("lost")


def changes_its_input(x: Tensor) -> Tensor:
    return own_linear(x.mul_(2))


@pytest.mark.parametrize(
    ("function", "says"),
    [
        (lambda x: x, r"into \(8, 16, d\), got shape \(8, 16\)"),
        (lambda x: torch.stack((1 - x, x)), r"got shape \(2, 8, 16\)"),
        (lambda x: torch.stack((1 - x, x), 1), r"got shape \(8, 2, 16\)"),
        (lambda x: x.sum(), r"got shape \(\)"),
        (lambda x: x.new_zeros(*x.shape, 0), r"got shape \(8, 16, 0\)"),
        (lambda x: [1 - x, x], "got list"),
        (lambda x: None, "got NoneType"),
        (lambda x: np.stack((1 - x, x), -1), "got ndarray"),
        (lambda x: torch.stack((x, torch.log(x)), -1), "NaN or infinity at x = 0$"),
        (lambda x: torch.stack((x, torch.sqrt(0.5 - x)), -1), r"NaN or infinity at x = 0.50"),
        (lambda x: torch.stack((x, x - x.mean(1, keepdim=True)), -1), "own pixel alone"),
        (lambda x: torch.stack((x, x.cumsum(0)), -1), "own pixel alone"),
        (lambda x: torch.stack((x, torch.rand_like(x)), -1), "not on chance"),
        (lambda x: torch.tensor([1.0 - float(x), float(x)]), "must be vectorised"),
        (raises_inside, r"raises_inside failed .*KeyError: 'lost'"),
        (changes_its_input, "changes its input"),
    ],
)
def test_own_functions_that_cannot_serve_are_refused(function: Any, says: str) -> None:
    with pytest.raises(InputError, match=says):
        feature_map(function)


def test_own_function_that_changes_its_mind_is_caught_when_used() -> None:
    fmap = feature_map(lambda x: x.unsqueeze(-1).expand(*x.shape, 2 if x.dim() == 2 else 3))
    with pytest.raises(InputError, match=r"into \(5, 2\), got shape \(5, 3\)"):
        fmap(torch.rand(5))
