"""Every loss of the table keeps the contract; so does one that the table has only here."""

from typing import ClassVar

import numpy as np
import pytest
import torch
from contract.loss import LossContract
from scipy.special import log_softmax, softmax
from toy_loss import ROW

from tnml.errors import InputError
from tnml.nn import MPSLayer
from tnml.training import (
    SweepOptions,
    TrainOptions,
    sweep_classifier,
    train_classifier,
    train_regressor,
    train_replicas,
)
from tnml.training.losses import LOSSES, CrossEntropy, LabelSquaredError, SquaredError, loss_of


def picked(values, y):
    return np.take_along_axis(values, y[:, None], 1)[:, 0]


class TestCrossEntropy(LossContract):
    spec, task = "cross-entropy", "classification"

    @staticmethod
    def formula(outputs, y):
        return -picked(log_softmax(outputs, 1), y)


class TestLabelSquaredError(LossContract):
    spec, task = "mse", "classification"

    @staticmethod
    def formula(outputs, y):
        return ((outputs - np.eye(outputs.shape[1])[y]) ** 2).mean(1)


class TestSquaredError(LossContract):
    spec = "mse"

    @staticmethod
    def formula(outputs, y):
        return ((outputs - y) ** 2).mean(1)


class TestFocal(LossContract):
    spec: ClassVar = {"name": "focal", "gamma": 1.5}
    task = "classification"

    @staticmethod
    def formula(outputs, y):
        logs = picked(log_softmax(outputs, 1), y)
        return -((1 - np.exp(logs)) ** 1.5) * logs


class TestGeneralizedCrossEntropy(LossContract):
    spec: ClassVar = {"name": "gce", "q": 0.6}
    task = "classification"

    @staticmethod
    def formula(outputs, y):
        return (1 - softmax(outputs, 1)[np.arange(len(y)), y] ** 0.6) / 0.6


class TestSymmetricCrossEntropy(LossContract):
    spec: ClassVar = {"name": "sce", "alpha": 0.5, "beta": 2.0, "floor": -3.0}
    task = "classification"

    @staticmethod
    def formula(outputs, y):
        p, truth = softmax(outputs, 1), np.eye(outputs.shape[1])[y]
        exchanged = -(p * np.where(truth == 1, 0.0, -3.0)).sum(1)
        return -0.5 * np.log(p[np.arange(len(y)), y]) + 2 * exchanged


NOISE = [[0.7, 0.2, 0.1], [0.0, 0.9, 0.1], [0.3, 0.3, 0.4]]


class TestForwardCorrection(LossContract):
    spec: ClassVar = {"name": "forward", "transition": NOISE}
    task = "classification"

    @staticmethod
    def formula(outputs, y):
        return -np.log((softmax(outputs, 1) @ np.array(NOISE))[np.arange(len(y)), y])


class TestBackwardCorrection(LossContract):
    spec: ClassVar = {"name": "backward", "transition": NOISE}
    task = "classification"

    @staticmethod
    def formula(outputs, y):
        return -(np.linalg.inv(NOISE)[y] * np.log(softmax(outputs, 1))).sum(1)


class TestSparseNoise(LossContract):
    spec, task = "sop", "classification"

    @staticmethod
    def formula(outputs, y):
        return -picked(log_softmax(outputs, 1), y)


class TestHuber(LossContract):
    spec: ClassVar = {"name": "huber", "delta": 0.7}

    @staticmethod
    def formula(outputs, y):
        off = np.abs(outputs - y)
        return np.where(off <= 0.7, off**2 / 2, 0.7 * (off - 0.35)).mean(1)


class TestQuantile(LossContract):
    spec: ClassVar = {"name": "quantile", "quantile": 0.8}

    @staticmethod
    def formula(outputs, y):
        off = y - outputs
        return np.where(off > 0, 0.8 * off, -0.2 * off).mean(1)


class TestToy(LossContract):
    """A loss that one file under tests/ defines and one row makes known."""

    spec: ClassVar = {"name": "toy", "power": 4.0}

    @pytest.fixture(autouse=True)
    def row(self, monkeypatch):
        monkeypatch.setitem(LOSSES, "toy", ROW)

    @staticmethod
    def formula(outputs, y):
        return (np.abs(outputs - y) ** 4).mean(1)


def test_every_loss_of_the_table_has_a_contract():
    members = [case for case in LossContract.__subclasses__() if case is not TestToy]
    covered = {(c.spec if isinstance(c.spec, str) else c.spec["name"], c.task) for c in members}
    assert {(name, task) for name, row in LOSSES.items() for task in row if task != "density"} == covered


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_smoothed_labels_are_the_expected_cross_entropy(smoothing):
    outputs, y = torch.randn(6, 4, dtype=torch.float64), torch.tensor([0, 1, 2, 3, 0, 1])
    loss = CrossEntropy(smoothing)
    target = (1 - smoothing) * np.eye(4)[y] + smoothing / 4
    expected = -(target * log_softmax(outputs.numpy(), 1)).sum(1)
    np.testing.assert_allclose(loss.values(outputs, y), expected, rtol=1e-12)
    np.testing.assert_allclose(loss.values(outputs, loss.targets(y, 4, torch.float64)), expected, rtol=1e-12)
    assert loss.mean(outputs, y).item() == pytest.approx(expected.mean(), rel=1e-12)
    assert loss.plain() == CrossEntropy()


def test_the_median_minimises_the_quantile_loss():
    y = torch.tensor([0.0, 1.0, 10.0], dtype=torch.float64)[:, None]
    loss = loss_of({"name": "quantile", "quantile": 0.5}, "regression")
    at = {c: loss.mean(torch.full((3, 1), c, dtype=torch.float64), y).item() for c in (0.5, 1.0, 1.5, 3.7)}
    assert min(at, key=at.get) == 1.0


def test_focal_at_certainty_is_finite_with_finite_gradients():
    for gamma in (0.0, 0.5, 2.0):
        outputs = torch.tensor([[200.0, 0.0], [0.0, 200.0], [-200.0, 0.0]], requires_grad=True)
        value = loss_of({"name": "focal", "gamma": gamma}, "classification").mean(
            outputs, torch.tensor([0, 0, 0])
        )
        value.backward()
        assert torch.isfinite(value)
        assert torch.isfinite(outputs.grad).all()


def test_the_closed_forms_are_those_the_table_names():
    assert loss_of("mse", "classification") == LabelSquaredError()
    assert loss_of("mse", "regression") == SquaredError()
    assert loss_of("cross-entropy", "classification", label_smoothing=0.1) == CrossEntropy(0.1)


DOORS = {
    "an unknown name": ({"loss": "cross-entropi"}, "unknown loss .* did you mean 'cross-entropy'"),
    "an unknown option": ({"loss": {"name": "focal", "gama": 1}}, "option of loss 'focal' 'gama'"),
    "a mapping without a name": ({"loss": {"gamma": 1}}, "a mapping with a 'name'"),
    "an option out of range": ({"loss": {"name": "focal", "gamma": -1}}, "gamma must be a number"),
    "a loss of another task": ({"loss": "huber"}, "is for regression, not for classification"),
    "smoothing elsewhere": ({"loss": "focal", "label_smoothing": 0.1}, "goes with loss='cross-entropy'"),
}  # fmt: skip


def one_replica(layer, x, y, options, run_dir):
    return train_replicas([layer], x, y, options, task="classification")


@pytest.mark.parametrize("train", ["loop", "sweeps", "replicas"])
@pytest.mark.parametrize("case", DOORS)
def test_a_wrong_loss_is_refused_at_the_door(case, train, tmp_path):
    changes, text = DOORS[case]
    layer, x, y = MPSLayer(4, 2), np.random.RandomState(0).rand(9, 4), np.arange(9) % 2
    before = layer.weight.clone()
    options, function = {
        "loop": (lambda: TrainOptions(epochs=1, device="cpu", **changes), train_classifier),
        "sweeps": (lambda: SweepOptions(sweeps=1, device="cpu", **changes), sweep_classifier),
        "replicas": (lambda: TrainOptions(epochs=1, device="cpu", **changes), one_replica),
    }[train]
    with pytest.raises(InputError, match=text):
        function(layer, x, y, options(), run_dir=tmp_path / "run")
    assert torch.equal(layer.weight, before)
    assert not (tmp_path / "run").exists(), "nothing may be written for a run that cannot begin"


def test_a_regressor_refuses_the_cross_entropy():
    layer, x = MPSLayer(4, 1), np.random.RandomState(0).rand(9, 4)
    with pytest.raises(InputError, match="is for classification, not for regression; choose from mse, huber"):
        train_regressor(layer, x, x[:, 0], TrainOptions(loss="cross-entropy", epochs=1, device="cpu"))
