"""Synthetic targets against enumeration, dense tensors, closed forms and large samples in numpy."""

import dataclasses
import itertools
import math
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from numpy.polynomial import legendre
from oracles import dense_half

from tnml.data.hard_targets import TanhNetwork, grid_tensors, neighbours
from tnml.data.inputs import INPUT_NAMES
from tnml.data.synthetic import (
    TARGETS,
    Target,
    classification,
    regression,
    target,
)
from tnml.errors import InputError
from tnml.features import feature_map
from tnml.nn import MPSLayer

SMALL: dict[str, dict[str, Any]] = {
    "mps": {"n_sites": 6, "bond_dim": 3},
    "permuted": {"n_sites": 6, "bond_dim": 2},
    "grid": {"rows": 2, "columns": 3},
    "tanh": {"n_sites": 4, "width": 5},
    "parity": {"n_sites": 5, "sites": (1, 4)},
}


def coefficients(teacher: Target) -> np.ndarray:
    """The tensor `[d, .., d, c]` of the teacher's state, its sites in chain order."""
    state = teacher.state()
    dense = dense_half([core.numpy() for core in state.cores])[..., 0] * math.exp(state.log_scale)
    return np.moveaxis(dense, state.label_site, -1)


def values(teacher: Target, x: np.ndarray) -> np.ndarray:
    """f(x) `[n, c]` from the dense tensor, one site after the other."""
    features = feature_map(teacher.features)(torch.from_numpy(x)).numpy()
    order = range(teacher.n_sites) if teacher.order is None else teacher.order
    result = np.broadcast_to(coefficients(teacher), (len(x), *coefficients(teacher).shape))
    for site in order:
        result = np.einsum("nd...,nd->n...", result, features[:, site])
    return result


def ranks(tensor: np.ndarray) -> list[int]:
    """The rank of every cut of a tensor `[d_0, .., d_{n-1}]`."""
    sizes = np.cumprod(tensor.shape)[:-1]
    return [int(np.linalg.matrix_rank(tensor.reshape(rows, -1), rtol=1e-10)) for rows in sizes]


@pytest.mark.parametrize("name", TARGETS)
def test_a_target_tells_what_it_is(name: str) -> None:
    made = target(name, **SMALL[name])
    assert (made.name, made.n_sites) == (name, made.draw(3, seed=0).shape[1])
    assert set(SMALL[name].items()) <= set(made.options.items())
    again = target(name, **made.options)
    x = made.draw(50, seed=4)
    assert x.dtype == made(x).dtype == torch.float64
    assert made(x).shape == (50,)
    assert torch.equal(made(x), again(x))
    assert torch.allclose(made(x.float()), made(x), atol=1e-4)
    assert made(x[:0]).shape == (0,)
    with pytest.raises(dataclasses.FrozenInstanceError):
        made.name = "other"  # type: ignore[misc]
    assert torch.equal(pickle.loads(pickle.dumps(made))(x), made(x)), "workers get it by pickle"


@pytest.mark.parametrize("name", ["mps", "permuted", "grid", "tanh"])
def test_seeds_and_outputs(name: str) -> None:
    first, second = (target(name, **SMALL[name], seed=seed, outputs=3) for seed in (0, 1))
    x = first.draw(200, seed=0)
    assert torch.equal(x, second.draw(200, seed=0)), "inputs do not depend on the target"
    assert first(x).shape == (200, 3)
    assert first.mean.shape == first.variance.shape == first.scale.shape == (3,)
    assert torch.allclose(first.variance, torch.ones(3, dtype=torch.float64))
    assert not torch.allclose(first(x), second(x), atol=0.1)


@pytest.mark.parametrize("features", ["legendre", "linear", {"name": "fourier", "dim": 3, "period": 2.0}])
def test_teacher_is_the_sum_over_its_coefficients(features: Any) -> None:
    for name in ("mps", "permuted"):
        teacher = target(name, n_sites=5, bond_dim=2, features=features, outputs=2, seed=2)
        x = np.random.default_rng(0).random((20, 5))
        assert np.allclose(teacher(torch.from_numpy(x)).numpy(), values(teacher, x), atol=1e-11)


def test_mean_and_variance_under_uniform_inputs_are_sums_of_coefficients() -> None:
    teacher = target("mps", n_sites=7, bond_dim=4, features={"name": "legendre", "dim": 3}, seed=3)
    tensor = coefficients(teacher)[..., 0]
    constant = tensor[(0,) * 7]
    assert float(teacher.mean) == pytest.approx(constant, abs=1e-12)
    assert np.sum(tensor**2) - constant**2 == pytest.approx(1.0, abs=1e-12)
    assert float(teacher.variance) == pytest.approx(1.0, abs=1e-12)


@pytest.mark.parametrize("name", ["one-hot", "markov"])
def test_mean_and_variance_on_levels_by_enumeration(name: str) -> None:
    teacher = target(
        "mps",
        n_sites=5,
        bond_dim=3,
        inputs=name,
        levels=3,
        correlation=0.7,
        features="affine",
        outputs=2,
        seed=1,
    )
    c = 0.7 if name == "markov" else 0.0
    paths = np.array(list(itertools.product(range(3), repeat=5)))
    weight = np.full(len(paths), 1 / 3)
    for a, b in itertools.pairwise(range(5)):
        weight *= (1 - c) / 3 + c * (paths[:, a] == paths[:, b])
    assert weight.sum() == pytest.approx(1.0)
    f = values(teacher, paths / 2)
    mean = weight @ f
    assert np.allclose(teacher.mean.numpy(), mean, atol=1e-12)
    assert np.allclose(weight @ (f - mean) ** 2, 1.0, atol=1e-12)
    unscaled = f / teacher.scale.numpy()
    assert np.allclose(unscaled, f * np.sqrt(weight @ (unscaled - weight @ unscaled) ** 2), atol=1e-10)


CASES: dict[str, tuple[int, dict[str, Any]]] = {
    "legendre": (1_000_000, {"features": "legendre", "n_sites": 6}),
    "one-hot": (100_000, {"features": {"name": "one-hot", "dim": 3}, "n_sites": 5}),
    "trigonometric": (100_000, {"features": "trigonometric", "n_sites": 5}),
}


@pytest.mark.parametrize("inputs", INPUT_NAMES)
@pytest.mark.parametrize("case", CASES)
def test_mean_and_variance_within_the_error_of_many_samples(case: str, inputs: str) -> None:
    n, options = CASES[case]
    teacher = target("mps", **options, inputs=inputs, seed=11)
    y = teacher(teacher.draw(n, seed=5)).numpy()
    mean, variance = y.mean(), y.var()
    assert abs(float(teacher.mean) - mean) < 3 * math.sqrt(variance / n)
    spread = math.sqrt((((y - mean) ** 4).mean() - variance**2) / n)
    assert spread < 0.05
    assert abs(float(teacher.variance) - variance) < 3 * spread


def test_normal_inputs_have_the_moments_of_uniform_ones() -> None:
    uniform, gauss = (target("mps", inputs=name, seed=2) for name in ("uniform", "normal"))
    assert torch.allclose(uniform.mean, gauss.mean)  # both make (1, √3 (2x - 1)) orthonormal
    assert torch.allclose(uniform.scale, gauss.scale)
    x = gauss.draw(100_000, seed=0)
    assert abs(float(x.mean()) - 0.5) < 0.002
    assert abs(float(x.var()) - 1 / 12) < 0.002
    assert float(x.max()) > 1.2


def test_markov_inputs_are_correlated_as_asked() -> None:
    teacher = target("mps", inputs="markov", levels=3, correlation=0.6)
    x = teacher.draw(50_000, seed=0).numpy()
    assert set(np.unique(x)) == {0.0, 0.5, 1.0}
    matrix = np.corrcoef(x.T)
    for distance in range(5):
        assert matrix[2, 2 + distance] == pytest.approx(0.6**distance, abs=0.02)


@pytest.mark.parametrize("inputs", INPUT_NAMES)
def test_samples_depend_on_seed_and_index_only(inputs: str) -> None:
    teacher = target("mps", n_sites=5, inputs=inputs)
    whole = teacher.draw(1000, seed=7)
    for cuts in ([0, 1000], [0, 1, 255, 256, 257, 700, 1000]):
        parts = [teacher.draw(b - a, seed=7, first=a) for a, b in itertools.pairwise(cuts)]
        assert torch.equal(torch.cat(parts), whole)
    assert torch.equal(teacher.draw(10, seed=7), whole[:10]), "more samples leave the first ones as they are"
    assert not torch.equal(teacher.draw(1000, seed=8), whole)
    assert teacher.draw(0, seed=7).shape == (0, 5)


def test_the_numbers_stay_the_same_in_every_version() -> None:
    teacher = target("mps", n_sites=3)
    expected = [0.9313889929381751, 0.8020518311445706, 0.8399203777180815]
    assert np.allclose(teacher.draw(258, seed=1)[256].numpy(), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("name", "options"), [("mps", {}), ("permuted", {}), ("grid", {"order": "snake"})])
def test_the_layer_of_the_state_has_no_error(name: str, options: dict[str, Any]) -> None:
    teacher = target(name, seed=3, **options)
    layer = MPSLayer.from_state(teacher.state(), **teacher.layer_settings())
    x = teacher.draw(500, seed=1)
    assert float((layer(x)[:, 0].detach() - teacher(x)).abs().max()) < 1e-10


def test_no_smaller_bond_dimension_computes_the_teacher() -> None:
    teacher = target("mps", n_sites=10, bond_dim=4, seed=5)
    assert teacher.bond_dim == 4
    tensor = coefficients(teacher)[..., 0]
    assert ranks(tensor) == [2, 4, 4, 4, 4, 4, 4, 4, 2]
    # the legendre features are orthonormal, so what the SVD of a cut leaves is a mean squared error
    middle = np.linalg.svd(tensor.reshape(32, 32), compute_uv=False)
    least_error = (middle[3:] ** 2).sum()
    assert least_error > 1e-3
    truncated = teacher.state().truncate(max_bond=3).state
    layer = MPSLayer.from_state(truncated, features="legendre")
    x = teacher.draw(20_000, seed=0)
    assert float((layer(x)[:, 0].detach() - teacher(x)).square().mean()) > 0.8 * least_error


def test_a_permuted_teacher_is_the_teacher_seen_in_another_order() -> None:
    plain, permuted = (target(name, n_sites=8, bond_dim=2, seed=4) for name in ("mps", "permuted"))
    x = plain.draw(30, seed=0)
    order = list(permuted.order or ())
    assert sorted(order) == list(range(8)) != order
    assert torch.allclose(plain(x[:, order]), permuted(x))
    tensor = coefficients(permuted)[..., 0].transpose([order.index(site) for site in range(8)])
    assert permuted.bond_dim == max(ranks(tensor)) > 2
    assert target("permuted", n_sites=20).bond_dim is None


def test_ranks_of_a_permuted_teacher_with_several_outputs() -> None:
    teacher = target("permuted", n_sites=6, bond_dim=2, outputs=2, seed=1)
    order = list(teacher.order or ())
    tensor = coefficients(teacher).transpose([*(order.index(site) for site in range(6)), 6])
    assert teacher.bond_dim == max(ranks(np.moveaxis(tensor, -1, 3)))


def grid_values(x: np.ndarray, pixels: list[int], rows: int, columns: int, seed: int) -> np.ndarray:
    """The network of the grid, contracted by one numpy einsum for every sample; x is in chain order."""
    bonds = neighbours(rows, columns)
    tensors = [t[0].numpy() for t in grid_tensors(rows, columns, 2, 2, 1, seed)]
    result = []
    for sample in x:
        operands: list[Any] = []
        for pixel, tensor in enumerate(tensors):
            value = legendre.legvander(2 * sample[pixels.index(pixel)] - 1, 1)[0] * np.sqrt([1, 3])
            legs = [number for number, bond in enumerate(bonds) if pixel in bond]
            operands += [np.tensordot(value, tensor, 1), legs]
        result.append(np.einsum(*operands, [], optimize="greedy"))
    return np.array(result)


@pytest.mark.parametrize(
    ("rows", "columns", "order", "pixels"),
    [
        (3, 4, "raster", list(range(12))),
        (3, 4, "snake", [0, 1, 2, 3, 7, 6, 5, 4, 8, 9, 10, 11]),
        (1, 4, "raster", [0, 1, 2, 3]),
        (4, 1, "snake", [0, 1, 2, 3]),
    ],
)
def test_a_grid_is_its_network(rows: int, columns: int, order: str, pixels: list[int]) -> None:
    teacher = target("grid", rows=rows, columns=columns, order=order, seed=6)
    x = teacher.draw(8, seed=0)
    expected = grid_values(x.numpy(), pixels, rows, columns, 6) * float(teacher.scale)
    assert np.allclose(teacher(x).numpy(), expected, rtol=1e-9)
    tensor = coefficients(teacher)[..., 0]
    assert float(teacher.mean) == pytest.approx(tensor[(0,) * teacher.n_sites], abs=1e-10)
    assert (tensor**2).sum() - float(teacher.mean) ** 2 == pytest.approx(1.0, abs=1e-9)
    assert teacher.bond_dim == max(ranks(tensor))


def test_a_wide_grid_needs_a_wide_chain() -> None:
    assert [target("grid", rows=4, columns=columns).bond_dim for columns in (1, 2, 3)] == [2, 8, 16]


def test_a_tanh_network_by_hand() -> None:
    network = target("tanh", n_sites=3, width=4, gain=2.0, seed=2)
    function = network.function
    assert isinstance(function, TanhNetwork)
    x = network.draw(5, seed=0)
    for sample, value in zip(x.tolist(), network(x).tolist(), strict=True):
        total = 0.0
        for row, bias, out in zip(
            function.hidden.tolist(), function.bias.tolist(), function.out[0].tolist(), strict=True
        ):
            z = sum(w * math.sqrt(3) * (2 * s - 1) for w, s in zip(row, sample, strict=True))
            total += out * math.tanh(z + bias)
        assert value == pytest.approx(total, abs=1e-12)
    y = network(network.draw(200_000, seed=3))
    assert float(y.var()) == pytest.approx(1.0, abs=0.02)
    assert float(y.mean()) == pytest.approx(float(network.mean), abs=0.02)
    with pytest.raises(InputError, match="no matrix product state"):
        network.state()
    with pytest.raises(InputError, match="no matrix product state"):
        network.layer_settings()


@pytest.mark.parametrize(("inputs", "mean"), [("uniform", 0.0), ("one-hot", 0.0), ("markov", 0.6)])
def test_parity(inputs: str, mean: float) -> None:
    function = target("parity", n_sites=5, sites=(1, 2), inputs=inputs, correlation=0.6)
    x = function.draw(2000, seed=0)
    expected = np.prod(np.where(x.numpy()[:, [1, 2]] > 0.5, 1.0, -1.0), axis=1)
    assert np.array_equal(function(x).numpy(), expected)
    assert float(function.mean) == pytest.approx(mean, abs=1e-12)
    assert float(function.variance) == pytest.approx(1 - mean**2, abs=1e-12)
    assert (function.bond_dim, function.features) == (1, "one-hot")
    layer = MPSLayer.from_state(function.state(), **function.layer_settings())
    assert np.allclose(layer(x)[:, 0].detach().numpy(), expected)


def test_regression_adds_noise_of_the_given_size() -> None:
    teacher = target("mps", seed=1)
    x, y, clean = regression(teacher, 20_000, noise=0.3, seed=2)
    assert torch.equal(clean, teacher(x))
    noise = (y - clean).numpy()
    assert noise.std() == pytest.approx(0.3, abs=3 * 0.3 / math.sqrt(40_000))
    assert abs(noise.mean()) < 3 * 0.3 / math.sqrt(20_000)
    assert abs(np.corrcoef(noise, clean.numpy())[0, 1]) < 0.03
    silent = regression(teacher, 10, seed=2)
    assert torch.equal(silent.y, silent.clean)
    parts = [regression(teacher, 10_000, noise=0.3, seed=2, first=first) for first in (0, 10_000)]
    assert torch.equal(torch.cat([part.x for part in parts]), x)
    assert torch.allclose(torch.cat([part.y for part in parts]), y, atol=1e-12)
    several = regression(target("mps", outputs=2), 5, noise=0.1, seed=0)
    assert several.y.shape == several.clean.shape == (5, 2)


@pytest.mark.parametrize("threshold", ["mean", "median", 0.0, 0.4])
def test_a_layer_computes_the_boundary_of_a_classification_exactly(threshold: str | float) -> None:
    teacher = target("mps", n_sites=8, bond_dim=3, seed=3)
    x, labels = classification(teacher, 3000, seed=1, threshold=threshold)
    assert labels.dtype == torch.int64
    level = {"mean": float(teacher.mean), "median": float(teacher.median)}.get(str(threshold), threshold)
    assert np.array_equal(labels.numpy(), values(teacher, x.numpy())[:, 0] > level)
    state = teacher.state(minus=float(level))
    assert max(state.bond_dims) == (3 if level == 0 else 4)
    score = MPSLayer.from_state(state, **teacher.layer_settings())(x)[:, 0].detach()
    assert torch.allclose(score, teacher(x) - float(level), atol=1e-10)
    assert torch.equal((score > 0).long(), labels)
    if threshold == "median":
        assert 0.46 < float(labels.double().mean()) < 0.54


def test_softmax_classes_are_the_largest_output() -> None:
    teacher = target("mps", n_sites=8, outputs=4, seed=0)
    x, labels = classification(teacher, 2000, seed=1, kind="softmax")
    assert np.array_equal(labels.numpy(), values(teacher, x.numpy()).argmax(1))
    layer = MPSLayer.from_state(teacher.state(), **teacher.layer_settings())
    assert torch.equal(layer(x).argmax(1), labels)
    assert labels.unique().tolist() == [0, 1, 2, 3]
    parts = [classification(teacher, 1000, seed=1, kind="softmax", first=first).labels for first in (0, 1000)]
    assert torch.equal(torch.cat(parts), labels)


def test_the_median_halves_other_samples() -> None:
    teacher = target("mps", seed=9)
    above = (teacher(teacher.draw(40_000, seed=1)) > teacher.median).double().mean()
    assert float(above) == pytest.approx(0.5, abs=0.012)


def test_a_long_chain_keeps_unit_variance() -> None:
    teacher = target("mps", n_sites=400, bond_dim=3, features="linear")
    assert float(teacher.variance) == pytest.approx(1.0, abs=1e-9)
    assert bool(torch.isfinite(teacher(teacher.draw(20, seed=0))).all())


BAD: dict[str, tuple[Callable[[], Any], str]] = {
    "target": (lambda: target("msp"), "unknown target 'msp'; did you mean 'mps'"),
    "option": (lambda: target("mps", bond=3), "did you mean 'bond_dim'"),
    "features": (lambda: target("mps", features="legndre"), "unknown feature map"),
    "inputs": (lambda: target("mps", inputs="gauss"), "unknown inputs"),
    "sites": (lambda: target("mps", n_sites=0), "n_sites must be a whole number, at least 1"),
    "bond": (lambda: target("permuted", bond_dim=1.5), "bond_dim must be a whole number"),
    "seed": (lambda: target("mps", seed=-1), "seed must be a whole number, at least 0"),
    "correlation": (
        lambda: target("mps", inputs="markov", correlation=1.0),
        "correlation .* below 1, got 1.0",
    ),
    "levels": (lambda: target("mps", inputs="one-hot", levels=1), "levels must be"),
    "permuted": (lambda: target("permuted", inputs="markov"), "independent inputs"),
    "order": (lambda: target("grid", order="spiral"), "unknown order"),
    "grid": (lambda: target("grid", rows=3, columns=12), "columns the shorter side"),
    "gain": (lambda: target("tanh", gain=0), "gain must be"),
    "no site": (lambda: target("parity", sites=[]), "sites must name"),
    "twice": (lambda: target("parity", sites=[1, 1]), "each once"),
    "outside": (lambda: target("parity", n_sites=3, sites=[3]), r"0\.\.2"),
    "width": (lambda: target("mps")(torch.zeros(3, 9)), r"expected floating-point inputs \[n, 10\]"),
    "integers": (lambda: target("mps")(torch.zeros(3, 10, dtype=torch.int64)), "floating-point"),
    "count": (lambda: target("mps").draw(-1, seed=0), "n must be"),
    "constant": (lambda: target("mps", features="trigonometric").state(minus=0.1), "cannot make a constant"),
    "noise": (lambda: regression(target("mps"), 3, noise=-1, seed=0), "noise must be"),
    "kind": (lambda: classification(target("mps"), 3, seed=0, kind="max"), "unknown kind"),
    "one": (lambda: classification(target("mps"), 3, seed=0, kind="softmax"), "two outputs or more"),
    "many": (lambda: classification(target("mps", outputs=2), 3, seed=0), "one output"),
    "threshold": (lambda: classification(target("mps"), 3, seed=0, threshold="mode"), "unknown threshold"),
}


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("case", BAD)
def test_bad_input_says_what_to_do(case: str) -> None:
    attempt, text = BAD[case]
    with pytest.raises(InputError, match=text):
        attempt()
