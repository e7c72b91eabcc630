"""A run resumes onto the module it was begun with, and onto no other: classes, buffers, site orders."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tnml.errors import InputError
from tnml.loop import checkpoint
from tnml.nn import MPSLayer
from tnml.training import SweepOptions, TrainOptions, sweep_classifier, train_classifier
from tnml.training.identity import model_identity

FITTED = {"name": "rbf", "dim": 3, "normalise": False}


class Shuffled(nn.Module):
    """A linear layer on permuted inputs; with a mask, a table of numbers and a counter."""

    def __init__(self, order: list[int], mask: list[bool] | None = None, width: int = 2) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 2)
        self.norm = nn.BatchNorm1d(4)
        self.register_buffer("order", torch.tensor(order))
        self.register_buffer("mask", torch.tensor(mask or [True, True, True, False]))
        self.register_buffer("table", torch.zeros(width))
        self.register_buffer("scratch", torch.zeros(int(torch.randint(9, ()))), persistent=False)
        self.register_buffer("calls", torch.tensor(0))

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.calls += 1
        return self.linear(self.norm(x[:, self.order]) * self.mask)


class Norm(nn.BatchNorm1d):
    """The same under another name."""


class Other(Shuffled):
    """The same to the last number."""


def train(module: nn.Module, folder: Path, epochs: int = 2, *, resume: bool = True) -> None:
    x = torch.rand(40, 4, generator=torch.Generator().manual_seed(0))
    options = TrainOptions(epochs=epochs, batch_size=10, schedule="constant", device="cpu")
    train_classifier(module, x, (x[:, 0] > 0.5).long(), options, run_dir=folder, resume=resume)


def test_every_module_and_buffer_is_compared(tmp_path: Path) -> None:
    order = [1, 0, 3, 2]
    train(Shuffled(order), tmp_path, resume=False)
    for other, text in (
        (
            Shuffled([0, 1, 2, 3]),
            r"buffer order: '\[4\] checksum \w+' in the checkpoint, '\[4\] checksum \w+' now",
        ),
        (Shuffled(order, [True] * 4), r"buffer mask: '\[4\] checksum"),
        (Shuffled(order, width=3), r"buffer table: '\[2\]' in the checkpoint, '\[3\]' now"),
        (Other(order), "module: 'Shuffled' in the checkpoint, 'Other' now"),
    ):
        with pytest.raises(InputError, match=f"belongs to another run: .*{text}"):
            train(other, tmp_path)
    other = Shuffled(order)
    other.norm = nn.LazyBatchNorm1d()  # of the same shapes after the first batch
    train(other, tmp_path)
    other.norm = Norm(4)
    with pytest.raises(InputError, match="module norm: 'BatchNorm1d' in the checkpoint, 'Norm' now"):
        train(other, tmp_path)


def test_what_training_changes_may_differ(tmp_path: Path) -> None:
    module = Shuffled([1, 0, 3, 2])
    train(module, tmp_path, resume=False)
    assert module.calls > 0
    assert module.norm.num_batches_tracked > 0
    train(module, tmp_path, 3)  # with running statistics and counters of its own
    train(Shuffled([1, 0, 3, 2]), tmp_path, 4)


@pytest.mark.parametrize("wrapped", [False, True])
def test_the_site_order_and_the_path_are_compared(tmp_path: Path, *, wrapped: bool) -> None:
    def make(order: str = "snake", features: object = FITTED, *, fit: bool = True) -> nn.Module:
        layer = MPSLayer(4, 2, 2, order=order, shape=(2, 2), features=features)
        if fit:
            layer.rescale_(torch.rand(50, 4, generator=torch.Generator().manual_seed(1)))
        return nn.Sequential(layer) if wrapped else layer

    name = "0." if wrapped else ""
    train(make(), tmp_path, resume=False)
    train(make(), tmp_path)
    with pytest.raises(InputError, match=f"model.{name}order: 'snake' in the checkpoint, 'raster' now"):
        train(make("raster"), tmp_path)
    with pytest.raises(InputError, match=rf"buffer {name}neutral: '\[4, 3\] near .*' in the checkpoint"):
        train(make(fit=False), tmp_path)


def stripped(folder: Path) -> None:
    """Turns the checkpoint into one of the version before, whose identity knew MPSLayers only."""
    state = checkpoint.load(folder / "checkpoint.pt")
    identity = state["identity"]
    new = [name for name in identity if name.startswith(("module", "buffer ")) or name == "identity"]
    assert len(new) > 3
    for name in new:
        del identity[name]
    checkpoint.save(folder / "checkpoint.pt", state)


def test_checkpoints_of_the_version_before_resume(tmp_path: Path) -> None:
    whole, halves = (MPSLayer(4, 2, 2, order="snake", shape=(2, 2)) for _ in range(2))
    train(whole, tmp_path / "whole", 4, resume=False)
    train(halves, tmp_path / "halves", 2, resume=False)
    stripped(tmp_path / "halves")
    with pytest.raises(InputError, match=r"model\.order: 'snake' in the checkpoint, 'raster' now"):
        train(MPSLayer(4, 2, 2), tmp_path / "halves", 4)
    with pytest.raises(InputError, match=r"model\.order: 'snake' in the checkpoint, None now"):
        train(Shuffled([0, 1, 2, 3]), tmp_path / "halves", 4)
    train(halves, tmp_path / "halves", 4)
    assert torch.equal(halves.weight, whole.weight)
    halves = MPSLayer(4, 2, 2, order="snake", shape=(2, 2))
    train(halves, tmp_path / "halves", 4)
    assert torch.equal(halves.weight, whole.weight)
    plain = Shuffled([1, 0, 3, 2])
    train(plain, tmp_path / "plain", resume=False)
    stripped(tmp_path / "plain")
    with pytest.raises(InputError, match=r"model\.order: None in the checkpoint, 'snake' now"):
        train(MPSLayer(4, 2, 2, order="snake", shape=(2, 2)), tmp_path / "plain")


def test_sweeps_resume_whatever_the_bonds_are(tmp_path: Path) -> None:
    """They grow the bonds and move the label core, so the layer that comes back has another layout."""
    x = torch.rand(40, 4, generator=torch.Generator().manual_seed(0))
    y = (x[:, 0] > 0.5).long()
    layer = MPSLayer(4, 2, 1, order="snake", shape=(2, 2), noise=0.0)
    before = layer.layout.tolist()
    sweep_classifier(layer, x, y, SweepOptions(sweeps=1, max_bond=3, device="cpu"), run_dir=tmp_path)
    assert layer.layout.tolist() != before
    longer = SweepOptions(sweeps=2, max_bond=3, device="cpu")
    with pytest.raises(InputError, match=r"model\.order.*buffer order"):
        sweep_classifier(MPSLayer(4, 2, 1), x, y, longer, run_dir=tmp_path, resume=True)
    sweep_classifier(layer, x, y, longer, run_dir=tmp_path, resume=True)


def test_the_texts_are_short() -> None:
    found = model_identity(
        nn.Sequential(MPSLayer(784, 10, 20, order=range(784)), nn.Linear(10, 10)), TrainOptions()
    )
    assert max(map(len, found.values())) <= 80
    assert found["module 1"] == "Linear"
