"""Explanations for the package shap, and its own exact explainer on small cases, where it is installed."""

import sys

import numpy as np
import pytest
import torch

from tnml.errors import InputError
from tnml.explain import banzhaf, shapley
from tnml.nn import MPSLayer


def layer_and_samples():
    layer = MPSLayer(7, 3, 4, noise=0.5, dtype="float64", order=[3, 1, 5, 0, 6, 2, 4])
    return layer, torch.rand(4, 7, dtype=torch.float64), torch.rand(6, 7, dtype=torch.float64)


def test_without_shap_the_error_says_how_to_install_it(monkeypatch):
    layer, x, background = layer_and_samples()
    monkeypatch.setitem(sys.modules, "shap", None)
    with pytest.raises(InputError, match=r"needs the package shap: python -m pip install shap"):
        shapley(layer, x, background).to_shap()
    with pytest.raises(InputError, match="real values only"):
        banzhaf(MPSLayer(2, 1, dtype="complex128"), torch.rand(1, 2), torch.rand(1, 2)).to_shap()


@pytest.mark.filterwarnings("ignore")  # of shap
def test_interventional_values_are_those_of_shap():
    shap = pytest.importorskip("shap")
    layer, x, background = layer_and_samples()

    def outputs(rows):
        with torch.no_grad():
            return layer(torch.from_numpy(rows)).numpy()

    masker = shap.maskers.Independent(background.numpy(), max_samples=100)
    theirs = shap.ExactExplainer(outputs, masker)(x.numpy())
    ours = shapley(layer, x, background, joint=True)
    made = ours.to_shap()
    assert made.shape == (4, 7, 3)
    np.testing.assert_allclose(made.values, theirs.values, atol=1e-12 * np.abs(theirs.values).max())
    np.testing.assert_allclose(made.base_values, theirs.base_values, rtol=1e-12)
    one = shapley(layer, x, background, target=1).to_shap()
    assert one.shape == (4, 7)
    assert one.base_values.shape == (4,)
