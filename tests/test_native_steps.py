"""Steps by one native call: numbers of the long way to rounding, the same bits however they are grouped."""

import copy
import importlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from tnml.loop import run
from tnml.nn import MPSLayer
from tnml.nn.native import native_chain_of
from tnml.torch_private import state_of_adam
from tnml.training import TrainingInterrupted, TrainOptions, train_classifier, train_regressor
from tnml.training.batches import ArrayBatches, batch_count
from tnml.training.losses import CrossEntropy, SquaredError
from tnml.training.short import ShortSteps

SITES, CLASSES, OUTPUTS, SAMPLES = 5, 3, 2, 40
short = importlib.import_module("tnml.training.short")


@contextmanager
def taken() -> Iterator[list[int]]:
    """Counts the steps of every call of the short way."""
    counts: list[int] = []
    real = ShortSteps.take

    def take(self: ShortSteps, batch: Any, sizes: Any, rates: Any) -> Any:
        found = real(self, batch, sizes, rates)
        counts.append(0 if found is None else len(sizes))
        return found

    with mock.patch.object(ShortSteps, "take", take):
        yield counts


def data(sites: int = SITES) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Inputs, labels, targets, weights."""
    generator = torch.Generator().manual_seed(3)
    x = torch.rand(SAMPLES, sites, generator=generator)
    labels = torch.randint(0, CLASSES, (SAMPLES,), generator=generator)
    targets = torch.randn(SAMPLES, OUTPUTS, generator=generator)
    return x, labels, targets, torch.rand(SAMPLES, generator=generator) + 0.1


def fit(
    task: str, options: dict[str, Any], layer: MPSLayer, *, weighted: bool = False, **more: Any
) -> tuple[MPSLayer, list[dict[str, float]]]:
    sets = data(layer.n_sites)
    x, labels, targets, weight = (t.to(layer.dtype) if t.is_floating_point() else t for t in sets)
    chosen = TrainOptions(**{"epochs": 3, "batch_size": 16, "lr": 0.01, "device": "cpu", **options})
    train, y = (train_classifier, labels) if task == "labels" else (train_regressor, targets)
    x, weights = more.pop("x", x), weight if weighted else None
    history = train(layer, x, y, chosen, sample_weight=weights, **more).history
    return layer, [{name: value for name, value in row.items() if "second" not in name} for row in history]


def pairs(one: nn.Module, other: nn.Module) -> Iterator[tuple[Tensor, Tensor]]:
    return zip(one.parameters(), other.parameters(), strict=True)


def fresh(task: str = "labels", sites: int = SITES, **settings: Any) -> MPSLayer:
    outputs = CLASSES if task == "labels" else OUTPUTS
    layer = MPSLayer(sites, outputs, **{"bond_dim": 4, "noise": 0.3, **settings})
    return layer.rescale_(data(sites)[0])


CASES: list[tuple[str, dict[str, Any], dict[str, Any], bool]] = [
    ("labels", {}, {}, False),
    ("labels", {"label_smoothing": 0.1, "clip_norm": 0.1}, {"features": "rbf"}, True),
    ("labels", {"optimizer": "adamw", "weight_decay": 0.1, "batch_size": 39}, {"label_site": 0}, False),
    ("labels", {"weight_decay": 0.1, "average": "ema"}, {"label_site": 5, "bond_dim": 1}, False),
    ("labels", {"label_smoothing": 0.3}, {"sites": 40, "bond_dim": 7}, False),
    ("targets", {}, {}, True),
    ("targets", {"clip_norm": 0.1, "batch_size": 1, "epochs": 1}, {"sites": 40, "noise": 0.6}, False),
]


@pytest.mark.parametrize(("task", "options", "settings", "weighted"), CASES)
def test_a_fit_is_the_long_one_to_rounding(
    task: str, options: dict[str, Any], settings: dict[str, Any], weighted: bool
) -> None:
    """The oracle is the fit in double precision, which takes the long way; and so does the other one."""
    start = fresh(task, **settings)
    with taken() as counts:
        found, rows = fit(task, options, copy.deepcopy(start), weighted=weighted)
    assert sum(counts) == len(rows) * batch_count(SAMPLES, options.get("batch_size", 16))
    with mock.patch.object(short, "MOST_WORK", 0), taken() as counts:
        long, _ = fit(task, options, copy.deepcopy(start), weighted=weighted)
        truth, true_rows = fit(task, options, copy.deepcopy(start).double(), weighted=weighted)
    assert not counts
    for name in ("weight", "label"):
        one, other, true = (getattr(layer, name).detach().double() for layer in (found, long, truth))
        assert (one - true).abs().max() <= 4 * (other - true).abs().max() + 2e-6
    for row, expected in zip(rows, true_rows, strict=True):
        assert row.keys() == expected.keys()
        assert row["loss"] == pytest.approx(expected["loss"], rel=1e-5)
        assert {**row, "loss": 0.0} == {**expected, "loss": 0.0}


def test_how_steps_are_grouped_and_who_looks_on_changes_no_bit(tmp_path: Path) -> None:
    start, seen = fresh(noise=0.5), []
    with taken() as counts:
        expected, rows = fit("labels", {}, copy.deepcopy(start))
    assert counts == [3, 3, 3]
    np.save(tmp_path / "x.npy", data()[0].numpy())
    ways: list[dict[str, Any]] = [
        {"on_step": lambda view: seen.append(view.means()["loss"])},
        {"callbacks": [lambda *_: {"number": 1.0}]},
        {"x": np.load(tmp_path / "x.npy", mmap_mode="r")},
        {"run_dir": tmp_path / "run"},
    ]
    for more in ways:
        with taken() as counts:
            found, same = fit("labels", {}, copy.deepcopy(start), **more)
        assert sum(counts) == 9
        assert all(torch.equal(a, b) for a, b in pairs(found, expected))
        assert [{**row, "number": 0} for row in same] == [{**row, "number": 0} for row in rows]
    assert len(seen) == 9
    assert seen[8] == rows[2]["loss"]


def test_a_run_that_is_stopped_inside_an_epoch_resumes_to_the_same_bits(tmp_path: Path) -> None:
    start = fresh()
    expected, rows = fit("labels", {"batch_size": 4}, copy.deepcopy(start))

    def stop(view: Any) -> None:
        if (view.epoch, view.step) == (2, 4):
            raise KeyboardInterrupt

    layer = copy.deepcopy(start)
    with pytest.raises(TrainingInterrupted):
        fit("labels", {"batch_size": 4}, layer, run_dir=tmp_path / "run", on_step=stop)
    with taken() as counts:
        found, same = fit("labels", {"batch_size": 4}, fresh(), run_dir=tmp_path / "run", resume=True)
    assert counts == [6, 10]
    assert all(torch.equal(a, b) for a, b in pairs(found, expected))
    assert same == rows


def test_a_run_begun_the_long_way_goes_on(tmp_path: Path) -> None:
    """The optimiser's state is the same kind of state whoever wrote it."""
    options, start = {"epochs": 4, "schedule": "constant"}, fresh()
    with mock.patch.object(short, "MOST_WORK", 0):
        truth, _ = fit("labels", options, copy.deepcopy(start).double())
        fit("labels", {**options, "epochs": 2}, copy.deepcopy(start), run_dir=tmp_path / "run")
    with taken() as counts:
        found, rows = fit("labels", options, fresh(), run_dir=tmp_path / "run", resume=True)
    assert counts == [3, 3]
    assert len(rows) == 4
    assert all((a - b).abs().max() < 1e-5 for a, b in pairs(found, truth))


def test_gradients_and_state_are_left_as_the_optimiser_leaves_them() -> None:
    x, labels, *_ = data()
    layer, gradients = fresh(), []

    def keep(view: Any) -> None:
        state = view.optimizer.state
        gradients.append([p.grad.clone() for p in layer.parameters()])
        assert [state[p]["step"].item() for p in layer.parameters()] == [view.step] * 2

    version = layer.weight._version
    before = copy.deepcopy(layer).double()
    fit("labels", {"epochs": 1, "batch_size": SAMPLES}, layer, on_step=keep)
    assert layer.weight._version > version
    cross_entropy(before(x.double()), labels).backward()
    for found, p in zip(gradients[0], before.parameters(), strict=True):
        assert (found - p.grad).abs().max() < 1e-6 * p.grad.abs().max()
    weight = nn.Parameter(torch.zeros(2, 3).t())
    mine, theirs = torch.optim.Adam([weight], fused=True), torch.optim.Adam([weight], fused=True)
    weight.grad = torch.zeros_like(weight)
    theirs.step()
    state, other = state_of_adam(mine, weight), theirs.state[weight]
    assert state.keys() == other.keys()
    assert all(state[k].dtype == other[k].dtype and state[k].stride() == other[k].stride() for k in state)


class Doubled(MPSLayer):
    def contract(self, features: Tensor) -> tuple[Tensor, Tensor]:
        value, exponent = super().contract(features)
        return 2 * value, exponent


class Half(CrossEntropy):
    def mean(self, *arguments: Any) -> Tensor:
        return super().mean(*arguments) / 2


def hooked(layer: MPSLayer, register: str) -> MPSLayer:
    getattr(layer, register)(lambda *_: None)
    return layer


def with_frozen_label(layer: MPSLayer) -> MPSLayer:
    layer.label.requires_grad_(False)
    return layer


def gradient_hooked(layer: MPSLayer) -> MPSLayer:
    layer.weight.register_hook(lambda gradient: gradient)
    return layer


CLOSED: dict[str, tuple[Callable[[], nn.Module], dict[str, Any]]] = {
    "another module": (lambda: nn.Linear(SITES, CLASSES), {}),
    "a layer inside another module": (lambda: nn.Sequential(fresh()), {}),
    "a subclass": (lambda: Doubled(SITES, CLASSES, 4), {}),
    "double precision": (lambda: fresh().double(), {}),
    "another engine": (lambda: fresh(engine="torch"), {}),
    "bond dropout": (lambda: fresh(bond_dropout=0.1), {}),
    "site dropout": (lambda: fresh(site_dropout=0.1), {}),
    "a hook": (lambda: hooked(fresh(), "register_forward_hook"), {}),
    "a hook before": (lambda: hooked(fresh(), "register_forward_pre_hook"), {}),
    "a hook of a gradient": (lambda: gradient_hooked(fresh()), {}),
    "a frozen label core": (lambda: with_frozen_label(fresh()), {}),
    "a weight norm": (lambda: nn.utils.parametrizations.weight_norm(fresh(), "label"), {}),
    "another optimiser": (fresh, {"optimizer": "sgd"}),
    "mixed precision": (fresh, {"precision": "bf16-mixed"}),
    "another loss": (fresh, {"loss": "focal"}),
    "much work": (lambda: MPSLayer(64, CLASSES, 32), {}),
}


@pytest.mark.parametrize("name", CLOSED)
def test_where_more_happens_than_a_chain_the_long_way_is_taken(name: str) -> None:
    make, options = CLOSED[name]
    module = make()
    x = data(64)[0] if name == "much work" else data()[0]
    chosen = TrainOptions(**{"epochs": 1, "batch_size": 16, "device": "cpu", **options})
    with mock.patch.object(short, "native_steps", side_effect=AssertionError("the native steps were taken")):
        train_classifier(module, x, data()[1], chosen)
    loss = Half()
    assert loss.short_way(fresh(), torch.optim.Adam(fresh().parameters(), fused=True), chosen) is None


def test_what_happens_to_optimiser_and_module_during_a_run_counts() -> None:
    layer = fresh()
    optimizer = torch.optim.Adam(layer.parameters(), fused=True)
    steps = SquaredError().short_way(layer, optimizer, TrainOptions())
    assert steps is not None
    assert steps.is_open(8)
    assert not steps.is_open(10**6)
    handle = optimizer.register_step_post_hook(lambda *_: None)
    assert not steps.is_open(8)
    handle.remove()
    assert steps.is_open(8)
    with torch.autocast("cpu", torch.bfloat16):
        assert not steps.is_open(8)
    assert native_chain_of(layer) is not None
    assert native_chain_of(hooked(fresh(), "register_full_backward_hook")) is None
    layer.forward = lambda x: x  # type: ignore[method-assign]
    assert not steps.is_open(8)


def test_labels_out_of_range_are_refused_as_ever() -> None:
    x, labels, *_ = data()
    batches = ArrayBatches(x, labels + 1, TrainOptions(batch_size=8))
    with taken() as counts, pytest.raises(IndexError, match="out of bounds"):
        run(fresh(), CrossEntropy(), batches, TrainOptions(epochs=1, device="cpu"))
    assert set(counts) == {0}


def test_joined_batches_are_those_of_their_steps() -> None:
    x, labels, _, weight = data()
    batches = ArrayBatches(x, labels, TrainOptions(batch_size=13), weight=weight)
    sizes, joined = batches.sizes(1, 2), batches.joined(4, 1, 2)
    assert sizes == [13, 14]
    alone = [batches(4, step) for step in (1, 2)]
    for name in ("x", "y", "index", "weight"):
        assert torch.equal(getattr(joined, name), torch.cat([getattr(batch, name) for batch in alone]))
    moved = ArrayBatches(x, labels, TrainOptions(batch_size=13, max_shift=1), (1, SITES))
    assert moved.sizes(0, 2) == []


def test_a_loss_that_is_not_finite_is_seen() -> None:
    with pytest.raises(Exception, match=r"NaN or infinite in epoch 1, at step 3 of 3"):
        fit("labels", {"lr": 1e30}, fresh())
