"""What the tests of samples that are read share: files, Datasets, networks, and what a training comes to."""

import numpy as np
import torch
from torch import nn
from torch.utils.data import Dataset

from tnml.nn import MPSLayer
from tnml.training import TrainOptions

COUNT, SITES = 61, 9  # images of 3 x 3; odd numbers, so that blocks and batches are cut somewhere


def some_images():
    """Inputs and labels."""
    random = np.random.default_rng(3)
    y = np.arange(COUNT) % 3
    x = (random.integers(0, 64, (COUNT, SITES)) + 60 * y[:, None]).astype(np.uint8)
    return x, y


def quick(**more):
    return TrainOptions(**{"epochs": 3, "lr": 0.02, "batch_size": 8, "device": "cpu", **more})


def mapped(folder, array, mode="r"):
    path = folder / f"{len(list(folder.iterdir()))}.npy"
    np.save(path, array)
    return np.load(path, mmap_mode=mode)


class Pairs(Dataset):
    """Samples one by one; some of the rows are remembered."""

    def __init__(self, *columns):
        self.columns, self.asked = columns, []

    def __len__(self):
        return len(self.columns[0])

    def __getitem__(self, index):
        self.asked.append(index)
        return tuple(column[index] for column in self.columns)


class Together(Pairs):
    """Samples many at a time only."""

    def __getitem__(self, index):
        raise AssertionError("there is a quicker way")

    def __getitems__(self, indices):
        self.asked += indices
        return [tuple(column[index] for column in self.columns) for index in indices]


def outcome(train, network, *data, **more):
    """The weights and the history of one training, without its times."""
    layer = network()
    result = train(layer, *data, **more)
    rows = [
        {name: value for name, value in row.items() if name not in ("seconds", "samples_per_second")}
        for row in result.history
    ]
    return [p.tolist() for p in layer.parameters()], rows, result.test, result.n_train, result.n_validation


def network():
    torch.manual_seed(1)
    return nn.Sequential(nn.Dropout(0.2), nn.Linear(SITES, 5), nn.Tanh(), nn.Linear(5, 3))


class Pixels(nn.Module):
    """Takes bytes to [0, 1], so that the network takes raw images."""

    def forward(self, x):
        return x / 255


def chain():
    return nn.Sequential(Pixels(), MPSLayer(SITES, 3, bond_dim=3, noise=0.1, site_dropout=0.1, seed=1))
