"""Weight decay to a path: that of torch.optim to zero, for the difference from the path."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tnml.errors import InputError
from tnml.loop.options import LoopOptions
from tnml.nn import MPSLayer
from tnml.training import TrainOptions, run, train_regressor

X = torch.rand(40, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
Y = X.sin().sum(1, keepdim=True)
PATH = torch.tensor([[0.5, -1.0, 2.0]], dtype=torch.float64)


class Line(nn.Module):
    """Linear, with a path."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1, 3, dtype=torch.float64))

    def path(self) -> dict[str, Tensor]:
        return {"weight": PATH}

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight.T


@pytest.mark.parametrize(
    ("name", "kind"),
    [("adamw", torch.optim.AdamW), ("adam", torch.optim.Adam), ("sgd", torch.optim.SGD)],
)
def test_decay_to_the_path_is_decay_to_zero_of_the_difference(name: str, kind: Any) -> None:
    options = LoopOptions(
        epochs=5, optimizer=name, lr=0.1, weight_decay=0.3, decay_to="path", schedule="constant", device="cpu"
    )
    module, batches = Line(), [(X[:20], Y[:20]), (X[20:], Y[20:])]

    class Batches:
        steps_per_epoch = 2

        def __call__(self, epoch: int, step: int) -> tuple[Tensor, Tensor]:
            return batches[step]

    run(module, lambda m, x, y: (m(x) - y).square().mean(), Batches(), options)
    difference = nn.Parameter(-PATH)
    momentum = {"momentum": options.momentum} if name == "sgd" else {}
    optimizer = kind([difference], lr=0.1, weight_decay=0.3, **momentum)
    for _ in range(5):
        for x, y in batches:
            optimizer.zero_grad()
            (x @ (PATH + difference).T - y).square().mean().backward()
            optimizer.step()
    torch.testing.assert_close(module.weight.detach(), PATH + difference.detach(), rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("features", ["linear", "hat", "trigonometric", {"name": "rbf", "normalise": False}])
def test_the_path_of_a_chain_is_its_start_without_noise(features: Any) -> None:
    """At the path every sample is let through: the left and right vectors stay (1, 0, ..)."""
    x = torch.rand(50, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    layer = MPSLayer(6, 2, 4, features=features, dtype="float64", order=[3, 0, 5, 1, 2, 4]).rescale_(x)
    start = MPSLayer(6, 2, 4, features=features, dtype="float64", noise=0.0, order=[3, 0, 5, 1, 2, 4])
    start = start.rescale_(x)
    torch.testing.assert_close(layer.path()["weight"], start.weight.detach(), rtol=1e-6, atol=1e-7)
    assert not layer.path()["label"].any()


def test_a_module_without_a_path_is_refused() -> None:
    options = TrainOptions(weight_decay=0.1, decay_to="path", device="cpu")
    with pytest.raises(InputError, match="decay_to='path' needs a module with a path, got Linear"):
        train_regressor(nn.Linear(3, 1), X.float(), Y.float(), options)
