"""The metric of a sweep and the split of a local tensor in it, against dense numpy."""

import numpy as np
import pytest
import torch

from tnml.errors import InputError
from tnml.training.dmrg.metric import Metric, adjoint_from_white, data_metric, from_white, into_white
from tnml.training.dmrg.split import split_bond

P, C, Q = 6, 3, 5
SIDES = {"label_right": True, "center_right": True}
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


def together(found):
    """One of the two has a label leg of dimension 1."""
    return np.einsum("pak,kbq->pabq", found.left, found.right).reshape(found.left.shape[0], -1, Q)


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

    np.testing.assert_allclose(from_white(white, metrics), tensor, atol=1e-9)
    gradient = rand(P, C, Q, seed=8)  # of a function of the outputs: the chain rule is the transposed map
    inner = (gradient * from_white(tensor, metrics)).sum()
    assert torch.isclose((adjoint_from_white(gradient, metrics) * tensor).sum(), inner, rtol=1e-9)


@pytest.mark.parametrize("seed", range(4))
def test_correlated_samples_of_very_different_columns_have_a_metric(seed):
    """In single precision, without damping: rounding makes the moment indefinite."""
    generator = torch.Generator().manual_seed(seed)
    side = (torch.rand(100, 1, generator=generator) + 1) * torch.logspace(0, -6, 200 + 20 * seed)
    metric = data_metric(side, 0.0)
    found = (metric.factor @ metric.factor.T).double().numpy()
    second = (side.double().T @ side.double() / len(side)).numpy()
    assert np.abs(found - second).max() < 0.01 * second.max()
    assert torch.isfinite(metric.inverse).all()


@pytest.mark.parametrize("value", [torch.nan, torch.inf, 1e30])
def test_samples_that_are_not_finite_are_one_clear_error(value):
    with pytest.raises(InputError, match="NaN or infinite values; scale the features"):
        data_metric(torch.full((4, P), value), 0.1)


def test_the_metric_of_a_side_with_the_label_core_sums_over_the_outputs():
    side = rand(30, 4, P)
    metric = data_metric(side, 0.0)
    np.testing.assert_allclose(
        metric.factor @ metric.factor.T, np.einsum("bcp,bcq->pq", side, side) / 30, rtol=1e-9, atol=1e-12
    )


@pytest.mark.parametrize("metric", ["data", "frobenius"])
@pytest.mark.parametrize("label_right", [True, False])
@pytest.mark.parametrize("center_right", [True, False])
def test_without_limits_nothing_is_lost(metric, label_right, center_right):
    tensor, metrics = rand(P, C, Q), metrics_of(metric)
    white = into_white(tensor, metrics)
    found = split_bond(white, metrics, label_right=label_right, center_right=center_right, **NO_LIMIT)
    np.testing.assert_allclose(together(found), tensor, atol=1e-9)
    assert found.bond == (P if label_right else Q)
    assert found.discarded == 0.0
    assert (found.left.shape[1], found.right.shape[1]) == ((1, C) if label_right else (C, 1))


@pytest.mark.parametrize("metric", ["data", "frobenius"])
@pytest.mark.parametrize("label_right", [True, False])
@pytest.mark.parametrize("center_right", [True, False])
@pytest.mark.parametrize("damping", [0.0, 0.1])
def test_the_side_left_behind_is_an_isometry_in_the_metric(metric, label_right, center_right, damping):
    metrics = metrics_of(metric, damping)
    white = into_white(rand(P, C, Q), metrics)
    found = split_bond(
        white, metrics, label_right=label_right, center_right=center_right, max_bond=4, max_error=0.0
    )
    kept = found.left if center_right else found.right.permute(2, 1, 0)
    factor = metrics[0 if center_right else 1].factor
    weight = torch.eye(len(kept)).double() if factor is None else factor @ factor.T
    gram = torch.einsum("pck,pP,PcK->kK", kept, weight, kept)
    np.testing.assert_allclose(gram, np.eye(4), atol=1e-9)


@pytest.mark.parametrize("label_right", [True, False])
@pytest.mark.parametrize("bond", [1, 2, 4])
def test_discarded_weight_is_the_squared_error_of_outputs_on_independent_sides(label_right, bond):
    """Every left sample goes with every right one: then the metric of the data is exact."""
    left, right, tensor = samples(40, P, 1), samples(50, Q, 2), rand(P, C, Q)
    metrics = data_metric(left, 0.0), data_metric(right, 0.0)
    found = split_bond(
        into_white(tensor, metrics),
        metrics,
        label_right=label_right,
        center_right=label_right,
        max_bond=bond,
        max_error=0.0,
    )
    assert found.bond == bond

    def outputs(local):
        return np.einsum("bp,pcq,eq->bec", left, local, right)

    before, after = outputs(tensor.numpy()), outputs(together(found))
    error = np.square(before - after).sum() / np.square(before).sum()
    assert found.discarded == pytest.approx(error, rel=1e-6)
    best = data_weight(tensor.numpy() - together(found), left, right)
    for seed in range(20):  # no other tensor of this rank does better, least of all one close by
        size = 10.0 ** -(seed % 5)
        one = found.left.numpy() + size * rand(*found.left.shape, seed=seed).numpy()
        two = found.right.numpy() + size * rand(*found.right.shape, seed=seed + 1).numpy()
        other = np.einsum("pak,kbq->pabq", one, two).reshape(P, C, Q)
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
                tensor,
                (Metric(), Metric()),
                label_right=label_right,
                center_right=True,
                max_bond=max_bond,
                max_error=max_error,
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
            center_right=False,
            max_bond=4,
            max_error=1e-6,
            noise=noise,
            generator=generator,
        )

    assert split(0.0).bond == 1
    opened = split(1e-3)
    assert opened.bond == 4
    assert torch.equal(opened.left, split(1e-3).left)
    change = into_white(torch.from_numpy(together(opened)), metrics) - white
    size = white.square().mean().sqrt() * 1e-3 * np.sqrt(P * C * Q)  # the norm of that much noise
    assert 0.3 * size < change.norm() < 3 * size


def test_noise_leaves_the_size_alone():
    white = rand(P, C, Q)
    generator = torch.Generator().manual_seed(4)
    noisy = split_bond(white, (Metric(), Metric()), **SIDES, **NO_LIMIT, noise=3.0, generator=generator)
    assert np.linalg.norm(together(noisy)) == pytest.approx(white.norm().item(), rel=0.3)


def test_an_all_zero_tensor_keeps_one_direction():
    found = split_bond(torch.zeros(P, C, Q).double(), (Metric(), Metric()), **SIDES, **NO_LIMIT)
    assert (found.bond, found.discarded, found.entropy) == (1, 0.0, 0.0)


def test_a_tensor_that_is_not_finite_is_one_clear_error():
    with pytest.raises(InputError, match="NaN or infinite"):
        split_bond(torch.full((P, C, Q), torch.nan), (Metric(), Metric()), **SIDES, **NO_LIMIT)
