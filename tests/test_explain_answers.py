"""Dependence curves, Sobol indices and counterfactuals against sums over all inputs and direct evaluation."""

import itertools

import pytest
import torch
from torch.nn.functional import max_pool1d

from tnml.errors import InputError
from tnml.explain import (
    accumulated_effects,
    counterfactual,
    individual_dependence,
    partial_dependence,
    shapley,
    sobol,
)
from tnml.nn import MPSLayer

ORDER = [2, 0, 3, 1]


def layer_of(n_sites=4, outputs=3, **options):
    order = ORDER if n_sites == 4 else "raster"
    settings = {"bond_dim": 3, "noise": 0.7, "dtype": "float64", "order": order, **options}
    return MPSLayer(n_sites, outputs, **settings)


def samples(count, n_sites=4, seed=0):
    return torch.rand(count, n_sites, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def every_combination(x):
    """All combinations of the columns' values, as rows."""
    return torch.tensor(list(itertools.product(*x.T.tolist())), dtype=x.dtype)


@pytest.mark.parametrize("features", ["linear", {"name": "legendre", "dim": 4}])
def test_dependence_by_evaluation(features):
    layer, x, grid = layer_of(features=features), samples(5), torch.linspace(0, 1, 7).double()
    curves = individual_dependence(layer, x, 1, grid)
    for place, value in enumerate(grid):
        moved = x.clone()
        moved[:, 1] = value
        assert (curves[:, place] - layer(moved)).abs().max() <= 1e-13 * curves.abs().max()
    assert torch.allclose(partial_dependence(layer, 1, grid, x), curves.mean(0))
    apart = individual_dependence(layer, every_combination(x), 1, grid).mean(0)
    assert torch.allclose(partial_dependence(layer, 1, grid, x, joint=False), apart)
    weight = torch.tensor([1.0, 0.0, 3.0, 0.0, 0.0])
    one = partial_dependence(layer, 1, grid, x, target=2, weight=weight)
    assert torch.allclose(one, partial_dependence(layer, 1, grid, x[[0, 2, 2, 2]])[:, 2:])


def test_accumulated_effects_by_definition():
    layer, x = layer_of(), samples(40)
    grid = torch.tensor([0.0, 0.3, 0.35, 0.8, 1.0]).double()
    found = accumulated_effects(layer, x, 2, grid)
    curve = [torch.zeros(3, dtype=torch.float64)]
    total = torch.zeros(3, dtype=torch.float64)
    for low, high in itertools.pairwise(grid):
        inside = x[(x[:, 2] > low) & (x[:, 2] <= high)]
        upper, lower = inside.clone(), inside.clone()
        upper[:, 2], lower[:, 2] = high, low
        curve.append(curve[-1] + (layer(upper) - layer(lower)).mean(0))
        total += len(inside) * (curve[-1] + curve[-2]) / 2
    assert torch.allclose(found, torch.stack(curve) - total / len(x))


@pytest.mark.parametrize("label_site", [0, 1, 4])
def test_sobol_indices_by_all_combinations(label_site):
    layer, x = layer_of(label_site=label_site), samples(4)
    everything = every_combination(x)
    outputs = layer(everything).detach()
    found = sobol(layer, x)
    assert torch.allclose(found.mean, outputs.mean(0))
    centred = outputs - outputs.mean(0)
    assert torch.allclose(found.covariance, centred.T @ centred / len(outputs))
    variance = centred.square().mean(0)
    cube = centred.reshape(4, 4, 4, 4, 3)
    for feature in range(4):
        others = tuple(axis for axis in range(4) if axis != feature)
        first = cube.mean(others).square().mean(0) / variance
        total = 1 - cube.mean(feature).square().mean((0, 1, 2)) / variance
        assert torch.allclose(found.first[feature], first)
        assert torch.allclose(found.total[feature], total)


def test_sobol_indices_of_the_g_function():
    """A product of functions of one variable each has its indices in closed form; MPS of bond 1 hold it."""
    a = torch.tensor([0.0, 1.0, 4.5, 9.0], dtype=torch.float64)
    layer = MPSLayer(4, 1, 1, features={"name": "legendre", "dim": 3}, dtype="float64", noise=0.0)
    with torch.no_grad():
        for core, share in zip(layer.cores, a, strict=True):  # 1 + t / (1 + a), t of mean 0 and variance 1
            core[0, :, 0] = torch.tensor([1.0, 1 / (1 + float(share)), 0.0])
        layer.label.fill_(1.0)
    points, weights = (torch.from_numpy(v) for v in __import__("numpy").polynomial.legendre.leggauss(5))
    background = ((points + 1) / 2).unsqueeze(1).expand(-1, 4)
    found = sobol(layer, background, weights)
    each = 1 / (1 + a).square()
    variance = (1 + each).prod() - 1
    assert torch.allclose(found.covariance, variance.reshape(1, 1))
    assert torch.allclose(found.first[:, 0], each / variance)
    assert torch.allclose(found.total[:, 0], each * (1 + each).prod() / (1 + each) / variance)


@pytest.mark.parametrize("features", ["linear", {"name": "trigonometric", "dim": 2}])
def test_the_smallest_single_change_by_a_fine_grid(features):
    layer = layer_of(features=features, noise=2.0)
    fine, tried = torch.linspace(0, 1, 4001).double(), 0
    for seed in range(12):
        x = samples(1, seed=seed)[0]
        target = (int(layer(x.unsqueeze(0)).argmax()) + 1) % 3
        curves = torch.stack([individual_dependence(layer, x.unsqueeze(0), i, fine)[0] for i in range(4)])
        wins = curves.argmax(2) == target
        found = counterfactual(layer, x, target)
        if not found.found:
            assert not bool((max_pool1d((~wins).float(), 9, 1, 4) == 0).any())
        assert int(layer(found.inputs.unsqueeze(0)).argmax() == target) == int(found.found)
        if found.found:
            tried += 1
            distance = (fine - x[:, None]).abs()
            lasting = max_pool1d((~wins).float(), 9, 1, 4) == 0  # the target wins for more than 1/1024
            (changed,) = found.changed
            others = [i for i in range(4) if i != changed]
            assert torch.equal(found.inputs[others], x[others])
            change = (found.inputs - x).abs().max()
            assert distance[wins].min() - 1 / 4000 <= change <= distance[lasting].min()
    assert tried >= 3


def test_counterfactuals_of_several_changes():
    layer, done = layer_of(noise=2.0), 0
    for seed in range(12):
        x = samples(1, seed=seed)[0]
        target = (int(layer(x.unsqueeze(0)).argmax()) + 1) % 3
        found = counterfactual(layer, x, target, max_changes=4)
        kept = counterfactual(layer, x, target, max_changes=4, keep=torch.tensor([True, False, True, False]))
        assert torch.equal(kept.inputs[[0, 2]], x[[0, 2]])
        assert set(kept.changed) <= {1, 3}
        done += found.found
        assert found.found == (found.margin > 0)
    assert done >= 6


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda layer: partial_dependence(layer, 4, torch.rand(3), samples(5)), "feature must be"),
        (lambda layer: partial_dependence(layer, 1, torch.rand(0), samples(5)), r"expected a grid \[g\]"),
        (lambda layer: accumulated_effects(layer, samples(5), 0, torch.tensor([0.4, 0.5])), "must enclose"),
        (lambda layer: accumulated_effects(layer, samples(5), 0, torch.tensor([1.0, 0.0])), "ascending"),
        (lambda _: sobol(layer_of(dtype="complex128"), samples(5)), "real outputs"),
        (lambda layer: counterfactual(layer, samples(1), 0), r"expected one sample \[4\]"),
        (lambda layer: counterfactual(layer, samples(1)[0], 3), "target must be"),
        (lambda layer: counterfactual(layer, samples(1)[0], 0, keep=torch.ones(4)), "keep must be"),
    ],
)
def test_bad_input(call, match):
    with pytest.raises(InputError, match=match):
        call(layer_of())


def test_importance_is_the_mean_size():
    found = shapley(layer_of(), samples(5), samples(9, seed=1))
    assert torch.equal(found.importance, found.values.abs().mean(0))
