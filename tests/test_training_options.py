"""Options check themselves; schedules agree with closed forms and with torch's own."""

import dataclasses
import math

import pytest
import torch

from tnml.errors import InputError
from tnml.loop.options import differences
from tnml.loop.schedules import learning_rate
from tnml.randomness import step_seed
from tnml.training import LoopOptions, TrainOptions

BAD = [
    ({"epochs": 0}, "epochs"),
    ({"epochs": True}, "epochs"),
    ({"epochs": 2.0}, "epochs"),
    ({"optimizer": "adma"}, "did you mean 'adam"),
    ({"schedule": "one-cicle"}, "one-cycle"),
    ({"average": "swa"}, "unknown average"),
    ({"precision": "16"}, "unknown precision"),
    ({"lr": 0.0}, "lr must be a number, above 0"),
    ({"lr": math.nan}, "lr"),
    ({"lr": "0.1"}, "lr"),
    ({"weight_decay": -1.0}, "weight_decay"),
    ({"warmup": 1.0}, "below 1"),
    ({"ema_decay": 1.0}, "ema_decay"),
    ({"clip_norm": 0.0}, "clip_norm"),
    ({"patience": 0}, "patience"),
    ({"checkpoint_seconds": 0.0}, "checkpoint_seconds"),
    ({"seed": -1}, "seed"),
    ({"devices": 0}, "devices"),
    ({"device": "gpu"}, "device must be"),
    ({"device": "cuda:x"}, "device must be"),
    ({"device": "cpu:0"}, "device must be"),
    ({"optimizer": "lbfgs", "clip_norm": 1.0}, "line search"),
    ({"optimizer": "lbfgs", "weight_decay": 0.1}, "no weight decay"),
]
BAD_TRAIN = [
    ({"batch_size": 0}, "batch_size"),
    ({"validation": 1.0}, "validation"),
    ({"label_smoothing": 1.0}, "label_smoothing"),
    ({"label_smoothing": 0.1, "loss": "mse"}, "cross-entropy"),
    ({"loss": "hinge"}, "unknown loss"),
    ({"max_shift": -1}, "max_shift"),
    ({"patience": 3}, "held-out"),
]


@pytest.mark.parametrize(("arguments", "text"), BAD)
def test_bad_loop_option_is_refused(arguments, text):
    with pytest.raises(InputError, match=text):
        LoopOptions(**arguments)


@pytest.mark.parametrize(("arguments", "text"), BAD_TRAIN + BAD)
def test_bad_train_option_is_refused(arguments, text):
    with pytest.raises(InputError, match=text):
        TrainOptions(**arguments)


def test_options_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        LoopOptions().lr = 1.0


def test_differences_name_what_changes_the_result_and_nothing_else():
    saved = LoopOptions(epochs=3, lr=0.1).record()
    moved = LoopOptions(epochs=3, lr=0.1, device="cpu", devices=2, checkpoint_every=5).record()
    assert differences(saved, moved) == []
    assert differences(saved, LoopOptions(epochs=4, lr=0.2).record()) == [
        "epochs: 3 in the checkpoint, 4 now",
        "lr: 0.1 in the checkpoint, 0.2 now",
    ]
    constant = LoopOptions(epochs=3, schedule="constant").record()
    assert differences(constant, LoopOptions(epochs=9, schedule="constant").record()) == []


def _torch_rates(scheduler_of, lr, steps):
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=lr)
    scheduler = scheduler_of(optimizer)
    rates = []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if len(rates) < steps:
            scheduler.step()
    return rates


@pytest.mark.parametrize("warmup", [0.1, 0.3, 0.5])
def test_one_cycle_equals_torch(warmup):
    options = LoopOptions(epochs=5, lr=0.3, warmup=warmup)
    expected = _torch_rates(
        lambda o: torch.optim.lr_scheduler.OneCycleLR(
            o,
            0.3,
            total_steps=100,
            pct_start=warmup,
            cycle_momentum=False,
            div_factor=25,
            final_div_factor=1e4,
        ),
        0.3,
        100,
    )
    assert [learning_rate(options, s, 20) for s in range(100)] == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(("epochs", "steps", "warmup"), [(1, 1, 0.1), (1, 2, 0.1), (1, 5, 0.0), (2, 3, 0.9)])
def test_one_cycle_of_few_steps_stays_between_its_ends(epochs, steps, warmup):
    options = LoopOptions(epochs=epochs, lr=1.0, warmup=warmup)
    rates = [learning_rate(options, s, steps) for s in range(epochs * steps)]
    assert all(0 < rate <= 1.0 for rate in rates)


def test_cosine_equals_torch_and_step_its_closed_form():
    cosine = LoopOptions(epochs=4, lr=0.2, schedule="cosine")
    expected = _torch_rates(lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, T_max=40), 0.2, 40)
    assert [learning_rate(cosine, s, 10) for s in range(40)] == pytest.approx(expected, rel=1e-9)
    stairs = LoopOptions(epochs=6, lr=1.0, schedule="step", decay_every=2, decay_factor=0.5)
    assert [learning_rate(stairs, 3 * e, 3) for e in range(6)] == [1.0, 1.0, 0.5, 0.5, 0.25, 0.25]
    assert learning_rate(LoopOptions(lr=0.7, schedule="constant"), 99, 10) == 0.7


def test_step_seeds_do_not_collide():
    seeds = {
        step_seed(seed, epoch, step, stream)
        for seed in range(3)
        for epoch in range(20)
        for step in range(50)
        for stream in range(4)
    }
    assert len(seeds) == 3 * 20 * 50 * 4
    assert len({seed & 0xFFFFFFFF for seed in seeds}) >= len(seeds) - 2  # torch's CPU generator reads 32 bits
