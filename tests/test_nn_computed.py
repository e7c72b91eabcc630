"""Layers whose tensors are computed, by pruning or parametrizations: what is saved, what is refused."""

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize, prune

import tnml
from tnml.errors import InputError
from tnml.nn import MPSLayer
from tnml.nn.computed import effective_state


class Scaled(nn.Module):
    def forward(self, x):
        return 0.5 * x


COMPUTED = {
    "pruned": lambda layer: prune.l1_unstructured(layer, "label", 0.3),
    "pruned twice": lambda layer: prune.random_unstructured(
        prune.l1_unstructured(layer, "label", 0.3), "weight", 0.1
    ),
    "weight norm": lambda layer: parametrizations.weight_norm(layer, "label"),
    "spectral norm": lambda layer: parametrizations.spectral_norm(layer, "label"),
    "old spectral norm": lambda layer: nn.utils.spectral_norm(layer, "label"),
    "parametrized": lambda layer: parametrize.register_parametrization(layer, "weight", Scaled()),
}
every = pytest.mark.parametrize("change", COMPUTED.values(), ids=COMPUTED)


@every
def test_a_file_holds_what_is_computed_now(change, tmp_path) -> None:
    layer, x = change(MPSLayer(6, 3, 4, noise=0.3, order="snake", shape=(2, 3))), torch.rand(4, 6)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    layer(x).square().sum().backward()
    optimizer.step()  # hooks compute again only when the layer is called
    layer.save(tmp_path / "layer.safetensors")
    assert layer.training
    again = tnml.load(tmp_path / "layer.safetensors")
    assert type(again) is MPSLayer
    assert [name for name, _ in again.named_parameters()] == ["weight", "label"]
    torch.testing.assert_close(again.eval()(x), layer.eval()(x))


def test_an_estimator_keeps_what_is_computed(tmp_path) -> None:
    x = np.random.default_rng(0).random((30, 4))
    model = tnml.MPSClassifier(bond_dim=3, epochs=1, random_state=0).fit(x, x[:, 0] > 0.5)
    prune.l1_unstructured(model.layer_, "label", 0.3)
    with torch.no_grad():
        model.layer_.label_orig.mul_(2.0)
    expected = model.predict_proba(x)
    model.save(tmp_path / "model.safetensors")
    again = tnml.load(tmp_path / "model.safetensors")
    np.testing.assert_allclose(again.predict_proba(x), expected, rtol=1e-5)


def test_a_plain_state_stays_what_it_is() -> None:
    layer = MPSLayer(6, 3, 4)
    assert list(effective_state(layer)) == list(layer.state_dict())
    nested = nn.Sequential(nn.Linear(2, 2), prune.l1_unstructured(nn.Linear(2, 3), "weight", 0.5))
    assert sorted(effective_state(nested)) == ["0.bias", "0.weight", "1.bias", "1.weight"]


@every
def test_writing_to_what_is_computed_is_refused(change) -> None:
    layer = change(MPSLayer(6, 3, 4))
    before = copy.deepcopy(effective_state(layer))
    for work in (
        layer.reset_parameters,
        lambda: layer.compressed(max_bond=2),
        lambda: layer.rescale_(torch.rand(5, 6)),
    ):
        with pytest.raises(InputError, match=r"(weight|label) is computed, by pruning"):
            work()
    assert all(torch.equal(value, before[name]) for name, value in effective_state(layer).items())
