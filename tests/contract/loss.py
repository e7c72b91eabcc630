"""What every loss has to do. A new member gives itself, an independent formula, and inherits these tests."""

from abc import ABC, abstractmethod

import numpy as np
import pytest
import torch

from tnml.errors import InputError
from tnml.nn import MPSLayer
from tnml.training import (
    SweepOptions,
    TrainOptions,
    sweep_classifier,
    sweep_regressor,
    train_classifier,
    train_regressor,
    train_replicas,
)
from tnml.training.losses import LOSSES, Loss, loss_of
from tnml.training.tasks import TASKS

EPS = torch.finfo(torch.float64).eps


class LossContract(ABC):
    """Subclass it as `TestMine(LossContract)`.

    Attributes:
        spec: what `TrainOptions(loss=...)` takes.
        task: "classification" or "regression".
        kinks: distance from the places where the loss has no derivative; None where it has one everywhere.
    """

    spec: str | dict
    task = "regression"
    classes = 3

    @staticmethod
    @abstractmethod
    def formula(outputs: np.ndarray, y: np.ndarray) -> np.ndarray:
        """The losses `[b]` of outputs `[b, c]` by numpy, in a form that shares nothing with tnml."""

    @pytest.fixture
    def loss(self) -> Loss:
        return loss_of(self.spec, self.task)

    def drawn(self, rows=7, lead=(), seed=0):
        """Outputs and targets in double precision."""
        generator = torch.Generator().manual_seed(seed)
        outputs = 2 * torch.randn(*lead, rows, self.classes, generator=generator, dtype=torch.float64)
        if self.task == "classification":
            return outputs, torch.randint(self.classes, (*lead, rows), generator=generator)
        return outputs, torch.randn(*lead, rows, self.classes, generator=generator, dtype=torch.float64)

    def test_it_stands_in_the_table(self, loss):
        name = self.spec if isinstance(self.spec, str) else self.spec["name"]
        assert self.task in LOSSES[name]
        assert loss.for_labels == (self.task == "classification")

    def test_values_are_those_of_the_formula(self, loss):
        outputs, y = self.drawn()
        np.testing.assert_allclose(
            loss.values(outputs, y), self.formula(outputs.numpy(), y.numpy()), rtol=1e-12, atol=1e-14
        )

    def test_leading_axes_are_replicas(self, loss):
        outputs, y = self.drawn(lead=(2, 4))
        found = loss.values(outputs, y)
        mean, gradient = loss.mean_and_gradient(outputs, y)
        assert found.shape == outputs.shape[:-1]
        for i in range(2):
            for k in range(4):
                torch.testing.assert_close(found[i, k], loss.values(outputs[i, k], y[i, k]))
                torch.testing.assert_close(mean[i, k], loss.mean(outputs[i, k], y[i, k]))
                alone = loss.gradient(outputs[i, k], y[i, k]) / outputs.shape[-2]
                torch.testing.assert_close(gradient[i, k], alone)

    def test_gradient_and_curvature_are_those_of_autograd(self, loss):
        outputs, y = self.drawn()
        direction = self.drawn(seed=1)[0]
        for row in range(len(outputs)):

            def value(f, truth=y[row : row + 1]):
                return loss.values(f.unsqueeze(0), truth).sum()

            one = slice(row, row + 1)
            slope = torch.autograd.functional.jacobian(value, outputs[row])
            torch.testing.assert_close(loss.gradient(outputs[one], y[one])[0], slope, rtol=1e-9, atol=1e-12)
            hessian = torch.autograd.functional.hessian(value, outputs[row])
            bent = loss.curvature(outputs[one], y[one], direction[one])[0]
            torch.testing.assert_close(bent, hessian @ direction[row], rtol=1e-9, atol=1e-12)

    def test_gradient_is_that_of_finite_differences(self, loss):
        outputs, y = self.drawn()
        step = EPS ** (1 / 3)
        gradient = loss.gradient(outputs, y)
        for c in range(outputs.shape[1]):
            ahead, back = outputs.clone(), outputs.clone()
            ahead[:, c] += step
            back[:, c] -= step
            slope = (loss.values(ahead, y) - loss.values(back, y)) / (2 * step)
            torch.testing.assert_close(gradient[:, c], slope, rtol=1e-6, atol=1e-8)

    def test_convex_means_convex(self, loss):
        (one, y), (other, _) = self.drawn(rows=200), self.drawn(rows=200, seed=2)
        middle = loss.values((one + other) / 2, y)
        ends = (loss.values(one, y) + loss.values(other, y)) / 2
        if loss.convex:
            assert bool((middle <= ends + 100 * EPS * ends.abs().clamp_min(1)).all())
        else:
            assert bool((middle > ends + 1e-3).any())

    def test_sweeps_see_the_same_loss(self, loss):
        """Targets as probabilities or real numbers: the same values and gradients."""
        outputs, y = self.drawn()
        soft = loss.targets(y, self.classes, torch.float64)
        assert soft.shape == outputs.shape
        torch.testing.assert_close(loss.values(outputs, soft), loss.values(outputs, y))
        torch.testing.assert_close(loss.gradient(outputs, soft), loss.gradient(outputs, y))

    def test_weights_count_as_repeats(self, loss):
        outputs, y = self.drawn()
        times = torch.tensor([1, 3, 0, 2, 1, 1, 4])
        weight = times.double() / times.double().mean()
        rows = torch.arange(7).repeat_interleave(times)
        mean, gradient = loss.mean_and_gradient(outputs, y, weight)
        torch.testing.assert_close(mean, loss.mean(outputs[rows], y[rows]), rtol=1e-12, atol=1e-14)
        torch.testing.assert_close(mean, loss.mean(outputs, y, weight))
        free = outputs.clone().requires_grad_()
        loss.mean(free, y, weight).backward()
        torch.testing.assert_close(gradient, free.grad, rtol=1e-9, atol=1e-14)

    def test_the_mean_in_the_loop_is_the_mean_of_the_values(self, loss):
        outputs, y = self.drawn()
        found, metrics = loss(torch.nn.Identity(), outputs, y)
        torch.testing.assert_close(found, loss.values(outputs, y).mean(), rtol=1e-12, atol=0)
        assert set(metrics) == set(TASKS[self.task].metrics)

    def data(self, rows=48):
        x = torch.rand(rows, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        if self.task == "classification":
            return x, (x[:, 0] * 2 + x[:, 1]).long()
        return x, torch.stack((x[:, 0] * x[:, 1], x[:, 2], x[:, 3] - x[:, 4]), 1)

    @property
    def functions(self):
        if self.task == "classification":
            return train_classifier, sweep_classifier
        return train_regressor, sweep_regressor

    def layer(self, seed=0):
        return MPSLayer(5, self.classes, 3, dtype="float64", seed=seed)

    def options(self, **changes):
        return TrainOptions(
            **{"loss": self.spec, "epochs": 8, "lr": 0.02, "batch_size": 16, "device": "cpu", **changes}
        )

    def test_training_lowers_it(self):
        x, y = self.data()
        result = self.functions[0](self.layer(), x, y, self.options())
        assert result.history[-1]["loss"] < 0.95 * result.history[0]["loss"]

    def test_replicas_are_the_loop(self, loss):
        x, y = self.data()
        options = self.options(validation=0.25)
        alone, together = [self.layer(s) for s in (0, 1)], [self.layer(s) for s in (0, 1)]
        if loss.by_sample:
            with pytest.raises(InputError, match="replicas cannot minimise"):
                train_replicas(together, x, y, options, task=self.task)
            return
        singles = [self.functions[0](layer, x, y, options) for layer in alone]
        both = train_replicas(together, x, y, options, task=self.task)
        for one, other, layer, twin in zip(singles, both, alone, together, strict=True):
            for name in ("loss", "val_loss"):
                numbers = [[row[name] for row in result.history] for result in (one, other)]
                np.testing.assert_allclose(*numbers, rtol=1e-7)
            torch.testing.assert_close(layer.weight, twin.weight, rtol=1e-6, atol=1e-8)

    @pytest.mark.parametrize("solver", ["newton-cg", "cg", "lbfgs"])
    def test_sweeps_lower_it_or_say_that_they_cannot(self, loss, solver):
        x, y = self.data()
        options = SweepOptions(loss=self.spec, solver=solver, sweeps=2, max_bond=4, device="cpu")
        layer = self.layer()
        before = loss.mean(layer(x), y).item()
        fits = {"newton-cg": loss.convex and loss.smooth, "cg": loss.smooth, "lbfgs": True}[solver]
        if not fits or loss.by_sample:
            with pytest.raises(InputError, match="cannot minimise"):
                self.functions[1](layer, x, y, options)
            return
        self.functions[1](layer, x, y, options)
        assert loss.mean(layer(x), y).item() < before

    def test_plain_has_the_same_minimum_on_hard_targets(self, loss):
        assert loss.plain().for_labels == loss.for_labels
        assert loss.plain().plain() == loss.plain()

    def test_it_is_of_its_task_only(self):
        others = {"classification", "regression"} - set(
            LOSSES[self.spec if isinstance(self.spec, str) else self.spec["name"]]
        )
        for other in others:
            with pytest.raises(InputError, match=f"not for {other}"):
                loss_of(self.spec, other)
