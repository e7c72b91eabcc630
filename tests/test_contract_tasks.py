"""Every task keeps the contract of tasks."""

from typing import ClassVar

import numpy as np
import torch
from contract.task import TaskContract, inputs
from torch import nn

from tnml.nn import BornMachine
from tnml.training import train_classifier, train_density, train_regressor
from tnml.training.tasks import TASKS


class TestClassification(TaskContract):
    name = "classification"
    bad_targets: ClassVar = {
        "real": (np.full(8, 0.5), "y must be whole numbers, got torch.float64; tnml.MPSClass"),
        "too large": (np.full(8, 2), r"y must lie in 0..1, the layer's outputs, got 2..2"),
        "too few": (np.zeros(7, int), r"y must have shape \[8\] as x has, got \[7\]"),
        "text": (np.array(["a"] * 8), "y must hold numbers"),
    }  # fmt: skip

    def data(self):
        return inputs(), np.arange(8) % 2

    def train(self, model, x, y, options, **given):
        return train_classifier(model, x, y, options, **given)


class TestRegression(TaskContract):
    name = "regression"
    bad_targets: ClassVar = {
        "one column": (np.ones(8), r"y must be \[8, 2\] as x and the layer say, got \[8\]"),
        "too few": (np.ones((7, 2)), r"y must be \[8, 2\]"),
        "not finite": (np.full((8, 2), np.nan), "y holds NaN"),
    }

    def data(self):
        return inputs(), inputs()[:, :2] ** 2

    def train(self, model, x, y, options, **given):
        return train_regressor(model, x, y, options, **given)


class Normal(nn.Module):
    """The log-density of independent normal distributions, `[b, 1]`."""

    def __init__(self):
        super().__init__()
        self.mean = nn.Parameter(torch.zeros(3))

    def forward(self, x):
        return torch.distributions.Normal(self.mean, 1.0).log_prob(x).sum(1, keepdim=True)


class TestDensity(TaskContract):
    name, outputs = "density", 1
    bad_targets: ClassVar = {"targets": (np.ones(8), "a density has no targets")}

    def model(self):
        return Normal()

    def data(self):
        return inputs(), None

    def train(self, model, x, y, options, **given):
        return train_density(model, x, options, **given)


class TestBornMachine(TestDensity):
    def model(self):
        return BornMachine(3, 2, features="legendre")


def test_every_task_has_a_contract():
    assert {case.name for case in TaskContract.__subclasses__()} == set(TASKS)
