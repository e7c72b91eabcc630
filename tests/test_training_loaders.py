"""Training on the batches of a DataLoader: those it gives, and what it cannot do."""

import os
import signal
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from tnml.errors import InputError
from tnml.training import (
    TrainingInterrupted,
    TrainOptions,
    evaluate,
    train_classifier,
    train_density,
    train_regressor,
)
from tnml.training.losses import LOSSES, CrossEntropy, measure

COUNT, SITES = 50, 4


@pytest.fixture
def data():
    y = torch.arange(COUNT) % 3
    x = torch.rand(COUNT, SITES, generator=torch.Generator().manual_seed(0)) + y[:, None]
    return TensorDataset(x, y)


def quick(**more):
    return TrainOptions(**{"epochs": 2, "lr": 0.02, "device": "cpu", **more})


class Spy(nn.Linear):
    """Remembers what it is trained on."""

    def __init__(self):
        torch.manual_seed(0)
        super().__init__(SITES, 3)
        self.seen = []

    def forward(self, x):
        if self.training:
            self.seen.append(x.detach().clone())
        return super().forward(x)


class Counted(IterableDataset):
    """A stream of samples that knows how many there are, or says something else."""

    def __init__(self, dataset, length):
        self.dataset, self.length = dataset, length

    def __len__(self):
        return self.length

    def __iter__(self):
        return iter([self.dataset[number] for number in range(len(self.dataset))])


@pytest.mark.parametrize("kind", ["Dataset", "stream", "batches"])
def test_a_loader_is_trained_on_as_it_comes(data, kind):
    x, _ = data.tensors
    loader = {
        "Dataset": DataLoader(data, batch_size=8),
        "stream": DataLoader(Counted(data, COUNT), batch_size=8),
        "batches": DataLoader(data, batch_sampler=[range(i, min(i + 8, COUNT)) for i in range(0, COUNT, 8)]),
    }[kind]
    layer = Spy()
    result = train_classifier(layer, loader, options=quick(epochs=3), x_test=loader)
    assert torch.equal(torch.cat(layer.seen), torch.cat([x, x, x]))
    assert [len(batch) for batch in layer.seen[:7]] == [8, 8, 8, 8, 8, 8, 2]
    assert (result.n_train, result.n_validation) == (COUNT, 0)
    assert result.history[-1]["loss"] < result.history[0]["loss"]
    assert result.test == evaluate(layer, loader) == measure(layer, CrossEntropy(), *data.tensors, 8)


def test_its_order_follows_from_the_seed(data):
    def seen(seed, outside):
        layer = Spy()
        torch.manual_seed(outside)
        before = torch.get_rng_state()
        train_classifier(layer, DataLoader(data, batch_size=8, shuffle=True), options=quick(seed=seed))
        assert torch.equal(torch.get_rng_state(), before)
        return torch.cat(layer.seen)

    first = seen(0, 1)
    assert torch.equal(first, seen(0, 2))
    assert not torch.equal(first, seen(1, 1))
    one, two = first.chunk(2)
    assert not torch.equal(one, two)
    assert torch.equal(one.sort(0).values, two.sort(0).values)


def test_shifts_targets_and_densities(data):
    x, y = data.tensors
    layer = Spy()
    train_classifier(layer, DataLoader(data, batch_size=25), options=quick(max_shift=1, epochs=1))
    assert not torch.equal(torch.cat(layer.seen), x)
    line = nn.Linear(SITES, 1)
    result = train_regressor(line, DataLoader(TensorDataset(x, y / 2), batch_size=10), options=quick())
    assert result.n_train == COUNT

    class Normal(nn.Linear):
        def forward(self, x):
            return -super().forward(x).square()

    for batches in (DataLoader(TensorDataset(x), batch_size=8), DataLoader(list(x), batch_size=8)):
        assert len(train_density(Normal(SITES, 1), batches, quick()).history) == 2
    with pytest.raises(InputError, match="give image_shape"):
        train_classifier(layer, DataLoader(data), options=quick(max_shift=1), image_shape=(3, 2))


class Readers(Dataset):
    """The number of the process that reads, as an input."""

    def __len__(self):
        return 40

    def __getitem__(self, index):
        return torch.full((SITES,), os.getpid(), dtype=torch.float64), index % 3


def test_workers_read_and_leave_a_ctrl_c_to_the_run():
    torch.manual_seed(0)
    layer, seen, interrupted = nn.Linear(SITES, 3, dtype=torch.float64), set(), set()
    layer.register_forward_pre_hook(lambda _, inputs: seen.update(inputs[0][:, 0].tolist()))

    def interrupt(view):
        for reader in seen - interrupted:
            os.kill(int(reader), signal.SIGINT)
            interrupted.add(reader)

    loader = DataLoader(Readers(), batch_size=2, num_workers=2)
    train_classifier(layer, loader, options=quick(epochs=2, lr=1e-9), on_step=interrupt)
    assert len(seen) == 4, "two in each epoch, which went on reading"
    assert os.getpid() not in seen


@pytest.mark.parametrize("persistent", [False, True])
def test_one_loader_with_workers_serves_training_and_test(data, persistent):
    loader = DataLoader(data, batch_size=8, num_workers=1, persistent_workers=persistent)
    layer = Spy()
    result = train_classifier(layer, loader, options=quick(), x_test=loader)
    assert torch.equal(torch.cat(layer.seen), torch.cat([data.tensors[0]] * 2))
    assert result.test == measure(layer, CrossEntropy(), *data.tensors, 8)


def test_a_folder_is_written_but_not_resumed(data, tmp_path):
    loader = DataLoader(data, batch_size=8)

    def stop(view):
        if view.step == 3:
            raise KeyboardInterrupt

    with pytest.raises(TrainingInterrupted):
        train_classifier(Spy(), loader, options=quick(), run_dir=tmp_path, on_step=stop)
    assert (tmp_path / "checkpoint.pt").is_file()
    with pytest.raises(
        InputError, match=r"resume=True needs batches that come again.*give the Dataset itself"
    ):
        train_classifier(Spy(), loader, options=quick(), run_dir=tmp_path, resume=True)
    with pytest.raises(InputError, match="data: 'DataLoader' in the checkpoint, None now"):
        train_classifier(Spy(), *data.tensors, options=quick(batch_size=8), run_dir=tmp_path, resume=True)


@dataclass(frozen=True)
class PerSample(CrossEntropy):
    """Wants to know which sample is which."""

    def __call__(self, module, x, y, weight=None, index=None):
        return super().__call__(module, x, y, weight)


def test_what_needs_numbered_samples_is_refused(data, monkeypatch):
    loader = DataLoader(data, batch_size=8)
    for settings, more, text in (
        ({"batch_size": 50}, {}, "batch_size=50 is not used with a DataLoader, whose own is 8"),
        ({"validation": 0.2}, {}, "validation=0.2 cannot be held out of a DataLoader; split the Dataset"),
        ({}, {"sample_weight": np.ones(COUNT)}, "sample_weight needs numbered samples"),
        ({}, {"y": data.tensors[1]}, "a DataLoader gives its targets itself; leave y out"),
        ({}, {"x_test": loader, "y_test": data.tensors[1]}, "leave y_test out"),
        ({"devices": 2}, {}, "several processes need the same batches.*devices=1"),
    ):
        with pytest.raises(InputError, match=text):
            train_classifier(Spy(), loader, options=quick(**settings), **more)
    train_classifier(Spy(), loader, options=quick(batch_size=8))
    monkeypatch.setitem(LOSSES, "per-sample", {"classification": PerSample})
    with pytest.raises(InputError, match="the loss PerSample needs the number of every sample"):
        train_classifier(Spy(), loader, options=quick(loss="per-sample"))


def test_loaders_that_cannot_be_used_are_refused(data):
    x, y = data.tensors

    class NoLength(Counted):
        __len__ = None

    unsure = NoLength(data, 0)
    for loader, text in (
        (DataLoader(unsure, batch_size=8), "a DataLoader needs a length"),
        (DataLoader(data, batch_size=COUNT + 1, drop_last=True), "the DataLoader has no batches"),
        (DataLoader(Counted(data, 80), batch_size=8), r"says that it has 10 batches, but ended after 7"),
        (DataLoader(TensorDataset(x), batch_size=8), r"y is missing.*\(epoch 1, step 1 of 7\)"),
        (DataLoader([{"x": row} for row in x], batch_size=8), r"must give \(x, y\) pairs.*got dict"),
        (DataLoader(TensorDataset(x, y + (y.cumsum(0) > 40)), batch_size=8), r"got \d\.\.3 \(epoch 1, step"),
        (DataLoader(TensorDataset(x.log() / 0, y), batch_size=8), "x holds NaN"),
    ):
        with pytest.raises(InputError, match=text):
            train_classifier(Spy(), loader, options=quick())
    holes = DataLoader(TensorDataset(torch.where(x > x[30].max() + 1, torch.nan, x), y), batch_size=1)
    with pytest.raises(InputError, match=r"x_test holds NaN.*\(batch \d+ of 50\)"):
        train_classifier(Spy(), DataLoader(data), options=quick(epochs=1), x_test=holes)
