"""Callbacks: their numbers in the records of a run, their memory in checkpoints, early stopping by them."""

import csv

import pytest
import torch

from tnml.diagnostics import Susceptibility, Tracker
from tnml.errors import InputError
from tnml.nn import MPSLayer
from tnml.training import (
    SweepOptions,
    TrainingInterrupted,
    TrainOptions,
    sweep_classifier,
    train_classifier,
    train_regressor,
    train_replicas,
)

QUICK = {"epochs": 4, "lr": 0.02, "batch_size": 16, "device": "cpu"}


@pytest.fixture(scope="module")
def data():
    x = torch.rand(48, 5, generator=torch.Generator().manual_seed(0))
    return x, (2 * x[:, 0] + x[:, 1]).long()


def layer(seed=0):
    return MPSLayer(5, 3, 3, seed=seed)


class Count:
    """A diagnostic with a memory."""

    def __init__(self):
        self.calls = 0

    def __call__(self, module, optimizer, row):
        self.calls += 1
        return {"calls": self.calls, "norm": module.weight.norm().item()}

    def state_dict(self):
        return {"calls": self.calls}

    def load_state_dict(self, state):
        self.calls = state["calls"]


def test_numbers_join_the_row_the_file_and_the_next_callback(data, tmp_path):
    seen = []
    result = train_classifier(
        layer(), *data, TrainOptions(**QUICK, validation=0.25), run_dir=tmp_path,
        callbacks=[Count(), lambda module, optimizer, row: seen.append((dict(row), module.training))],
    )  # fmt: skip
    assert [row["calls"] for row in result.history] == [1, 2, 3, 4]
    assert [row["norm"] for row in result.history] == [row["norm"] for row, _ in seen]
    assert not any(training for _, training in seen)
    assert {"epoch", "loss", "accuracy", "val_loss", "val_accuracy", "calls"} <= set(seen[0][0])
    with open(tmp_path / "metrics.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [float(row["norm"]) for row in rows] == [row["norm"] for row in result.history]


def test_callbacks_change_no_bit_of_the_training(data):
    plain, watched = layer(), layer()
    train_classifier(plain, *data, TrainOptions(**QUICK))
    draw = lambda module, optimizer, row: {"drawn": torch.rand(()).item()}  # noqa: E731
    probe = Susceptibility(data[0], 3, 16)
    result = train_classifier(watched, *data, TrainOptions(**QUICK), callbacks=[draw, Tracker(), probe])
    assert torch.equal(plain.weight, watched.weight)
    assert {"drawn", "log_norm", "entropy_mean", "phi", "zeta"} <= set(result.history[-1])


def test_memory_comes_back_when_a_run_is_resumed(data, tmp_path):
    def stopped(view):
        if (view.epoch, view.step) == (3, 2):
            raise KeyboardInterrupt

    options = TrainOptions(**QUICK)
    expected = train_classifier(layer(), *data, options, callbacks=[Count(), Tracker()])
    with pytest.raises(TrainingInterrupted):
        train_classifier(
            layer(), *data, options, run_dir=tmp_path, on_step=stopped, callbacks=[Count(), Tracker()]
        )
    tracker = Tracker()
    found = train_classifier(
        layer(), *data, options, run_dir=tmp_path, resume=True, callbacks=[Count(), tracker]
    )
    for name in ("calls", "norm", "log_norm_growth", "loss"):
        assert [row[name] for row in found.history] == [row[name] for row in expected.history]
    assert len(tracker.history) == 4


def test_other_callbacks_may_watch_a_resumed_run(data, tmp_path):
    options = TrainOptions(**QUICK | {"schedule": "constant", "epochs": 1})
    train_classifier(layer(), *data, options, run_dir=tmp_path, callbacks=[Count()])
    options = TrainOptions(**QUICK | {"schedule": "constant", "epochs": 2})
    found = train_classifier(layer(), *data, options, run_dir=tmp_path, resume=True)
    assert ["calls" in row for row in found.history] == [True, False]


@pytest.mark.parametrize("mode", ["min", "max"])
def test_training_stops_by_any_column(data, mode):
    values = iter([3.0, 1.0, 2.0, 2.5])
    options = TrainOptions(
        **QUICK | {"epochs": 20}, patience=2, monitor="mine", monitor_mode=mode, validation=0.25
    )
    result = train_classifier(
        layer(), *data, options, callbacks=[lambda module, optimizer, row: {"mine": next(values)}]
    )
    assert (result.best_epoch, len(result.history)) == ((2, 4) if mode == "min" else (1, 3))


def test_sweeps_call_after_every_sweep(data, tmp_path):
    options = SweepOptions(sweeps=3, max_bond=3, device="cpu")
    plain, watched = layer(), layer()
    sweep_classifier(plain, *data, options)
    result = sweep_classifier(watched, *data, options, run_dir=tmp_path, callbacks=[Count(), Tracker()])
    assert torch.equal(plain.weight, watched.weight)
    assert [row["calls"] for row in result.history] == [1, 2, 3]
    assert result.history[-1]["norm"] == watched.weight.norm().item()
    assert "norm" in (tmp_path / "metrics.csv").read_text().splitlines()[0]


def test_each_replica_has_callbacks_of_its_own(data):
    options = TrainOptions(**QUICK)
    together, alone = [layer(s) for s in (0, 1)], [layer(s) for s in (0, 1)]
    found = train_replicas(
        together, *data, options, task="classification", callbacks=[[Count()], [Count(), Tracker()]]
    )
    for one, result in zip(alone, found, strict=True):
        expected = train_classifier(one, *data, options, callbacks=[Count()])
        for row, other in zip(result.history, expected.history, strict=True):
            assert row["calls"] == other["calls"]
            assert row["norm"] == pytest.approx(other["norm"], rel=1e-5)
    assert "log_norm" in found[1].history[0]
    assert "log_norm" not in found[0].history[0]


BAD = {
    "no mapping": (lambda module, optimizer, row: 3.0, "a mapping from names to numbers, or None, got float"),
    "no number": (lambda module, optimizer, row: {"a": "b"}, "a callback gave 'a': 'b', expected a number"),
    "a name twice": (lambda module, optimizer, row: {"loss": 1.0}, "'loss', which is measured already"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_what_is_no_row_is_refused(case, data):
    callback, text = BAD[case]
    with pytest.raises(InputError, match=text):
        train_classifier(layer(), *data, TrainOptions(**QUICK), callbacks=[callback])


def test_an_unmeasured_column_cannot_be_watched(data):
    options = TrainOptions(**QUICK, patience=2, monitor="mine", validation=0.25)
    with pytest.raises(InputError, match="monitor='mine', which is not measured"):
        train_classifier(layer(), *data, options)
    with pytest.raises(InputError, match="monitor='mine', which is not measured; got epoch"):
        train_classifier(layer(), *data, options, callbacks=[lambda module, optimizer, row: None])


def test_a_regressor_has_a_test_set_too(data):
    x = data[0]
    y = x[:, :3].cumprod(1)
    model = layer()
    result = train_regressor(model, x, y, TrainOptions(**QUICK), x_test=x[:7], y_test=y[:7])
    expected = (model(x[:7]) - y[:7]).square().mean().item()
    assert result.test == {"loss": pytest.approx(expected, rel=1e-5)}
