"""Losses against wrong labels: transition matrices, importance weights, and what sparse noise learns."""

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from tnml.data.noise import corrupt, symmetric
from tnml.data.transitions import estimate_transition, importance_weights, transition_error
from tnml.errors import InputError
from tnml.nn import MPSLayer
from tnml.training import TrainOptions, train_classifier
from tnml.training.losses import ForwardCorrection, SparseNoise, loss_of
from tnml.training.tasks import CLASSIFICATION as CLASSES


def noisy_clusters(seed=0, train=2000, test=5000):
    """Ten classes of two normal clusters each; 40 % of the training labels are wrong."""
    generator = torch.Generator().manual_seed(seed)
    centres = 0.75 * torch.randn(20, 32, generator=generator)

    def samples(count):
        which = torch.randint(20, (count,), generator=generator)
        return centres[which] + torch.randn(count, 32, generator=generator), which // 2

    (x, y), (x_test, y_test) = samples(train), samples(test)
    written, flipped = corrupt(y, symmetric(10, 0.4), seed=seed)
    return x, written, flipped, x_test, y_test


def network(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(
        *(nn.Linear(32, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 10)),
    )


def trained(x, y, loss, epochs=60, **test):
    net = network()
    options = TrainOptions(
        loss=loss,
        epochs=epochs,
        batch_size=64,
        lr=0.02,
        optimizer="sgd",
        momentum=0.9,
        weight_decay=1e-3,
        device="cpu",
        schedule="cosine",
    )
    return net, train_classifier(net, x, y, options, **test)


@pytest.mark.slow
def test_on_noisy_clusters_they_find_the_true_labels():
    x, y, flipped, x_test, y_test = noisy_clusters()
    test = {"x_test": x_test, "y_test": y_test}
    plain = trained(x, y, "cross-entropy", **test)[1].test["accuracy"]
    early, _ = trained(x, y, "cross-entropy", epochs=6)
    with torch.no_grad():
        says = early(x).softmax(1)
    truth = symmetric(10, 0.4)
    surest, below = (transition_error(estimate_transition(says, quantile=q), truth) for q in (1.0, 0.97))
    assert below < surest
    known = {"name": "forward", "transition": estimate_transition(says).tolist()}
    assert trained(x, y, known, **test)[1].test["accuracy"] >= plain + 0.10
    _, result = trained(x, y, {"name": "sop", "lr_u": 10.0, "lr_v": 100.0}, **test)
    assert result.test["accuracy"] >= plain + 0.15
    assert roc_auc_score(flipped, result.memory.noise_score()) >= 0.95
    assert 0.2 < result.history[-1]["suspected"] < 0.5


@pytest.mark.parametrize("method", ["anchor", "class_mean"])
def test_the_transition_is_found_where_samples_are_certain(method):
    truth = symmetric(4, 0.3)
    labels = torch.arange(4).repeat(25)
    assert transition_error(estimate_transition(truth[labels], method), truth) < 1e-12


def test_anchors_pass_over_the_surest_samples():
    column = torch.linspace(0.5, 1.0, 101, dtype=torch.float64)
    says = torch.stack([column, 1 - column], 1)
    assert estimate_transition(says, quantile=0.9)[0, 0].item() == pytest.approx(0.95)
    assert estimate_transition(says, quantile=1.0)[0, 0].item() == pytest.approx(1.0)
    before = says.clone()
    estimate_transition(says, quantile=0.5)
    assert torch.equal(says, before)


def test_importance_weights_average_to_the_loss_on_true_labels():
    generator = torch.Generator().manual_seed(3)
    p = torch.rand(6, 3, generator=generator, dtype=torch.float64)
    p /= p.sum(1, keepdim=True)
    noise = torch.tensor([[0.8, 0.1, 0.1], [0.2, 0.7, 0.1], [0.0, 0.3, 0.7]], dtype=torch.float64)
    losses = torch.randn(6, 3, generator=generator, dtype=torch.float64)
    found = torch.zeros(6, dtype=torch.float64)
    for written in range(3):
        weight = importance_weights(p, torch.full((6,), written), noise)
        found += (p @ noise)[:, written] * weight * losses[:, written]
    torch.testing.assert_close(found, (p * losses).sum(1))


IDENTITY, SOP = torch.eye(2), TrainOptions(loss="sop")
SINGULAR = {"name": "backward", "transition": [[0.5, 0.5], [0.5, 0.5]]}


def loader():
    return DataLoader(TensorDataset(torch.eye(2), torch.arange(2)))


def made(**spec):
    return loss_of(spec, "classification")


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: estimate_transition(torch.randn(4, 3)), "softmax"),
        (lambda: estimate_transition(torch.full((4, 1), 1.0)), "two or more"),
        (
            lambda: estimate_transition(torch.tensor([[0.9, 0.1]]), "class_mean"),
            "no sample is likeliest of class 1",
        ),
        (lambda: transition_error(torch.eye(2), torch.eye(3)), "the truth"),
        (lambda: importance_weights(torch.eye(2), torch.arange(2), torch.eye(3)), "expected probabilities"),
        (
            lambda: loss_of({"name": "forward", "transition": [[0.5, 0.6], [0, 1]]}, "classification"),
            "add up",
        ),
        (
            lambda: loss_of({"name": "forward", "transition": "much"}, "classification"),
            "share of wrong labels",
        ),
        (
            lambda: loss_of({"name": "backward", "transition": [[0.5, 0.5]] * 2}, "classification"),
            "no inverse",
        ),
        (
            lambda: ForwardCorrection(torch.eye(2)).values(torch.eye(3), torch.arange(3)),
            "2 classes, the model has 3",
        ),
        (lambda: SparseNoise().begin()(nn.Identity(), torch.eye(2), torch.arange(2)), "which they hold"),
        (
            lambda: train_classifier(nn.Linear(2, 2), loader(), options=TrainOptions(loss="sop")),
            "a DataLoader",
        ),
        (lambda: TrainOptions(loss="sop", optimizer="lbfgs").loss_for(CLASSES), "one step a batch"),
        (lambda: TrainOptions(loss="sop", devices=2).loss_for(CLASSES), "set devices to 1"),
    ],
)
def test_bad_input(call, match):
    with pytest.raises(InputError, match=match):
        call()


def sparse_noise_by_hand(f, y, u, v):
    """The loss of a batch in numpy, and what the gradients of u and v are by finite differences."""
    truth = np.eye(f.shape[1])[y]

    def loss(u, v, v_in_q):
        wrong = np.clip(u[:, None] ** 2 * truth, 0, 1)
        instead, detached = (np.clip(each**2 * (1 - truth), 0, 1) for each in (v, v_in_q))
        q = np.exp(f) / np.exp(f).sum(1, keepdims=True) + wrong - detached
        q = np.maximum(q, 1e-4)
        q = np.clip(q / q.sum(1, keepdims=True), 1e-4, 1)
        chosen = np.eye(f.shape[1])[f.argmax(1)]
        return (-(truth * np.log(q)).sum(1) + ((chosen + wrong - instead - truth) ** 2).sum(1)).mean()

    def slope(value, at):
        found = np.zeros_like(at)
        for place in np.ndindex(at.shape):
            for sign in (1, -1):
                moved = at.copy()
                moved[place] += sign * 1e-6
                found[place] += sign * value(moved) / 2e-6
        return found

    return loss(u, v, v), slope(lambda each: loss(each, v, v), u), slope(lambda each: loss(u, each, v), v)


def test_sparse_noise_by_definition():
    rng = np.random.default_rng(5)
    f, y = rng.normal(size=(4, 3)), np.array([0, 1, 2, 1])
    u, v = rng.uniform(0.1, 0.6, 7), rng.uniform(0.1, 0.6, (7, 3))
    rows = np.array([6, 0, 3, 2])
    expected, of_u, of_v = sparse_noise_by_hand(f, y, u[rows], v[rows])
    memory = SparseNoise(lr_u=0.5, lr_v=0.25).begin()
    memory.callback.load_state_dict({"u": torch.tensor(u), "v": torch.tensor(v)})
    outputs = torch.tensor(f, requires_grad=True)
    loss, metrics = memory(nn.Identity(), outputs, torch.tensor(y), index=torch.tensor(rows))
    assert loss.item() == pytest.approx(expected, rel=1e-12)
    assert metrics["accuracy"].tolist() == (f.argmax(1) == y).tolist()
    u[rows] -= 0.5 * of_u
    v[rows] -= 0.25 * of_v
    np.testing.assert_allclose(memory.u, u, atol=1e-6)
    np.testing.assert_allclose(memory.v, v, atol=1e-6)
    with torch.no_grad():
        memory(nn.Identity(), outputs, torch.tensor(y), index=torch.tensor(rows))
    np.testing.assert_allclose(memory.u, u, atol=1e-6)


def test_sparse_noise_resumes_to_the_same_bits(tmp_path):
    x = torch.rand(60, 4, generator=torch.Generator().manual_seed(0))
    y = (x[:, 0] > 0.5).long()

    def run(epochs, **more):
        layer = MPSLayer(4, 2, 2, seed=0)
        options = TrainOptions(loss="sop", epochs=epochs, batch_size=16, device="cpu", schedule="constant")
        return layer, train_classifier(layer, x, y, options, **more)

    whole, result = run(4)
    run(2, run_dir=tmp_path)
    resumed, again = run(4, run_dir=tmp_path, resume=True)
    assert torch.equal(whole.weight, resumed.weight)
    assert torch.equal(result.memory.noise_score(), again.memory.noise_score())
    assert len(result.memory.noise_score()) == 60
