"""MPSLayer: shapes, starting values, gradients against dense tensors, dropout, states."""

import copy
import json

import numpy as np
import oracles
import pytest
import torch

from tnml.errors import InputError
from tnml.features import feature_map, site_order
from tnml.nn import BondDropout, MPSLayer, SiteDropout

PRESERVING = ["linear", "affine", "polynomial", "legendre", "fourier", "one-hot", "rbf", "hat"]


def dense_logits(layer: MPSLayer, x: torch.Tensor) -> np.ndarray:
    cores = [core.detach().numpy() for core in layer.cores]
    cut = layer.label_site
    features = layer.local_features(x).detach().numpy()
    return oracles.outputs(features, cores[:cut], layer.label_core.detach().numpy(), cores[cut:])


@pytest.mark.parametrize("label_site", [0, 1, 3, 6, None])
@pytest.mark.parametrize(
    ("features", "dtype"), [("linear", "float64"), ("legendre", "float64"), ("linear", "complex128")]
)
def test_layer_equals_the_dense_tensor(label_site, features, dtype, generator):
    layer = MPSLayer(
        6, 3, 4, features=features, label_site=label_site, order="snake", shape=(2, 3), noise=0.5, dtype=dtype
    )
    x = torch.rand(5, 6, generator=generator, dtype=torch.float64)
    assert oracles.relative(layer(x).detach(), dense_logits(layer, x)) <= 1e-12
    value, log_scale = layer.log_forward(x)
    assert torch.allclose(value * log_scale.exp().unsqueeze(-1), layer(x))


def test_order_is_applied_to_pixels_and_to_features(generator):
    order = site_order("spiral", (4, 4), 16)
    shuffled, plain = MPSLayer(16, 2, 3, order="spiral", noise=0.3), MPSLayer(16, 2, 3, noise=0.3)
    x = torch.rand(4, 16, generator=generator)
    assert torch.equal(shuffled(x), plain(x[:, order]))
    assert torch.allclose(shuffled(feature_map("linear")(x)), shuffled(x))


@pytest.mark.parametrize("bond_dim", [2, 10, 100])
@pytest.mark.parametrize("features", [*PRESERVING, "trigonometric"])
def test_starting_logits_are_healthy_sample_by_sample(features, bond_dim, generator):
    """Bars: logit std in [.5, 2], median absolute logit >= .3, largest norm <= 3 times the median norm."""
    x = torch.rand(150, 784, generator=generator)
    x = torch.where(x < 0.6, torch.zeros_like(x), x)  # mostly dark, like digits
    logits = MPSLayer(784, 10, bond_dim, features=features, seed=1)(x).detach()
    norms = logits.norm(dim=1)
    assert 0.5 <= logits.std() <= 2
    assert logits.abs().median() >= 0.3
    assert norms.max() / norms.median() <= 3


def test_maps_without_a_preserved_path_are_healthy_after_rescale(generator):
    """The documented remedy: an unnormalised Gaussian map collapses at 784 sites, `rescale_` mends it."""
    spec = {"name": "rbf", "dim": 3, "normalise": False}
    x = torch.rand(300, 784, generator=generator)
    layer = MPSLayer(784, 10, 10, features=spec, seed=1)
    before = layer(x).detach()
    assert not torch.isfinite(before).all() or before.abs().median() < 0.3 or before.abs().median() > 100
    logits = layer.rescale_(x)(x).detach()
    norms = logits.norm(dim=1)
    assert 0.5 <= logits.std() <= 2
    assert logits.abs().median() >= 0.3
    assert norms.max() / norms.median() <= 3


@pytest.mark.parametrize("name", ["legendre", "polynomial", "fourier", "trigonometric", "rbf", "one-hot"])
@pytest.mark.parametrize("dim", [3, 9])
@pytest.mark.parametrize("sites", [4, 400])
def test_a_rescaled_start_is_healthy_on_truth_values(name, dim, sites, generator):
    """Noise of standard deviation 1/4 to 1/3 around the path: nine in ten log norms within 1.3 of each other.

    At 0 and 1 the squares of nine Legendre functions are nine times their mean, which the noise is made for.
    """
    x = (torch.rand(200, sites, generator=generator) < 0.5).float()
    layer = MPSLayer(sites, 4, 8, features={"name": name, "dim": dim}).rescale_(x)
    logits = layer(x).detach()
    norms = logits.square().mean(1).sqrt().log()
    low, high = norms.quantile(0.05), norms.quantile(0.95)
    assert high - low < 1.3
    assert abs(norms.median()) < 0.01


def test_a_noise_that_was_given_stays(generator):
    x = (torch.rand(20, 5, generator=generator) < 0.5).float()
    features = {"name": "legendre", "dim": 9}
    layer = MPSLayer(5, 2, 3, features=features, noise=0.1)
    before = layer.weight.detach().clone()
    assert torch.equal(layer.rescale_(x).weight, before)
    weight = torch.arange(1.0, 21.0)
    repeated = MPSLayer(5, 2, 3, features=features).rescale_(x.repeat_interleave(weight.long(), 0))
    weighted = MPSLayer(5, 2, 3, features=features).rescale_(x, weight)
    torch.testing.assert_close(weighted.weight, repeated.weight)
    assert not torch.equal(weighted.weight, MPSLayer(5, 2, 3, features=features).weight)


def test_rescale_keeps_seed_and_noise(generator):
    x = torch.rand(50, 9, generator=generator)
    spec = {"name": "rbf", "dim": 3, "normalise": False}
    a, b, c = (
        MPSLayer(9, 2, 3, features=spec, seed=s, noise=n).rescale_(x) for s, n in ((1, 0.1), (2, 0.1), (1, 0))
    )
    assert not torch.equal(a.weight, b.weight)
    assert c.weight.count_nonzero() < a.weight.count_nonzero()


def test_rescale_keeps_a_healthy_path_and_sets_the_scale(generator):
    layer = MPSLayer(50, 4, 6)
    weight = layer.weight.detach().clone()
    x = torch.rand(40, 50, generator=generator)
    logits = layer.rescale_(x)(x)
    assert torch.equal(layer.weight, weight)
    assert logits.square().mean(1).sqrt().median().item() == pytest.approx(1, rel=1e-3)


def test_same_seed_same_layer_other_seed_other_layer():
    a, b, c = MPSLayer(9, 2, 3, seed=4), MPSLayer(9, 2, 3, seed=4), MPSLayer(9, 2, 3, seed=5)
    assert torch.equal(a.weight, b.weight)
    assert not torch.equal(a.weight, c.weight)
    assert MPSLayer(9, 2, 3, dtype="float64").weight.dtype == torch.float64


def test_building_a_layer_leaves_the_global_generator_alone():
    before = torch.get_rng_state()
    MPSLayer(9, 2, 3)(torch.zeros(1, 9))
    assert torch.equal(before, torch.get_rng_state())


def test_states_load_into_a_fresh_layer_whatever_its_bonds(generator):
    bonds = [1, 3, 2, 5, 4, 2, 2, 1]
    trained = MPSLayer(6, 3, bonds, label_site=3, noise=0.4)
    x = torch.rand(4, 6, generator=generator)
    for fresh in (MPSLayer(6, 3, 7), MPSLayer(6, 3, 2, label_site=6), MPSLayer(6, 3, bonds, label_site=3)):
        parameters = [id(p) for p in fresh.parameters()]
        fresh.load_state_dict(copy.deepcopy(trained.state_dict()))
        assert torch.equal(fresh(x), trained(x))
        assert fresh.bond_dims == bonds
        assert fresh.label_site == 3
        assert [id(p) for p in fresh.parameters()] == parameters
    nested, other = torch.nn.Sequential(trained), torch.nn.Sequential(MPSLayer(6, 3, 2))
    other.load_state_dict(nested.state_dict())
    assert torch.equal(other(x), trained(x))


def test_config_rebuilds_the_layer_and_is_json(generator):
    order = torch.randperm(6, generator=generator).tolist()
    layer = MPSLayer(
        6, 3, 4, features={"name": "legendre", "dim": 3}, order=order, bond_dropout=0.1, label_site=2
    )
    again = MPSLayer(**json.loads(json.dumps(layer.config)))
    again.load_state_dict(layer.state_dict())
    x = torch.rand(4, 6, generator=generator)
    assert torch.equal(layer.eval()(x), again.eval()(x))
    assert again.config == layer.config


def test_dtype_and_device_moves(generator):
    x = torch.rand(4, 9, generator=generator)
    layer = MPSLayer(9, 2, 3, noise=0.2)
    expected = layer(x)
    assert torch.allclose(layer.double()(x), expected.double(), atol=1e-5)
    assert layer.config["dtype"] == "float64"


def test_a_user_function_as_feature_map(generator):
    layer = MPSLayer(9, 2, 3, features=lambda x: torch.stack([1 - x**2, x**2], -1))
    x = torch.rand(4, 9, generator=generator)
    layer(x).sum().backward()
    assert layer(x).shape == (4, 2)
    with pytest.raises(InputError):
        _ = layer.config


def test_bond_dropout_drops_indices_everywhere_but_the_first():
    layer = MPSLayer(12, 3, 8, bond_dropout=0.5, noise=0.3).train()
    x = torch.rand(6, 12)
    torch.manual_seed(3)
    mask = layer.bond_dropout(8, layer.weight)
    assert mask[0] == 1
    assert 0 < mask[1:].sum() < 7
    torch.manual_seed(3)
    dropped = layer(x)
    smaller = copy.deepcopy(layer).eval()
    with torch.no_grad():
        for site, core in enumerate(smaller.cores):
            inner = core[:, :, mask[: core.shape[2]] == 0] if site < smaller.label_site else None
            if inner is not None:
                core[:, :, mask[: core.shape[2]] == 0] = 0
            else:
                core[mask[: core.shape[0]] == 0] = 0
        chance = torch.full((8, 8), 0.25).fill_diagonal_(0.5)  # that both indices are kept
        chance[0], chance[:, 0], chance[0, 0] = 0.5, 0.5, 1.0
        smaller.label.mul_((torch.outer(mask, mask) / chance).unsqueeze(1))
    assert torch.allclose(smaller(x), dropped, atol=1e-5)
    dropped.sum().backward()
    lost = layer._bond_index()[layer.weight.grad != 0]
    assert set(lost.tolist()) == set(torch.nonzero(mask).flatten().tolist())


@pytest.mark.parametrize(
    "features", ["linear", "trigonometric", {"name": "rbf", "dim": 3, "normalise": False}]
)
def test_dropout_leaves_the_starting_path_alone(features, generator):
    x = torch.rand(100, 300, generator=generator)
    layer = MPSLayer(300, 5, 6, features=features, noise=0.0, seed=2).rescale_(x)
    layer.site_dropout.p, layer.bond_dropout.p = 0.2, 0.5
    plain = layer.eval()(x).abs().median()
    with torch.random.fork_rng():
        torch.manual_seed(1)
        dropped = torch.stack([layer.train()(x).detach() for _ in range(4)]).abs()
    assert 0.3 * plain <= dropped.median() <= 3 * plain


def test_bond_dropout_keeps_the_mean_of_the_label_core():
    layer = MPSLayer(8, 2, 4, bond_dropout=0.5).train()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        mean = torch.stack([layer.weights()[1].detach() for _ in range(4000)]).mean(0)
    assert (mean / layer.label.detach() - 1).abs().max() <= 5 * (3 / 4000) ** 0.5


def test_a_state_brings_its_order_and_a_bad_state_changes_nothing(generator):
    x = torch.rand(3, 16, generator=generator)
    snake, raster = MPSLayer(16, 2, 3, order="snake", noise=0.3), MPSLayer(16, 2, 3)
    raster.load_state_dict(snake.state_dict())
    assert torch.equal(raster(x), snake(x))
    assert torch.equal(MPSLayer(**raster.config).order, snake.order)
    other = MPSLayer(16, 3, 5)
    before = copy.deepcopy(other.state_dict())
    with pytest.raises(RuntimeError, match="size mismatch for label"):
        other.load_state_dict(snake.state_dict())
    assert torch.equal(other.label, before["label"])
    assert other.bond_dims == MPSLayer(16, 3, 5).bond_dims


def test_gradients_of_other_bonds_do_not_survive_a_load(generator):
    x = torch.rand(3, 16, generator=generator)
    layer = MPSLayer(16, 2, 5)
    layer(x).sum().backward()
    layer.load_state_dict(MPSLayer(16, 2, 3).state_dict())
    layer(x).sum().backward()
    assert layer.weight.grad.shape == layer.weight.shape


def test_bond_dropout_statistics():
    dropout = BondDropout(0.3).train()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        masks = torch.stack([dropout(50, torch.ones(())) for _ in range(400)])
    assert masks[:, 0].min() == 1
    assert masks[:, 1:].mean().item() == pytest.approx(0.7, abs=4 * (0.21 / (400 * 49)) ** 0.5)


def test_site_dropout_skips_sites_at_the_start(generator):
    layer = MPSLayer(30, 3, 4, site_dropout=0.4, noise=0.0).train()
    x = torch.rand(5, 30, generator=generator)
    assert torch.allclose(
        layer(x), layer.eval()(x), atol=1e-5
    )  # at the identity path a skipped site changes nothing
    features = torch.zeros(200, 100, 2)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        dropped = SiteDropout(0.25).train()(features, torch.tensor([0.5, 0.5]))
    assert (dropped[..., 0] == 0.5).float().mean().item() == pytest.approx(
        0.25, abs=4 * (0.1875 / 20_000) ** 0.5
    )


def test_evaluation_mode_has_no_dropout(generator):
    layer = MPSLayer(12, 3, 4, bond_dropout=0.5, site_dropout=0.5, noise=0.3).eval()
    x = torch.rand(5, 12, generator=generator)
    assert torch.equal(layer(x), layer(x))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_sites": 0}, "n_sites must be a whole number, at least 1, got 0"),
        ({"out_features": 2.5}, "out_features must be a whole number"),
        ({"bond_dim": 0}, "bond_dim must be a whole number, at least 1, got 0"),
        ({"bond_dim": "four"}, "bond_dim must be a whole number"),
        ({"bond_dim": [1, 2, 1]}, r"expected 8 bonds \(n_sites \+ 2\)"),
        ({"bond_dim": [2, 2, 2, 2, 2, 2, 2, 1]}, "outer bonds must be 1"),
        ({"label_site": 7}, "from 0 to 6, got 7"),
        ({"label_site": -1}, "from 0 to 6, got -1"),
        ({"features": "linaer"}, "did you mean 'linear'"),
        ({"order": "snaek"}, "did you mean 'snake'"),
        ({"engine": "cuda"}, "unknown engine"),
        ({"dtype": "float8"}, "unknown dtype"),
        ({"bond_dropout": 1.0}, r"bond_dropout must be a number, .* below 1, got 1.0"),
        ({"site_dropout": -0.1}, "site_dropout must be a number, at least 0"),
    ],
)
def test_bad_arguments_get_one_clear_error(arguments, message):
    with pytest.raises(InputError, match=message):
        MPSLayer(**{"n_sites": 6, "out_features": 3, **arguments})


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("shape", [(5, 7), (5,), (5, 6, 3), (5, 2, 3)])
def test_inputs_of_another_shape_are_refused(shape):
    with pytest.raises(InputError, match=r"expected inputs \[b, 6\] or features \[b, 6, 2\]"):
        MPSLayer(6, 3)(torch.zeros(shape))


@pytest.mark.gpu
def test_layer_on_cuda_equals_cpu(generator):
    layer = MPSLayer(64, 10, 8, order="snake", noise=0.05)
    x = torch.rand(20, 64, generator=generator)
    expected = layer(x)
    found = layer.cuda()(x.cuda())
    assert torch.allclose(found.cpu(), expected, atol=1e-4)
