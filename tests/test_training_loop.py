"""The loop against answers known without it: least squares, hand recurrences, torch's own optimisers."""

import csv
import sys
import types

import numpy as np
import pytest
import torch
from torch import nn

from tnml.errors import InputError
from tnml.loop.optim import clip_gradients
from tnml.training import LoopOptions, TrainingDiverged, TrainingInterrupted, run


class Fixed:
    """The same tensors every time, or one slice per step."""

    def __init__(self, *tensors, steps=1):
        self.tensors, self.steps_per_epoch = tensors, steps

    def __call__(self, epoch, step):
        size = -(-len(self.tensors[0]) // self.steps_per_epoch)
        return tuple(t[step * size : (step + 1) * size] for t in self.tensors)


def squared(module, x, y):
    return (module(x) - y).square().mean()


@pytest.fixture
def line():
    """A least-squares problem and numpy's answer to it."""
    random = np.random.default_rng(3)
    a, noise = random.normal(size=(40, 3)), random.normal(size=(40, 2))
    y = a @ random.normal(size=(3, 2)) + 0.1 * noise
    solution = np.linalg.lstsq(np.hstack([a, np.ones((40, 1))]), y, rcond=None)[0]
    return torch.tensor(a), torch.tensor(y), torch.tensor(solution)


@pytest.mark.parametrize(
    "options",
    [
        {"optimizer": "lbfgs", "lr": 1.0, "schedule": "constant", "epochs": 10},
        {"optimizer": "adam", "lr": 0.1, "schedule": "cosine", "epochs": 400},
        {"optimizer": "sgd", "lr": 0.05, "schedule": "constant", "epochs": 400},
    ],
    ids=lambda o: o["optimizer"],
)
def test_reaches_the_least_squares_solution(line, options):
    a, y, solution = line
    net = nn.Linear(3, 2, dtype=torch.float64)
    result = run(net, squared, Fixed(a, y), LoopOptions(device="cpu", **options))
    found = torch.cat([net.weight.detach().T, net.bias.detach()[None]])
    assert (found - solution).abs().max() < 1e-4
    residual = (a @ solution[:3] + solution[3] - y).square().mean()
    assert result.history[-1]["loss"] == pytest.approx(residual.item(), rel=1e-4)


@pytest.mark.parametrize(("name", "kind"), [("adam", torch.optim.Adam), ("adamw", torch.optim.AdamW)])
def test_steps_are_those_of_torch(line, name, kind):
    a, y, _ = line
    net, twin = nn.Linear(3, 2, dtype=torch.float64), nn.Linear(3, 2, dtype=torch.float64)
    twin.load_state_dict(net.state_dict())
    options = LoopOptions(
        epochs=3, optimizer=name, lr=0.05, weight_decay=0.1, clip_norm=0.5, schedule="constant", device="cpu"
    )
    run(net, squared, Fixed(a, y, steps=3), options)
    optimizer = kind(twin.parameters(), lr=0.05, weight_decay=0.1)
    for step in range(9):
        part = slice(14 * (step % 3), 14 * (step % 3) + 14)
        optimizer.zero_grad()
        squared(twin, a[part], y[part]).backward()
        nn.utils.clip_grad_norm_(twin.parameters(), 0.5)
        optimizer.step()
    assert torch.allclose(net.weight, twin.weight, atol=1e-12)
    assert torch.allclose(net.bias, twin.bias, atol=1e-12)


def test_per_sample_losses_and_metrics_are_averaged_over_uneven_batches(line):
    a, y, _ = line

    def loss_fn(module, x, target):
        error = (module(x) - target).square().mean(1)
        return error, {"sample": error.detach(), "batch": error.detach().mean()}

    nets = [nn.Linear(3, 2, dtype=torch.float64) for _ in range(2)]
    nets[1].load_state_dict(nets[0].state_dict())
    options = LoopOptions(
        epochs=1, lr=1e-12, device="cpu"
    )  # the weights stay, so the mean is that of the start
    row = run(nets[0], loss_fn, Fixed(a, y, steps=6), options).history[0]
    expected = squared(nets[1], a, y).item()
    assert row["loss"] == pytest.approx(expected, rel=1e-9)
    assert row["sample"] == pytest.approx(expected, rel=1e-9)
    assert row["batch"] == pytest.approx(expected, rel=1e-9)


def test_moving_average_follows_its_recurrence(line):
    a, y, _ = line
    net = nn.Linear(3, 2, dtype=torch.float64)
    start, live, seen = net.weight.detach().clone(), [], []
    run(
        net,
        squared,
        Fixed(a, y, steps=4),
        LoopOptions(epochs=3, lr=0.1, average="ema", ema_decay=0.4, device="cpu"),
        on_step=lambda view: live.append(net.weight.detach().clone()),
        evaluate=lambda module: seen.append(module.weight.detach().clone()) or {},
    )
    average, by_epoch = start, []
    for t, weight in enumerate(live, start=1):
        keep = min(0.4, (1 + t) / (10 + t))
        average = keep * average + (1 - keep) * weight
        if t % 4 == 0:
            by_epoch.append(average)
    assert torch.allclose(net.weight, average, atol=1e-13)
    assert all(torch.allclose(a, b, atol=1e-13) for a, b in zip(seen, by_epoch, strict=True))
    assert not torch.allclose(live[-1], average, atol=1e-4)


def test_clipping_shortens_only_what_is_too_long():
    parameters = [torch.zeros(3, requires_grad=True), torch.zeros(2, requires_grad=True)]
    for length in (10.0, 0.1):
        gradients = [torch.full((3,), length), torch.full((2,), -length)]
        for p, g in zip(parameters, gradients, strict=True):
            p.grad = g.clone()
        norm = (5 * length**2) ** 0.5
        assert clip_gradients(parameters, 1.0).item() == pytest.approx(norm, rel=1e-6)
        scale = min(1.0, 1.0 / norm)
        for p, g in zip(parameters, gradients, strict=True):
            assert torch.allclose(p.grad, g * scale, rtol=1e-5)


def test_early_stopping_restores_the_best_weights(line):
    a, y, _ = line
    net, weights = nn.Linear(3, 2, dtype=torch.float64), []
    values = iter([3.0, 2.0, float("nan"), 1.0, 1.5, 1.0, 7.0, 0.0])

    def evaluate(module):
        weights.append(module.weight.detach().clone())
        return {"val_loss": next(values)}

    options = LoopOptions(epochs=50, lr=0.1, patience=3, device="cpu")
    result = run(net, squared, Fixed(a, y), options, evaluate=evaluate)
    assert (len(result.history), result.stopped_early, result.best_epoch) == (7, True, 4)
    assert torch.equal(net.weight, weights[3])
    assert torch.equal(result.state["weight"], weights[3])


def test_early_stopping_takes_the_higher_accuracy(line):
    a, y, _ = line
    values = iter([0.1, 0.5, 0.4, 0.3])
    options = LoopOptions(epochs=50, patience=2, monitor="val_accuracy", device="cpu")
    result = run(
        nn.Linear(3, 2).double(),
        squared,
        Fixed(a, y),
        options,
        evaluate=lambda m: {"val_accuracy": next(values)},
    )
    assert (len(result.history), result.best_epoch) == (4, 2)


def test_unknown_monitor_is_refused(line):
    options = LoopOptions(epochs=2, patience=1, monitor="val_los", device="cpu")
    with pytest.raises(InputError, match=r"val_los.*not measured; got epoch, loss"):
        run(nn.Linear(3, 2).double(), squared, Fixed(*line[:2]), options)


def test_evaluation_is_without_gradients_and_dropout_but_training_is_not(line):
    net, modes = nn.Linear(3, 2, dtype=torch.float64).eval(), []

    def loss_fn(module, x, y):
        modes.append(module.training and torch.is_grad_enabled())
        return squared(module, x, y)

    def evaluate(module):
        modes.append(module.training or torch.is_grad_enabled())
        return {}

    run(net, loss_fn, Fixed(*line[:2]), LoopOptions(epochs=2, device="cpu"), evaluate=evaluate)
    assert modes == [True, False, True, False]
    assert not net.training


def test_the_callers_randomness_is_left_alone(line):
    torch_before, numpy_before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002

    def noisy(module, x, y):
        return squared(module, x + 0.1 * torch.randn_like(x), y)

    run(nn.Linear(3, 2).double(), noisy, Fixed(*line[:2]), LoopOptions(epochs=2, device="cpu"))
    after = torch.get_rng_state()
    torch.set_rng_state(torch_before)
    nn.Linear(3, 2)  # the module itself was made from the caller's generator
    assert torch.equal(after, torch.get_rng_state())
    assert (numpy_before == np.random.get_state()[1]).all()  # noqa: NPY002


def test_the_seed_decides_the_noise(line):
    def final(seed):
        net = nn.Linear(3, 2, dtype=torch.float64)
        nn.init.zeros_(net.weight), nn.init.zeros_(net.bias)
        loss = lambda m, x, y: squared(m, x + torch.randn_like(x), y)  # noqa: E731
        run(net, loss, Fixed(*line[:2]), LoopOptions(epochs=3, seed=seed, device="cpu"))
        return net.weight.detach()

    assert torch.equal(final(1), final(1))
    assert not torch.equal(final(1), final(2))


@pytest.mark.parametrize("options", [{"lr": 1e30, "optimizer": "sgd"}, {"lr": 1e30, "optimizer": "lbfgs"}])
def test_a_diverging_run_says_what_to_do(line, options, tmp_path):
    def explode(module, x, y):
        return (module(x) * 1e30).square().mean() * 1e300 * 1e300

    with pytest.raises(TrainingDiverged, match=r"epoch 1.*lower lr \(now 1e\+30\), or clip_norm"):
        run(nn.Linear(3, 2).double(), explode, Fixed(*line[:2]), LoopOptions(device="cpu", **options))


def test_a_diverged_run_leaves_a_finite_checkpoint(line, tmp_path):
    calls = []

    def breaks(module, x, y):
        calls.append(0)
        return squared(module, x, y) * (float("nan") if len(calls) > 8 else 1.0)

    with pytest.raises(TrainingDiverged, match="epoch 3, at step 4 of 4"):
        run(
            nn.Linear(3, 2).double(),
            breaks,
            Fixed(*line[:2], steps=4),
            LoopOptions(epochs=5, device="cpu"),
            run_dir=tmp_path,
        )
    state = torch.load(tmp_path / "checkpoint.pt", weights_only=True)["state"]
    assert state["epoch"] == 2
    assert all(torch.isfinite(t).all() for t in state["stepper"]["module"].values())


def test_second_derivatives_inside_the_loss(line):
    """A loss of a differential equation: u'' = 2 with u(0) = 0, u(1) = 1, by a quadratic ansatz."""

    class Quadratic(nn.Module):
        def __init__(self):
            super().__init__()
            self.c = nn.Parameter(torch.tensor([0.3, 0.2, 0.1], dtype=torch.float64))

        def forward(self, x):
            return self.c[0] + self.c[1] * x + self.c[2] * x**2

    def loss_fn(module, x):
        x = x.clone().requires_grad_()
        (first,) = torch.autograd.grad(module(x).sum(), x, create_graph=True)
        (second,) = torch.autograd.grad(first.sum(), x, create_graph=True)
        ends = module(torch.tensor([0.0, 1.0], dtype=torch.float64)) - torch.tensor([0.0, 1.0])
        return (second - 2).square().mean() + ends.square().sum()

    net = Quadratic()
    x = torch.linspace(0, 1, 9, dtype=torch.float64)
    run(
        net,
        loss_fn,
        Fixed(x),
        LoopOptions(epochs=20, optimizer="lbfgs", lr=1.0, schedule="constant", device="cpu"),
    )
    assert torch.allclose(net.c, torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64), atol=1e-6)


def test_a_loss_without_data_and_complex_parameters():
    class Point(nn.Module):
        def __init__(self):
            super().__init__()
            self.z = nn.Parameter(torch.zeros(2, dtype=torch.complex128))

    class Nothing:
        steps_per_epoch = 100

        def __call__(self, epoch, step):
            return ()

    net, goal = Point(), torch.tensor([1 + 2j, -3j], dtype=torch.complex128)
    run(
        net,
        lambda m: (m.z - goal).abs().square().sum(),
        Nothing(),
        LoopOptions(epochs=5, lr=0.1, device="cpu"),
    )
    assert (net.z - goal).abs().max() < 0.02
    with pytest.raises(InputError, match="real parameters"):
        run(net, lambda m: m.z.abs().sum(), Nothing(), LoopOptions(precision="32", device="cpu"))


def test_precision_is_that_asked_for(line):
    net = nn.Linear(3, 2)
    run(net, squared, Fixed(*line[:2]), LoopOptions(epochs=1, precision="64", device="cpu"))
    assert net.weight.dtype == torch.float64
    mixed, seen = nn.Linear(3, 2), []
    batch = [t.float() for t in line[:2]]

    def loss_fn(module, x, y):
        seen.append(module(x).dtype)
        return squared(module, x, y)

    run(mixed, loss_fn, Fixed(*batch), LoopOptions(epochs=1, precision="bf16-mixed", device="cpu"))
    assert (seen, mixed.weight.dtype) == ([torch.bfloat16], torch.float32)


def test_nothing_to_train_is_refused(line):
    with pytest.raises(InputError, match="nothing to train"):
        run(nn.Linear(3, 2).requires_grad_(False), squared, Fixed(*line[:2]), LoopOptions(device="cpu"))
    with pytest.raises(InputError, match="steps_per_epoch must be at least 1"):
        run(nn.Linear(3, 2), squared, Fixed(*line[:2], steps=0), LoopOptions(device="cpu"))


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA device")
def test_missing_cuda_is_refused(line):
    with pytest.raises(InputError, match="needs CUDA device 0, this machine shows 0"):
        run(nn.Linear(3, 2), squared, Fixed(*line[:2]), LoopOptions(device="cuda"))


def test_nothing_is_printed(line, capfd, tmp_path):
    run(
        nn.Linear(3, 2).double(),
        squared,
        Fixed(*line[:2]),
        LoopOptions(epochs=2, device="cpu"),
        run_dir=tmp_path,
    )
    assert capfd.readouterr() == ("", "")


def test_metrics_file_holds_the_history(line, tmp_path):
    rows = []
    result = run(
        nn.Linear(3, 2).double(),
        squared,
        Fixed(*line[:2]),
        LoopOptions(epochs=3, device="cpu"),
        run_dir=tmp_path,
        evaluate=lambda module: {"extra": 1.5},
        on_epoch=rows.append,
    )
    with open(tmp_path / "metrics.csv", newline="") as stream:
        stored = [{name: float(value) for name, value in row.items()} for row in csv.DictReader(stream)]
    assert stored == result.history == rows
    assert [row["epoch"] for row in stored] == [1, 2, 3]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["checkpoint.pt", "metrics.csv"]


def test_tensorboard_gets_every_epoch_once(line, tmp_path, monkeypatch):
    written = []

    class SummaryWriter:
        def __init__(self, log_dir, purge_step):
            written.append(("open", purge_step))

        def add_scalar(self, name, value, epoch):
            written.append((name, epoch))

        def flush(self):
            pass

        def close(self):
            written.append(("close", 0))

    fake = types.ModuleType("torch.utils.tensorboard")
    fake.SummaryWriter = SummaryWriter
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", fake)
    options = LoopOptions(epochs=2, tensorboard=True, device="cpu")
    run(nn.Linear(3, 2).double(), squared, Fixed(*line[:2]), options, run_dir=tmp_path)
    assert [entry for entry in written if entry[0] in ("open", "loss", "close")] == [
        ("open", 1),
        ("loss", 1),
        ("loss", 2),
        ("close", 0),
    ]


def test_missing_tensorboard_is_said(line, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    options = LoopOptions(epochs=1, tensorboard=True, device="cpu")
    with pytest.raises(InputError, match="pip install tensorboard"):
        run(nn.Linear(3, 2).double(), squared, Fixed(*line[:2]), options, run_dir=tmp_path)


def test_interrupt_without_a_folder(line):
    def stop(view):
        raise KeyboardInterrupt

    with pytest.raises(TrainingInterrupted, match="no run folder") as caught:
        run(nn.Linear(3, 2).double(), squared, Fixed(*line[:2]), LoopOptions(device="cpu"), on_step=stop)
    assert caught.value.run_dir is None


@pytest.mark.gpu
def test_cuda_agrees_with_the_cpu(line):
    a, y, _ = line
    nets = [nn.Linear(3, 2, dtype=torch.float64) for _ in range(2)]
    nets[1].load_state_dict(nets[0].state_dict())
    for net, device in zip(nets, ["cpu", "cuda"], strict=True):
        run(net, squared, Fixed(a, y, steps=4), LoopOptions(epochs=5, lr=0.1, average="ema", device=device))
    assert nets[1].weight.device.type == "cpu"
    assert torch.allclose(nets[0].weight, nets[1].weight, atol=1e-10)
