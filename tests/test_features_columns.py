"""Features by column: every column goes through its own map, and a missing value through the mean."""

import itertools
import math
import pickle

import numpy as np
import pytest
import torch

import tnml
from tnml.errors import InputError
from tnml.features import feature_map
from tnml.features.columns import map_of_columns
from tnml.nn import MPSLayer

MIXED = [feature_map("legendre", dim=3), feature_map("one-hot", dim=4), feature_map("linear")]


def formulas(x: np.ndarray) -> np.ndarray:
    """What MIXED makes of `x [b, 3]`, in numpy."""
    t = 2 * x[:, 0] - 1
    found = np.zeros((len(x), 3, 4))
    found[:, 0, :3] = np.stack([t**0, math.sqrt(3) * t, math.sqrt(5) * (3 * t**2 - 1) / 2], 1)
    found[:, 1] = np.eye(4)[np.round(3 * x[:, 1]).astype(int)]
    found[:, 2, :2] = np.stack([1 - x[:, 2], x[:, 2]], 1)
    return found


def test_every_column_goes_through_its_own_map(generator: torch.Generator) -> None:
    x = torch.rand(20, 3, dtype=torch.float64, generator=generator)
    mixed = map_of_columns(MIXED)
    np.testing.assert_allclose(mixed(x).numpy(), formulas(x.numpy()), rtol=1e-12, atol=1e-13)
    assert mixed(x.view(4, 5, 3)).shape == (4, 5, 3, 4)
    turned = mixed.reordered([2, 0, 1])
    np.testing.assert_array_equal(turned(x[:, [2, 0, 1]]), mixed(x)[:, [2, 0, 1]])
    again = feature_map(mixed.spec)
    assert again.spec == mixed.spec
    assert torch.equal(pickle.loads(pickle.dumps(mixed))(x), again(x))


def test_the_derivative_is_that_of_autograd_and_none_where_a_value_is_missing() -> None:
    mixed = map_of_columns(MIXED, [[1, 0, 0], [0.1, 0.2, 0.3, 0.4], [0.5, 0.5]])
    x = torch.tensor([[0.2, 0.3, math.nan], [math.nan, 0.6, 0.7]], dtype=torch.float64, requires_grad=True)
    features = mixed(x)
    assert torch.isfinite(features).all()
    slope = torch.zeros_like(features)
    for part in itertools.product(range(3), range(4)):
        (gradient,) = torch.autograd.grad(features[(..., *part)].sum(), x, retain_graph=True)
        slope[(..., *part)] = gradient[:, part[0]]
    assert torch.isfinite(slope).all()
    assert not slope[0, 2].any()
    torch.testing.assert_close(mixed.derivative(x.detach()), slope, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("order", ["raster", [2, 0, 1]])
def test_the_starting_path_is_kept_by_all_columns(order: object, generator: torch.Generator) -> None:
    """Noise aside, a fresh layer gives every sample the same outputs, whatever is in its columns."""
    columns = [MIXED[site % 3] for site in range(300)]
    sites = [3 * (s // 3) + order[s % 3] for s in range(300)] if isinstance(order, list) else order
    layer = MPSLayer(300, 2, 4, features=map_of_columns(columns), noise=0.0, order=sites)
    x = torch.rand(30, 300, generator=generator)
    outputs = layer(x)
    torch.testing.assert_close(outputs, outputs[:1].expand_as(outputs), rtol=1e-4, atol=1e-6)
    dropped = layer.contract(layer.neutral.expand(1, -1, -1))
    torch.testing.assert_close(
        dropped[0] * torch.exp2(dropped[1])[:, None], outputs[:1], rtol=1e-4, atol=1e-6
    )


def test_a_column_keeps_its_map_in_any_order_of_the_chain(generator: torch.Generator) -> None:
    x = torch.rand(5, 3, generator=generator)
    layer = MPSLayer(3, 2, 3, features=map_of_columns(MIXED), order=[2, 0, 1], noise=0.5)
    features = torch.from_numpy(formulas(x.numpy()))[:, [2, 0, 1]]
    dense = torch.einsum("lap,pbq,qcr,rds->abcd", *[t.double() for t in layer.tensors().values()])
    places = list(layer.tensors()).index("label")
    assert places == 1
    expected = torch.einsum("abcd,ka,kc,kd->kb", dense, *features.unbind(1))
    torch.testing.assert_close(layer(x).double(), expected, rtol=1e-4, atol=1e-5)


def test_a_missing_value_is_the_mean_over_the_training_values(generator: torch.Generator, tmp_path) -> None:
    """Against enumeration: the mean of the outputs with every training value in the place of NaN."""
    x = torch.rand(12, 3, dtype=torch.float64, generator=generator)
    means = [column(x[:, c]).mean(0).tolist() for c, column in enumerate(MIXED)]
    layer = MPSLayer(3, 2, 3, features=map_of_columns(MIXED, means), dtype="float64", noise=0.5)
    sample = x[:1].clone()
    for gaps in ([0], [1], [2], [0, 2]):
        asked = sample.clone()
        asked[:, gaps] = math.nan
        filled = []
        for values in itertools.product(*(x[:, c].tolist() for c in gaps)):
            one = sample.clone()
            one[:, gaps] = torch.tensor(values, dtype=torch.float64)
            filled.append(layer(one))
        torch.testing.assert_close(layer(asked), torch.stack(filled).mean(0), rtol=1e-10, atol=1e-12)
    layer.save(tmp_path / "layer.safetensors")
    asked = torch.tensor([[math.nan, 0.2, 0.3]], dtype=torch.float64)
    assert torch.equal(tnml.load(tmp_path / "layer.safetensors")(asked), layer(asked))


def test_without_a_mean_a_missing_value_stays_missing() -> None:
    assert map_of_columns(MIXED)(torch.tensor([[math.nan, 0.0, 0.0]]))[0, 0].isnan().any()


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: map_of_columns([]), "at least one column"),
        (lambda: map_of_columns([map_of_columns(MIXED)]), "cannot be one itself"),
        (lambda: map_of_columns(MIXED, [[1.0]]), r"as each column has components, \[3, 4, 2\]"),
        (lambda: map_of_columns(MIXED, [["a"]]), "a list of numbers for each column"),
        (lambda: feature_map({"name": "columns"}), "need a list of maps as `columns`"),
        (lambda: feature_map({"name": "columns", "columns": ["linear"], "dim": 3}), "leave dim out"),
        (lambda: feature_map({"name": "columns", "columns": ["linear"], "mising": []}), "missing"),
        (lambda: MPSLayer(4, 2, features=map_of_columns(MIXED)), "those of 3 columns, but there are 4 sites"),
    ],
)
def test_what_does_not_fit_is_refused(call, words: str) -> None:
    with pytest.raises(InputError, match=words):
        call()


def test_a_layer_with_a_function_for_a_column_cannot_be_kept_in_a_file(tmp_path) -> None:
    own = feature_map(lambda x: torch.stack((1 - x, x), -1))
    layer = MPSLayer(2, 2, features=map_of_columns([own, feature_map("linear")]))
    with pytest.raises(InputError, match="is a function, which no file can hold"):
        layer.save(tmp_path / "layer.safetensors")
