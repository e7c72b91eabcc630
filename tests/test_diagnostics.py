"""No diagnostic changes anything: the model, the batch, the optimiser, the generators, the training."""

import copy

import pytest
import torch
from diagnosed import CLASSES, SITES, everything, plain, restless, samples
from torch import nn
from torch.nn.functional import cross_entropy

import tnml.diagnostics
from tnml import diagnostics
from tnml.nn import MPSLayer
from tnml.training import TrainOptions, run, train_classifier
from tnml.training.batches import ArrayBatches
from tnml.training.losses import CrossEntropy


def looked_at(model, optimizer, x, y):
    with diagnostics.undisturbed(model):
        model(x)


LOOKS = {
    "geometric_complexity": lambda m, o, x, y: diagnostics.geometric_complexity(m, x),
    "hutchinson": lambda m, o, x, y: diagnostics.geometric_complexity(m, x, "hutchinson", n_proj=2),
    "mps_geometric_complexity": lambda m, o, x, y: diagnostics.mps_geometric_complexity(
        m[3], *diagnostics.feature_moments(m[3].features, x)
    ),
    "memorised": lambda m, o, x, y: diagnostics.memorised(m, x, y, y != 0, batch_size=7),
    "schmidt": lambda m, o, x, y: diagnostics.schmidt(m[3]),
    "matrices": lambda m, o, x, y: list(diagnostics.matrices(m)),
    "singular_values": lambda m, o, x, y: diagnostics.singular_values(m),
    "count_parameters": lambda m, o, x, y: diagnostics.count_parameters(m),
    "gauge_free_parameters": lambda m, o, x, y: diagnostics.gauge_free_parameters(m),
    "Tracker": lambda m, o, x, y: diagnostics.Tracker()(m),
    "hessian_extremes": lambda m, o, x, y: diagnostics.hessian_extremes(m, cross_entropy, x, y, steps=3),
    "gauss_newton": lambda m, o, x, y: diagnostics.hessian_extremes(
        m, cross_entropy, x, y, steps=3, kind="ggn"
    ),
    "batch_hessian_curve": lambda m, o, x, y: diagnostics.batch_hessian_curve(
        m, cross_entropy, x, y, [4], draws=1, steps=2
    ),
    "activation_sparsity": lambda m, o, x, y: diagnostics.activation_sparsity(nn.Sequential(m, nn.ReLU()), x),
    "layer_conditioning": lambda m, o, x, y: diagnostics.layer_conditioning(m, x[:4]),
    "Susceptibility": lambda m, o, x, y: diagnostics.Susceptibility(x, CLASSES, 16)(m, o),
    "undisturbed": looked_at,
}
RECORDS = {
    "CALLBACKS",
    *("Alignment", "BatchCurve", "Bulk", "FeatureMoments", "HessianExtremes", "Moments", "ParameterCounts"),
    *("PorterThomas", "RunFacts", "Schmidt", "Significance"),
    # functions of arrays, which know no model that they could change
    *("ams", "class_moments", "feature_moments", "gaussian_moments", "inverse_participation"),
    *("marchenko_pastur", "porter_thomas", "ridge_head", "rmt_filter", "scale_lr", "select_models"),
    "spectral_alignment",
}


def test_every_diagnostic_is_among_them():
    assert set(LOOKS) - {"hutchinson", "gauss_newton"} | RECORDS == set(tnml.diagnostics.__all__)


@pytest.mark.parametrize("mode", ["train", "eval", "no_grad", "inference"])
@pytest.mark.parametrize("name", LOOKS)
def test_a_look_leaves_no_trace(name, mode):
    model, (x, y) = restless(), samples(20)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    cross_entropy(model(x), y).backward()
    optimizer.step()  # gradients and the optimiser's state are there
    model.train(mode == "train")
    model[1].train()  # one flag that is not its parent's
    before, seen = everything(model, optimizer), (x.clone(), y.clone())
    if mode == "no_grad":
        with torch.no_grad():
            LOOKS[name](model, optimizer, x, y)
    elif mode == "inference":
        with torch.inference_mode():
            LOOKS[name](model, optimizer, x, y)
    else:
        LOOKS[name](model, optimizer, x, y)
    assert everything(model, optimizer) == before
    assert torch.equal(x, seen[0])
    assert torch.equal(y, seen[1])
    assert not x.requires_grad


def interrupted(model, x):
    with diagnostics.undisturbed(model):
        model(x)
        torch.rand(3)
        raise RuntimeError("in the middle")


def test_a_look_that_fails_leaves_no_trace():
    model, (x, _) = restless(), samples(20)
    before = everything(model)
    with pytest.raises(RuntimeError, match="in the middle"):
        interrupted(model, x)
    assert everything(model) == before
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def broken(logits, labels):
        raise RuntimeError("in the middle")

    probe = diagnostics.Susceptibility(x, CLASSES)
    with pytest.raises(RuntimeError, match="in the middle"):
        probe(model, optimizer, broken)
    assert everything(model) == before
    assert probe.phi == []


def test_buffers_that_a_module_replaces_come_back():
    class Replacing(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("last", torch.zeros(2))

        def forward(self, x):
            self.last = x.sum(0)
            return x

    net = Replacing()
    kept = net.last
    with diagnostics.undisturbed(net):
        net(torch.ones(3, 2))
        assert net.last.tolist() == [3.0, 3.0]
    assert net.last is kept
    assert kept.tolist() == [0.0, 0.0]


def test_a_penalty_survives_the_buffers_and_reaches_the_parameters():
    model, (x, _) = restless(), samples(8)
    found = diagnostics.geometric_complexity(model, x, differentiable=True)
    found.backward()
    assert all(float(p.grad.abs().sum()) > 0 for p in model[3].parameters())


OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, weight_decay=1e-3),
    "adam": lambda p: torch.optim.Adam(p, lr=0.01),
    "adamw-fused": lambda p: torch.optim.AdamW(list(p), lr=0.01, fused=True),
    "lbfgs": lambda p: torch.optim.LBFGS(p, lr=0.5, max_iter=3, history_size=4),
}


def trained(kind, watched):
    """A few epochs with dropout from torch's default generator; everything at the end, and what was seen."""
    model, (x, y), (fresh, _) = restless(), samples(48), samples(40, seed=5)
    optimizer = OPTIMIZERS[kind](model.parameters())
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 2, 0.5)
    probe, tracker, rows = diagnostics.Susceptibility(fresh, CLASSES, 16), diagnostics.Tracker(), []
    torch.manual_seed(11)
    for epoch in range(4):
        if watched:
            row = probe.on_epoch_end(model, optimizer, epoch) | tracker.on_epoch_end(model, optimizer, epoch)
            row["gc"] = float(diagnostics.geometric_complexity(model, x))
            row["memorised"] = diagnostics.memorised(model, x, y, y == 1)
            rows.append(row)
        for part, truth in zip(x.split(16), y.split(16), strict=True):

            def closure(part=part, truth=truth):
                optimizer.zero_grad()
                loss = cross_entropy(model(part), truth)
                loss.backward()
                return loss.detach()

            optimizer.step(closure)
        schedule.step()
    end = plain(model.state_dict()), plain(optimizer.state_dict()), torch.get_rng_state().tolist()
    return end, rows


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_training_is_the_same_to_the_last_bit(kind):
    alone, _ = trained(kind, watched=False)
    watched, rows = trained(kind, watched=True)
    assert watched == alone
    assert len({row["phi"] for row in rows}) == 4, "the measurements did take place"
    assert len({row["gc"] for row in rows}) == 4


@pytest.mark.parametrize("average", ["none", "ema"])
def test_the_loop_of_the_house_is_the_same_to_the_last_bit(average):
    (x, y), (fresh, _) = samples(48), samples(40, seed=5)
    options = TrainOptions(epochs=3, lr=0.01, batch_size=16, average=average, device="cpu")
    found = []
    for watched in (False, True):
        model = restless()
        tracker, probe = diagnostics.Tracker(), diagnostics.Susceptibility(fresh, CLASSES, 16)

        def measured(net, tracker=tracker, probe=probe):
            row = tracker(net) | probe(net, lambda parameters: torch.optim.SGD(parameters, lr=0.1))
            return row | {"gc": float(diagnostics.geometric_complexity(net, x))}

        result = run(
            model,
            CrossEntropy(),
            ArrayBatches(x, y, options),
            options,
            evaluate=measured if watched else None,
        )
        found.append((plain(dict(result.state)), [row["loss"] for row in result.history]))
        if watched:
            assert {"phi", "zeta", "gc", "3.log_norm"} <= set(result.history[-1])
    assert found[0] == found[1]


def test_the_training_of_a_classifier_can_be_watched_from_outside():
    x, y = samples(40)
    options = TrainOptions(epochs=3, lr=0.01, batch_size=16, device="cpu")
    states = []
    for watched in (False, True):
        layer = MPSLayer(SITES, CLASSES, 4, seed=3)
        tracker = diagnostics.Tracker()
        result = train_classifier(
            layer, x, y, options, on_epoch=(lambda row, t=tracker, m=layer: t(m)) if watched else None
        )
        states.append(plain(dict(result.state)))
        assert len(tracker.history) == (3 if watched else 0)
    assert states[0] == states[1]


def test_measured_twice_is_measured_the_same():
    model, (x, y) = restless(), samples(30)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for look in ("geometric_complexity", "hutchinson", "memorised"):
        assert float(LOOKS[look](model, optimizer, x, y)) == float(LOOKS[look](model, optimizer, x, y))
    first, second = (diagnostics.Susceptibility(x, CLASSES, 8, seed=4) for _ in range(2))
    torch.manual_seed(0)
    rows = [first(model, optimizer) for _ in range(3)]
    torch.manual_seed(1)
    assert [second(copy.deepcopy(model), maker_of(optimizer)) for _ in range(3)] == rows


def maker_of(optimizer):
    """Nothing was stepped yet, so a new optimiser of the same settings takes the same step."""
    return lambda parameters: torch.optim.SGD(parameters, lr=optimizer.defaults["lr"], momentum=0.9)
