"""Susceptibility and memorisation: the step by numpy, batches, dropout, sweeps, selection, bad input."""

import copy
import math

import numpy as np
import pytest
import torch
from diagnosed import CLASSES, SITES, grown, restless, samples
from torch import nn
from torch.nn.functional import cross_entropy, mse_loss, one_hot

from tnml import InputError
from tnml.diagnostics import Susceptibility, memorised, select_models
from tnml.nn import MPSLayer


def loss_and_gradient(w, bias, x, labels):
    """Mean cross-entropy of logits x W^T + b and its gradients, by numpy."""
    logits = x @ w.T + bias
    logits = logits - logits.max(1, keepdims=True)
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    rows = np.arange(len(x))
    loss = -np.log(p[rows, labels]).mean()
    p[rows, labels] -= 1
    return loss, p.T @ x / len(x), p.mean(0)


def sgd(parameter, gradient, state):
    momentum = 0.9 * state["momentum_buffer"].numpy() + gradient + 0.01 * parameter
    return parameter - 0.1 * momentum


def adam(parameter, gradient, state):
    step = float(state["step"]) + 1
    first = 0.9 * state["exp_avg"].numpy() + 0.1 * gradient
    second = 0.999 * state["exp_avg_sq"].numpy() + 0.001 * gradient**2
    return parameter - 0.02 * (first / (1 - 0.9**step)) / (np.sqrt(second / (1 - 0.999**step)) + 1e-8)


STEPS = {
    "sgd": (lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.01), sgd),
    "adam": (lambda p: torch.optim.Adam(p, lr=0.02), adam),
}


@pytest.mark.parametrize("kind", STEPS)
def test_phi_is_that_of_one_step_by_numpy(kind):
    make, step = STEPS[kind]
    net = nn.Linear(SITES, CLASSES).double()
    x, y = samples(30, dtype=torch.float64)
    optimizer = make(net.parameters())
    for _ in range(3):  # momenta that are not zero
        optimizer.zero_grad()
        cross_entropy(net(x), y).backward()
        optimizer.step()
    fresh, _ = samples(50, seed=9, dtype=torch.float64)
    probe = Susceptibility(fresh, CLASSES, 20, seed=2)
    phis = []
    for call in range(2):
        found = probe(net, optimizer)
        inputs, labels, _ = probe.batch(call)
        w, bias = (p.detach().numpy() for p in (net.weight, net.bias))
        before, dw, db = loss_and_gradient(w, bias, inputs.numpy(), labels.numpy())
        w = step(w, dw, optimizer.state[net.weight])
        bias = step(bias, db, optimizer.state[net.bias])
        after, _, _ = loss_and_gradient(w, bias, inputs.numpy(), labels.numpy())
        phis.append(before - after)
        assert found["phi"] == pytest.approx(before - after, rel=1e-9)
        assert found["zeta"] == pytest.approx(sum(phis) / len(phis), rel=1e-9)
    assert abs(phis[0] - phis[1]) > 1e-6, "every call has a batch of its own"


def test_batches_follow_from_seed_and_call_and_labels_are_uniform():
    x = torch.arange(6000.0).unsqueeze(1)
    probe, again = Susceptibility(x, 3, 5000, seed=8), Susceptibility(x, 3, 5000, seed=8)
    for call in (0, 5):
        for one, other in zip(probe.batch(call)[:2], again.batch(call)[:2], strict=True):
            assert torch.equal(one, other)
    inputs, labels, _ = probe.batch(0)
    assert len(inputs.unique()) == 5000, "no input twice"
    counts = labels.bincount(minlength=3).numpy()
    assert (np.abs(counts - 5000 / 3) < 5 * math.sqrt(5000 * 2 / 9)).all()
    for others in (probe.batch(1), Susceptibility(x, 3, 5000, seed=9).batch(0)):
        assert not torch.equal(others[0], inputs)
        assert float((others[1] == labels).float().mean()) < 0.4
    assert len(Susceptibility(x[:7], 3, 128).batch(0)[0]) == 7


def test_no_step_is_no_susceptibility_whatever_the_dropout():
    model, (x, _) = restless(), samples(30)
    still = torch.optim.SGD(model.parameters(), lr=0.0)
    probe = Susceptibility(x, CLASSES, 16)
    assert [probe(model, still)["phi"] for _ in range(3)] == [0.0] * 3
    moving = torch.optim.SGD(model.parameters(), lr=1e-4)
    assert probe(model, moving)["phi"] > 0


def test_the_learning_rate_is_that_of_the_moment():
    net, (x, _) = nn.Linear(SITES, CLASSES), samples(30)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    full = Susceptibility(x, CLASSES)(net, optimizer)["phi"]
    optimizer.param_groups[0]["lr"] = 0.05
    assert 0 < Susceptibility(x, CLASSES)(net, optimizer)["phi"] < 0.7 * full


def test_any_loss_of_logits_and_labels():
    net, (x, _) = nn.Linear(SITES, CLASSES).double(), samples(20, dtype=torch.float64)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)

    def squared(logits, labels):
        return mse_loss(logits, one_hot(labels, CLASSES).to(logits.dtype))

    probe = Susceptibility(x, CLASSES)
    found = probe(net, optimizer, squared)["phi"]
    inputs, labels, _ = probe.batch(0)
    stepped = copy.deepcopy(net)
    squared(stepped(inputs), labels).backward()
    with torch.no_grad():
        for p in stepped.parameters():
            p.sub_(0.1 * p.grad)
        expected = squared(net(inputs), labels) - squared(stepped(inputs), labels)
    assert found == pytest.approx(float(expected), rel=1e-10)


def test_steps_that_no_optimiser_makes():
    model, (x, _) = grown(MPSLayer(SITES, CLASSES, 3)), samples(20)
    weights = model.weight.detach().clone()
    seen = []

    def wider(net, inputs, labels):
        """As a sweep may: another layer, of other bonds."""
        seen.append((net is model, len(inputs), len(labels)))
        return MPSLayer(SITES, CLASSES, 5, seed=1)

    def halved(net, inputs, labels):
        with torch.no_grad():
            net.label.mul_(0.5)

    probe = Susceptibility(x, CLASSES, 16, step_fn=wider)
    found = probe(model)["phi"]
    inputs, labels, _ = probe.batch(0)
    with torch.no_grad():
        start = cross_entropy(model(inputs), labels)
        expected = start - cross_entropy(MPSLayer(SITES, CLASSES, 5, seed=1)(inputs), labels)
    assert found == pytest.approx(float(expected), rel=1e-5)
    assert seen == [(False, 16, 16)]
    found = Susceptibility(x, CLASSES, 16, step_fn=halved)(model)["phi"]
    with torch.no_grad():
        expected = start - cross_entropy(0.5 * model(inputs), labels)
    assert found == pytest.approx(float(expected), rel=1e-4)
    assert torch.equal(model.weight, weights)


def test_a_run_that_continues_takes_its_phi_along():
    net, (x, _) = nn.Linear(SITES, CLASSES), samples(30)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    whole = Susceptibility(x, CLASSES, 8)
    rows = [whole(net, optimizer) for _ in range(4)]
    rest = Susceptibility(x, CLASSES, 8)
    rest.phi = whole.phi[:2]
    assert [rest(net, optimizer) for _ in range(2)] == rows[2:]


@pytest.mark.parametrize("bond_dim", [1, 3, 8])
def test_small_steps_give_the_squared_gradient(bond_dim):
    layer = grown(MPSLayer(SITES, CLASSES, bond_dim, dtype="float64"))
    x, _ = samples(40, dtype=torch.float64)
    rate = 1e-6
    probe = Susceptibility(x, CLASSES, 32)
    found = probe(layer, torch.optim.SGD(layer.parameters(), lr=rate))["phi"]
    inputs, labels, _ = probe.batch(0)
    gradients = torch.autograd.grad(cross_entropy(layer(inputs), labels), list(layer.parameters()))
    assert found == pytest.approx(rate * sum(float(g.square().sum()) for g in gradients), rel=1e-3)


def test_models_of_region_one():
    zeta, accuracy = [0.1, 0.1, 0.5, 0.5], [0.9, 0.5, 0.9, 0.5]
    assert select_models(zeta, accuracy).tolist() == [True, False, False, False]
    assert select_models(torch.tensor(zeta), torch.tensor(accuracy)).dtype == torch.bool
    assert not select_models([0.2, 0.2], [0.4, 0.4]).any()
    with pytest.raises(InputError, match="one zeta and one accuracy"):
        select_models(zeta, accuracy[:2])
    with pytest.raises(InputError, match="NaN or infinite"):
        select_models([0.1, math.nan], [0.5, 0.5])


def test_bad_input_of_susceptibility_is_told():
    x, _ = samples(5)
    for settings, text in (
        ({"classes": 1}, "classes must be a whole number, at least 2, got 1"),
        ({"classes": 3, "batch_size": 0}, "batch_size must be"),
        ({"classes": 3, "seed": -1}, "seed must be"),
    ):
        with pytest.raises(InputError, match=text):
            Susceptibility(x, **settings)
    with pytest.raises(InputError, match=r"at least one, got shape \[0, 6\]"):
        Susceptibility(x[:0], 3)
    probe, net = Susceptibility(x, CLASSES), nn.Linear(SITES, CLASSES)
    with pytest.raises(InputError, match="the optimiser of the training is needed"):
        probe(net)
    with pytest.raises(InputError, match="holds no parameter of this model"):
        probe(net, torch.optim.SGD(nn.Linear(2, 2).parameters(), lr=0.1))
    with pytest.raises(InputError, match="nothing was"):
        probe.zeta  # noqa: B018  (reading it is the test)


def test_memorised_counts_the_flipped_samples_only():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(50, 4))
    labels, flipped = rng.integers(0, 4, 50), rng.random(50) < 0.4
    expected = sum(1 for i in range(50) if flipped[i] and logits[i].argmax() == labels[i]) / flipped.sum()
    assert 0 < expected < 1
    arguments = torch.from_numpy(logits), torch.from_numpy(labels), torch.from_numpy(flipped)
    for size in (1, 7, 1000):
        assert memorised(nn.Identity(), *arguments, batch_size=size) == pytest.approx(expected)
    nothing = torch.zeros(50, dtype=torch.bool)
    assert math.isnan(memorised(nn.Identity(), *arguments[:2], nothing))


@pytest.mark.usefixtures("unchecked")
def test_bad_input_of_memorised_is_told():
    x, labels = torch.rand(3, 2), torch.tensor([0, 1, 0])
    flipped = labels == 0
    with pytest.raises(InputError, match="noisy labels as an int64 tensor"):
        memorised(nn.Identity(), x, labels.float(), flipped)
    with pytest.raises(InputError, match="one flag"):
        memorised(nn.Identity(), x, labels, labels)
    with pytest.raises(InputError, match="for each of 2 inputs"):
        memorised(nn.Identity(), x[:2], labels, flipped)
