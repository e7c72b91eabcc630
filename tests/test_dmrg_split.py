"""The split of a local tensor and the change of gauge, against dense numpy."""

import numpy as np
import oracles
import pytest
import torch

from tnml.errors import InputError
from tnml.nn import MPSLayer
from tnml.training import SweepOptions
from tnml.training.dmrg.chain import CenteredChain, chain_of, put_into
from tnml.training.dmrg.local import SquaredErrorOf
from tnml.training.dmrg.split import Metric, data_metric, into_white, split_bond
from tnml.training.dmrg.sweep import Sweeper

P, C, Q = 6, 3, 5
NO_LIMIT = {"max_bond": 100, "max_error": 0.0}


def rand(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def samples(count, size, seed):
    """Correlated, of very different lengths."""
    return rand(count, size, seed=seed) @ torch.diag(torch.logspace(0, -2, size).double()) @ rand(size, size)


def metrics_of(metric, damping=0.1):
    if metric == "frobenius":
        return Metric(), Metric()
    return data_metric(samples(40, P, 1), damping), data_metric(samples(50, Q, 2), damping)


def together(found, *, label_right):
    pattern = "pk,kcq->pcq" if label_right else "pck,kq->pcq"
    return np.einsum(pattern, found.left, found.right)


def data_weight(tensor, left, right, damping=0.0):
    """Mean square output when the sides are independent: every left sample with every right one."""

    def moment(side):
        second = side.T @ side / len(side)
        return second + damping * np.trace(second) / len(second) * np.eye(len(second))

    left, right = moment(np.asarray(left)), moment(np.asarray(right))
    return np.einsum("pcq,pP,qQ,PcQ->", tensor, left, right, tensor)


@pytest.mark.parametrize("damping", [0.0, 0.1, 2.0])
def test_the_data_metric_is_the_second_moment(damping):
    side = samples(40, P, 1)
    metric = data_metric(side, damping)
    second = (side.T @ side / len(side)).numpy()
    second = second + damping * np.trace(second) / P * np.eye(P)
    np.testing.assert_allclose(metric.factor @ metric.factor.T, second, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(metric.factor @ metric.inverse.T, np.eye(P), atol=1e-9)
    if not damping:
        white = metric.whiten(side)
        np.testing.assert_allclose(white.T @ white / len(side), np.eye(P), atol=1e-6)


def test_fewer_samples_than_directions_still_have_a_metric():
    for dtype in (torch.float32, torch.float64):
        for side in (rand(2, P), torch.zeros(4, P, dtype=torch.float64)):
            metric = data_metric(side.to(dtype), 0.0)
            assert torch.isfinite(metric.factor).all()
            assert torch.isfinite(metric.inverse).all()


@pytest.mark.parametrize("metric", ["data", "frobenius"])
def test_outputs_do_not_depend_on_the_coordinates(metric):
    left, right, tensor = samples(40, P, 1), samples(50, Q, 2), rand(P, C, Q)
    metrics = metrics_of(metric)
    white = into_white(tensor, metrics)
    expected = np.einsum("bp,pcq,eq->bec", left, tensor, right)
    found = np.einsum("bp,pcq,eq->bec", metrics[0].whiten(left), white, metrics[1].whiten(right))
    np.testing.assert_allclose(found, expected, atol=1e-9)


@pytest.mark.parametrize("metric", ["data", "frobenius"])
@pytest.mark.parametrize("label_right", [True, False])
def test_without_limits_nothing_is_lost(metric, label_right):
    tensor, metrics = rand(P, C, Q), metrics_of(metric)
    found = split_bond(into_white(tensor, metrics), metrics, label_right=label_right, **NO_LIMIT)
    np.testing.assert_allclose(together(found, label_right=label_right), tensor, atol=1e-9)
    assert found.bond == (P if label_right else Q)
    assert found.discarded == 0.0


@pytest.mark.parametrize("metric", ["data", "frobenius"])
@pytest.mark.parametrize("label_right", [True, False])
@pytest.mark.parametrize("damping", [0.0, 0.1])
def test_the_side_left_behind_is_an_isometry_in_the_metric(metric, label_right, damping):
    metrics = metrics_of(metric, damping)
    white = into_white(rand(P, C, Q), metrics)
    found = split_bond(white, metrics, label_right=label_right, max_bond=4, max_error=0.0)
    kept = found.left if label_right else found.right.T
    factor = metrics[0 if label_right else 1].factor
    gram = kept.T @ (torch.eye(len(kept)).double() if factor is None else factor @ factor.T) @ kept
    np.testing.assert_allclose(gram, np.eye(4), atol=1e-9)


@pytest.mark.parametrize("label_right", [True, False])
@pytest.mark.parametrize("bond", [1, 2, 4])
def test_discarded_weight_is_the_squared_error_of_outputs_on_independent_sides(label_right, bond):
    """Every left sample goes with every right one: then the metric of the data is exact."""
    left, right, tensor = samples(40, P, 1), samples(50, Q, 2), rand(P, C, Q)
    metrics = data_metric(left, 0.0), data_metric(right, 0.0)
    found = split_bond(
        into_white(tensor, metrics), metrics, label_right=label_right, max_bond=bond, max_error=0.0
    )
    assert found.bond == bond

    def outputs(local):
        return np.einsum("bp,pcq,eq->bec", left, local, right)

    before, after = outputs(tensor.numpy()), outputs(together(found, label_right=label_right))
    error = np.square(before - after).sum() / np.square(before).sum()
    assert found.discarded == pytest.approx(error, rel=1e-6)
    best = data_weight(tensor.numpy() - together(found, label_right=label_right), left, right)
    for seed in range(20):  # no other tensor of this rank does better, least of all one close by
        size = 10.0 ** -(seed % 5)
        one = found.left.numpy() + size * rand(*found.left.shape, seed=seed).numpy()
        two = found.right.numpy() + size * rand(*found.right.shape, seed=seed + 1).numpy()
        other = np.einsum("pk,kcq->pcq" if label_right else "pck,kq->pcq", one, two)
        assert data_weight(tensor.numpy() - other, left, right) >= best * (1 - 1e-9)


@pytest.mark.parametrize("label_right", [True, False])
def test_limits_weights_and_entropy_are_those_of_numpys_singular_values(label_right):
    tensor = rand(P, C, Q)
    matrix = tensor.reshape(P, C * Q) if label_right else tensor.reshape(P * C, Q)
    s2 = np.linalg.svd(matrix, compute_uv=False) ** 2
    tails = np.array([s2[k:].sum() / s2.sum() for k in range(len(s2) + 1)])
    for max_error in (0.0, 0.1, 0.4, 0.7, 0.99):
        for max_bond in (1, 3, 100):
            found = split_bond(
                tensor, (Metric(), Metric()), label_right=label_right, max_bond=max_bond, max_error=max_error
            )
            bond = min(max_bond, int(np.argmax(tails <= max_error**2)))
            shares = s2[:bond] / s2[:bond].sum()
            assert found.bond == bond
            assert found.discarded == pytest.approx(tails[bond], abs=1e-12)
            assert found.entropy == pytest.approx(-(shares * np.log(shares)).sum(), abs=1e-9)


@pytest.mark.parametrize("label_right", [True, False])
def test_noise_opens_bonds(label_right):
    tensor = torch.einsum("p,c,q->pcq", rand(P), rand(C, seed=1), rand(Q, seed=2))
    metrics = metrics_of("data")
    white = into_white(tensor, metrics)

    def split(noise):
        generator = torch.Generator().manual_seed(4)
        return split_bond(
            white,
            metrics,
            label_right=label_right,
            max_bond=4,
            max_error=1e-6,
            noise=noise,
            generator=generator,
        )

    assert split(0.0).bond == 1
    opened = split(1e-3)
    assert opened.bond == 4
    assert torch.equal(opened.left, split(1e-3).left)
    change = into_white(torch.from_numpy(together(opened, label_right=label_right)), metrics) - white
    size = white.square().mean().sqrt() * 1e-3 * np.sqrt(P * C * Q)  # the norm of that much noise
    assert 0.3 * size < change.norm() < 3 * size


def test_an_all_zero_tensor_keeps_one_direction():
    found = split_bond(
        torch.zeros(P, C, Q).double(), (Metric(), Metric()), label_right=True, max_bond=3, max_error=1e-3
    )
    assert (found.bond, found.discarded, found.entropy) == (1, 0.0, 0.0)


def test_a_tensor_that_is_not_finite_is_one_clear_error():
    with pytest.raises(InputError, match="NaN or infinite"):
        split_bond(torch.full((P, C, Q), torch.nan), (Metric(), Metric()), label_right=True, **NO_LIMIT)


LAYERS = [  # sites, outputs, bonds, label site, features
    (2, 1, 1, 0, "linear"),
    (2, 3, 2, 1, "linear"),
    (2, 2, 2, 2, "fourier"),
    (5, 2, [1, 2, 5, 3, 4, 2, 1], 2, "linear"),
    (6, 3, [1, 2, 3, 1, 2, 3, 2, 1], 3, "legendre"),
    (7, 1, 4, 0, "trigonometric"),
    (7, 1, 4, 7, "trigonometric"),
    (6, 4, [1, 2, 9, 20, 9, 4, 2, 1], 6, "linear"),
]


def random_layer(sites, outputs, bonds, label_site, features):
    layer = MPSLayer(sites, outputs, bonds, label_site=label_site, features=features, dtype="float64")
    with torch.no_grad():
        layer.weight.copy_(rand(len(layer.weight), seed=3))
        layer.label.copy_(rand(*layer.label.shape, seed=4))
    return layer


def dense_outputs(layer, x):
    cores, at = [core.detach() for core in layer.cores], layer.label_site
    return oracles.outputs(
        layer.local_features(x).detach(), cores[:at], layer.label_core.detach(), cores[at:]
    )


def chain_outputs(chain: CenteredChain, features):
    """By einsum, site by site, of features `[b, n, d]`."""
    left, label = np.ones((len(features), 1)), None
    for site, core in enumerate(chain.cores):
        if core is None:
            label = np.einsum("bl,bd,ldcr->bcr", left, features[:, site], chain.center)
        elif label is None:
            left = np.einsum("bl,bd,ldr->br", left, features[:, site], core)
        else:
            label = np.einsum("bcl,bd,ldr->bcr", label, features[:, site], core)
    return label[:, :, 0]


@pytest.mark.parametrize("case", LAYERS, ids=str)
def test_a_layer_and_its_chain_say_the_same(case):
    layer = random_layer(*case)
    x = torch.rand(20, layer.n_sites, generator=torch.Generator().manual_seed(2)).double()
    expected = dense_outputs(layer, x)
    chain = chain_of(layer)
    assert chain.at == max(0, layer.label_site - 1)
    assert [site for site, core in enumerate(chain.cores) if core is None] == [chain.at]
    np.testing.assert_allclose(chain_outputs(chain, layer.local_features(x)), expected, rtol=1e-9, atol=1e-9)
    assert all(
        core is None or core.data_ptr() != own.data_ptr()
        for core, own in zip(chain.cores, layer.cores, strict=True)
    )


@pytest.mark.parametrize("case", LAYERS, ids=str)
@pytest.mark.parametrize("metric", ["data", "frobenius"])
@pytest.mark.parametrize("batch_size", [None, 50])
def test_the_gauge_of_a_sweep_changes_no_output(case, metric, batch_size):
    layer = random_layer(*case)
    x = torch.rand(200, layer.n_sites, generator=torch.Generator().manual_seed(2)).double()
    expected = layer(x).detach()
    assert oracles.relative(expected, dense_outputs(layer, x)) < 1e-10
    options = SweepOptions(metric=metric, max_bond=100, loss="mse", batch_size=batch_size, device="cpu")
    features = layer.local_features(x).transpose(0, 1).contiguous().detach()
    sweeper = Sweeper(chain_of(layer), lambda half: features, expected, SquaredErrorOf(), options)
    sweeper.prepare()
    chain = sweeper.chain
    assert chain.at == 0
    assert oracles.relative(chain_outputs(chain, features.transpose(0, 1)), expected) < 1e-5
    put_into(layer, chain)
    assert layer.label_site == 1
    assert layer.bond_dims[2:-1] == chain.bond_dims
    assert oracles.relative(layer(x).detach(), expected) < 1e-5
    right = features.new_ones(len(x), 1)
    for site in reversed(range(1, layer.n_sites)):  # all cores are isometries, scaled so that samples are 1
        core, near = chain.core(site), features[site]
        if metric == "frobenius":
            gram = torch.einsum("ldr,mdr->lm", core, core)
            np.testing.assert_allclose(gram, gram[0, 0].item() * np.eye(len(core)), rtol=1e-9, atol=1e-9)
        right = torch.einsum("bd,br,ldr->bl", near, right, core)
        if batch_size is None:
            assert right.square().sum(1).mean().item() == pytest.approx(1.0, rel=1e-6)


@pytest.mark.parametrize("case", LAYERS, ids=str)
def test_weights_go_back_into_a_layer_exactly(case):
    """Where the center is at site 0 already, the round trip changes no bit of the tensors."""
    layer = random_layer(*case)
    chain = chain_of(layer)
    features = layer.local_features(torch.rand(30, layer.n_sites).double()).transpose(0, 1).contiguous()
    options = SweepOptions(metric="frobenius", max_bond=100, device="cpu")
    Sweeper(
        chain, lambda half: features.detach(), torch.zeros(30, 1), SquaredErrorOf(), options
    ).prepare()
    put_into(layer, chain)
    again = chain_of(layer)
    assert again.at == 0
    assert torch.equal(again.center, chain.center)
    for site in range(1, layer.n_sites):
        assert torch.equal(again.core(site), chain.core(site))
