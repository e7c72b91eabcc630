"""Explanations: what the values have to satisfy, many sites, errors, and that the model is left alone."""

import copy

import pytest
import torch

from tnml.errors import InputError
from tnml.explain import banzhaf, interactions, shapley
from tnml.nn import MPSLayer


def layer_of(n_sites: int = 6, outputs: int = 3, **options) -> MPSLayer:
    settings = {"bond_dim": 3, "noise": 0.5, "dtype": "float64", **options}
    return MPSLayer(n_sites, outputs, **settings)


def samples(count: int, n_sites: int = 6, seed: int = 0) -> torch.Tensor:
    return torch.rand(count, n_sites, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_a_feature_at_its_mean_contributes_nothing():
    layer, background = layer_of(), samples(9)
    x = samples(4, seed=1)
    x[:, 2] = background[:, 2].mean()  # the features are linear in x
    found = shapley(layer, x, background)
    assert found.values[:, 2].abs().max() <= 1e-15 * found.values.abs().max()
    assert interactions(layer, x, background).values[:, 2].abs().max() <= 1e-15


def test_two_features_that_play_the_same_part_have_equal_values():
    layer = layer_of(2, bond_dim=2, label_site=1)
    left, right = layer.cores
    with torch.no_grad():
        right.copy_(left.permute(2, 1, 0))
        layer.label.copy_(layer.label + layer.label.transpose(0, 2))
    x = samples(5, 1).expand(5, 2)
    background = samples(7, 1, seed=2).expand(7, 2)
    found = shapley(layer, x, background).values
    assert (found[:, 0] - found[:, 1]).abs().max() <= 1e-14 * found.abs().max()


def test_values_are_linear_in_the_outputs():
    layer, x, background = layer_of(), samples(4, seed=1), samples(9)
    whole = shapley(layer, x, background)
    mixed = torch.tensor([[1.0, 0.5], [-1.0, 0.0], [0.0, 2.0]])
    found = shapley(layer, x, background, mixed)
    assert (found.values - whole.values @ mixed.double()).abs().max() <= 1e-14 * whole.values.abs().max()
    assert (found.base - whole.base @ mixed.double()).abs().max() <= 1e-14 * whole.base.abs().max()
    for target in (2, [2], torch.tensor([2])):
        one = shapley(layer, x, background, target).values
        assert (one - whole.values[..., 2:]).abs().max() <= 1e-14 * whole.values.abs().max()


@pytest.mark.parametrize("joint", [False, True])
@pytest.mark.parametrize("explain", [shapley, banzhaf, interactions])
def test_weights_of_the_background_are_repeats(explain, joint):
    layer, x, background = layer_of(), samples(2, seed=1), samples(3)
    weighted = explain(layer, x, background, weight=torch.tensor([2.0, 0.0, 1.0]), joint=joint).values
    repeated = explain(layer, x, background[[0, 0, 2]], joint=joint).values
    assert (weighted - repeated).abs().max() <= 1e-13 * repeated.abs().max()


def test_joint_values_average_those_of_each_row():
    layer, x, background = layer_of(), samples(2, seed=1), samples(3)
    each = [shapley(layer, x, row.unsqueeze(0)).values for row in background]
    found = shapley(layer, x, background, joint=True).values
    assert (found - torch.stack(each).mean(0)).abs().max() <= 1e-13 * found.abs().max()
    apart = shapley(layer, x, background).values
    assert (found - apart).abs().max() > 1e-3 * found.abs().max(), "independent columns are another game"


def test_784_sites_in_single_precision(generator):
    x = torch.rand(3, 784, generator=generator)
    background = torch.rand(50, 784, generator=generator)
    layer = MPSLayer(784, 10, bond_dim=8, order="snake", shape=(28, 28)).rescale_(background)
    with torch.no_grad():
        layer.weight.add_(0.02 * torch.randn(layer.weight.shape, generator=generator))
    wide = copy.deepcopy(layer).double()
    found, exact = shapley(layer, x, background), shapley(wide, x.double(), background.double(), nodes=64)
    assert exact.gap is not None
    assert exact.gap < 1e-9
    assert (found.values - exact.values).abs().max() < 1e-4 * exact.values.abs().max()
    assert (exact.outputs - exact.base - exact.values.sum(1)).abs().max() < 1e-9 * exact.outputs.abs().max()


def test_the_nodes_follow_the_gap():
    layer, x, background = layer_of(40, bond_dim=6, noise=2.0), samples(2, 40), samples(9, 40)
    rough, found = shapley(layer, x, background, nodes=2), shapley(layer, x, background)
    assert rough.gap is not None
    assert found.gap is not None
    assert rough.nodes == 2
    assert rough.gap > 1e-6 > 1e-10 > found.gap
    assert found.nodes in {8, 16, 20}
    few = shapley(layer_of(5), samples(2, 5), samples(9, 5))
    assert few.nodes == 3, "exact with half as many nodes as sites"


def test_contributions_that_cancel_do_not_ask_for_more_nodes():
    layer, x, background = layer_of(40, dtype="float32"), samples(1, 40).float(), samples(9, 40).float()
    whole = shapley(layer, x, background)
    wanted = (whole.outputs - whole.base)[0]
    column = torch.tensor([[1.0], [-float(wanted[0] / wanted[1])], [0.0]])
    found = shapley(layer, x, background, column)
    assert found.gap is not None
    assert found.gap > 1e-3, "there is nothing left to compare with"
    assert found.nodes == whole.nodes == 8
    assert (found.values - whole.values @ column.double()).abs().max() <= 1e-4 * whole.values.abs().max()


def test_features_instead_of_inputs():
    layer, x, background = layer_of(order=[3, 1, 5, 0, 2, 4]), samples(2, seed=1), samples(9)
    expected = shapley(layer, x, background).values
    assert torch.equal(shapley(layer, layer.features(x), layer.features(background)).values, expected)


@pytest.mark.parametrize("explain", [shapley, banzhaf, interactions])
def test_the_model_is_left_alone(explain):
    layer = layer_of(site_dropout=0.5, bond_dropout=0.5).train()
    before, numbers = copy.deepcopy(layer.state_dict()), torch.get_rng_state()
    x = samples(2).requires_grad_()
    first = explain(layer, x, samples(9)).values
    with torch.inference_mode():
        again = explain(layer, samples(2), samples(9)).values
    assert torch.equal(first, again), "no dropout"
    assert not first.requires_grad
    assert layer.training
    assert x.grad is None
    assert all(parameter.grad is None for parameter in layer.parameters())
    assert torch.equal(numbers, torch.get_rng_state())
    assert all(torch.equal(value, before[name]) for name, value in layer.state_dict().items())


def test_long_chains_do_not_overflow():
    layer = layer_of(1500, 2, dtype="float32", bond_dim=2, noise=1e-3)
    x, background = samples(1, 1500).float(), samples(5, 1500, seed=1).float()
    found = shapley(layer, x, background, nodes=8)
    assert bool(torch.isfinite(found.values).all())
    assert found.gap is not None
    assert found.gap < 1e-2


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"target": 3}, "target must be a whole number"),
        ({"target": []}, "at least one output"),
        ({"target": torch.ones(2, 2)}, r"combinations \[3, k\]"),
        ({"nodes": 0}, "nodes must be"),
        ({"x": samples(0)}, "at least one sample"),
        ({"x": samples(2, 5)}, r"expected inputs \[b, 6\]"),
        ({"background": samples(0)}, "at least one row"),
        ({"weight": torch.ones(3)}, "one weight per sample"),
    ],
)
def test_bad_input(change, match):
    given = {"x": samples(2), "background": samples(9), **change}
    with pytest.raises(InputError, match=match):
        shapley(layer_of(), **given)
    with pytest.raises(InputError, match="kind"):
        interactions(layer_of(), samples(2), samples(9), kind="shap")
