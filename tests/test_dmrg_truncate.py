"""Layers cut where outputs on samples change least, against the layer itself."""

import pytest
import torch

from tnml.errors import InputError
from tnml.nn import MPSLayer
from tnml.training import truncate_layer


def correlated(count=600, sites=12):
    """Inputs of which neighbours are nearly equal: few of all the directions of a product basis occur."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(count, sites // 3, generator=generator).repeat_interleave(3, dim=1)
    return (coarse + 0.05 * torch.rand(count, sites, generator=generator)).clamp(0, 1)


def layer(dtype="float64", **more):
    return MPSLayer(12, 3, bond_dim=8, noise=0.4, dtype=dtype, **more)


@pytest.mark.parametrize("label_site", [0, 5, 12])
def test_without_a_cut_the_outputs_stay(label_site):
    x, whole = correlated(), layer(label_site=label_site)
    same, error = truncate_layer(whole, x, max_error=0.0)
    assert error < 1e-7
    torch.testing.assert_close(same(x.double()), whole(x.double()), rtol=1e-8, atol=1e-8)
    assert same.label_site == label_site


def test_it_changes_less_than_other_cuts_do():
    x, whole = correlated(), layer()
    other = correlated(900)[600:]

    def change(smaller):
        with torch.no_grad():
            truth = whole(other.double())
            return ((smaller(other.double()) - truth).norm() / truth.norm()).item()

    before = whole.weight.detach().clone()
    by_data, error = truncate_layer(whole, x, max_bond=4)
    by_sites, _ = whole.compressed(max_bond=4, samples=x.double())
    plain, _ = whole.compressed(max_bond=4)
    assert change(by_data) < 0.8 * min(change(by_sites), change(plain))
    assert 0.2 * error < change(by_data) < 5 * error
    assert max(by_data.bond_dims) == 4
    assert torch.equal(whole.weight, before)


def test_a_largest_error_chooses_the_bonds():
    x, whole = correlated(), layer()
    loose, error = truncate_layer(whole, x, max_error=0.1)
    tight, less = truncate_layer(whole, x, max_error=0.001)
    assert error <= 0.1
    assert less <= 0.001
    assert sum(loose.bond_dims) < sum(tight.bond_dims) <= sum(whole.bond_dims)


def test_the_precision_and_the_settings_stay():
    whole = layer("float32", order="snake", shape=(3, 4), site_dropout=0.1)
    smaller, _ = truncate_layer(whole, correlated(), max_bond=2)
    assert smaller.weight.dtype == torch.float32
    assert (smaller.config["order"], smaller.config["site_dropout"]) == ("snake", 0.1)


BAD = {
    "no limit": ({}, "needs a limit"),
    "no bond": ({"max_bond": 0}, "max_bond must be a whole number, at least 1, got 0"),
    "too large an error": ({"max_error": 1.0}, "max_error must be a number"),
    "too little memory": ({"max_bond": 2, "memory_gb": 1e-9}, "memory_gb"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_limits(name):
    limits, message = BAD[name]
    with pytest.raises(InputError, match=message):
        truncate_layer(layer(), correlated(), **limits)


def test_bad_samples():
    with pytest.raises(InputError, match="NaN"):
        truncate_layer(layer(), torch.full((4, 12), torch.nan), max_bond=2)
    with pytest.raises(InputError, match="expected inputs"):
        truncate_layer(layer(), torch.rand(4, 11), max_bond=2)
