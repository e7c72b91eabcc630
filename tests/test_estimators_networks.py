"""Networks of the estimators by name, with options, around a trained layer; and parameters written once."""

import inspect
import pickle
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.base import clone
from toy_network import TOY, ToyLayer

import tnml
from tnml import InputError, MPSClassifier, MPSRegressor
from tnml.estimators import estimator
from tnml.estimators.docstrings import with_entries_of
from tnml.estimators.parameters import Parameters
from tnml.files import read_model, write_model
from tnml.nn import NETWORKS, MPSLayer

X = np.random.RandomState(0).rand(30, 4)
Y = (X[:, 0] > 0.5).astype(int)


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(NETWORKS, "toy", TOY)


def quick(kind: Any = MPSClassifier, **changes: Any) -> Any:
    return kind(**{"epochs": 2, "random_state": 0, **changes}).fit(X, Y)


@pytest.mark.usefixtures("toy")
def test_options_come_with_the_name() -> None:
    model = quick(network={"name": "toy", "rank": np.int64(3)})
    assert type(model.layer_) is ToyLayer
    assert model.layer_.bond_dims == [3] * 4
    assert clone(model).network == model.network
    assert quick(network={"name": "toy", "seed": 5}).layer_.network == "toy"
    with pytest.raises(InputError, match=r"unknown option of network 'toy'.*colour"):
        quick(network={"name": "toy", "colour": 1})
    with pytest.raises(InputError, match="network 'toy' has no bond_dim, got 3"):
        quick(network={"name": "toy", "bond_dim": 3})


def test_parameters_may_stand_among_the_options() -> None:
    inside = quick(network={"name": "mps", "bond_dim": 3, "label_site": 1, "features": "trigonometric"})
    outside = quick(bond_dim=3, label_site=1, features="trigonometric")
    np.testing.assert_array_equal(inside.predict_proba(X), outside.predict_proba(X))
    with pytest.raises(InputError, match="bond_dim is given twice, as 3 with the network and as 5"):
        quick(network={"name": "mps", "bond_dim": 3}, bond_dim=5)
    assert quick(network={"name": "mps", "bond_dim": 3}, bond_dim=3).layer_.bond_dims[2] == 3
    swept: dict[str, Any] = {"solver": "dmrg", "epochs": None, "sweeps": 2}
    inside = quick(network={"name": "mps", "bond_dim": 3}, **swept)
    np.testing.assert_array_equal(inside.predict_proba(X), quick(bond_dim=3, **swept).predict_proba(X))
    with pytest.raises(InputError, match="solver='dmrg' does not use label_site=1"):
        quick(network={"name": "mps", "label_site": 1}, **swept)
    with pytest.raises(InputError, match="a network is a name or a mapping with a 'name', got 3"):
        quick(network=3)


@pytest.mark.usefixtures("toy")
def test_a_layer_of_any_network_becomes_a_classifier(tmp_path: Any) -> None:
    layer = ToyLayer(4, 2, 3, dtype="float64", order="snake", shape=(2, 2), seed=1)
    model = MPSClassifier.from_layer(layer, ["no", "yes"], image_shape=(2, 2))
    assert model.network == {"name": "toy", "rank": 3}
    model.save(tmp_path / "model.safetensors")
    other = tnml.load(tmp_path / "model.safetensors")
    np.testing.assert_array_equal(other.predict_proba(X), model.predict_proba(X))
    again = clone(other).set_params(epochs=1).fit(X, Y)
    assert type(again.layer_) is ToyLayer
    assert again.layer_.bond_dims == layer.bond_dims
    assert again.layer_.order.tolist() == layer.order.tolist()
    assert MPSClassifier.from_layer(MPSLayer(4, 2), [0, 1]).get_params() == {
        **MPSClassifier(4, label_site=2, order="raster").get_params(),
        "features": {"name": "linear", "dim": 2},
        "feature_range": None,
    }


def test_a_layer_becomes_a_regressor(tmp_path: Any) -> None:
    layer = MPSLayer(4, 2, 3, dtype="float64", seed=1)
    model = MPSRegressor.from_layer(
        layer, y_mean=[1.0, 2.0], y_scale=5, feature_range=(0, 2), data={"name": "mine"}
    )
    values = layer(torch.from_numpy(X.astype(np.float32)).double()).detach().numpy()
    np.testing.assert_allclose(model.predict(2 * X), values * 5 + [1.0, 2.0], rtol=1e-6)
    model.save(tmp_path / "model.safetensors")
    other = tnml.load(tmp_path / "model.safetensors")
    np.testing.assert_array_equal(other.predict(X), model.predict(X))
    assert other.data_ == {"name": "mine"}
    assert MPSRegressor.from_layer(MPSLayer(4, 1)).predict(X).shape == (30,)
    for bad, text in (
        ({"y_mean": [1.0]}, r"y_mean must be a finite number or one for each of 2 outputs"),
        ({"y_mean": np.nan}, "y_mean must be a finite number"),
        ({"y_scale": 0.0}, "y_scale must be above 0, got 0.0"),
        ({"loss": "focal"}, "loss='focal' is for classification"),
    ):
        with pytest.raises(InputError, match=text):
            MPSRegressor.from_layer(layer, **bad)


@pytest.mark.usefixtures("toy")
def test_what_a_network_cannot_do_raises() -> None:
    with pytest.raises(InputError, match="compression needs an MPSLayer, got ToyLayer"):
        quick(network="toy").compressed(max_bond=1)
    with pytest.raises(InputError, match=r"solver='dmrg' trains an MPSLayer, got network 'toy'"):
        MPSRegressor(network="toy", solver="dmrg").fit(X[:, :1], Y)


def test_files_and_pickles_of_earlier_versions(tmp_path: Any) -> None:
    """They have fewer parameters; the missing ones take their defaults."""
    model = quick()
    model.save(tmp_path / "new.safetensors")
    tensors, metadata = read_model(tmp_path / "new.safetensors")
    later = ("network", "loss", "monitor", "monitor_mode", "class_weight")
    for name in later:
        del metadata["parameters"][name]
    del metadata["network"], metadata["logits"]
    write_model(tmp_path / "old.safetensors", tensors, metadata)
    state = model.__getstate__()
    for name in (*later, "_logits"):
        del state[name]
    del state["layer_"]["network"]
    unpickled = MPSClassifier.__new__(MPSClassifier)
    unpickled.__setstate__(pickle.loads(pickle.dumps(state)))
    for old in (tnml.load(tmp_path / "old.safetensors"), unpickled):
        np.testing.assert_array_equal(old.predict_proba(X), model.predict_proba(X))
        assert old.get_params() == model.get_params()
        np.testing.assert_array_equal(clone(old).fit(X, Y).predict_proba(X), model.predict_proba(X))


def test_the_signature_is_in_the_help() -> None:
    for kind in (MPSClassifier, MPSRegressor):
        shown = str(inspect.signature(kind))
        assert "bond_dim: int = 20, *, network: Any = 'mps'" in shown.replace("typing.", "")
        assert "self, bond_dim: int = 20" in str(inspect.signature(kind.__init__))
        assert MPSRegressor(7).bond_dim == 7
        with pytest.raises(TypeError, match="positional"):
            kind(7, "mps")
        with pytest.raises(TypeError, match="unexpected keyword argument 'bond'"):
            kind(bond=7)
    assert set(MPSClassifier().get_params()) - set(MPSRegressor().get_params()) == {
        "calibrate",
        "label_smoothing",
        "max_shift",
        "class_weight",
    }


def test_a_subclass_describes_what_it_changes() -> None:
    @estimator
    class Own(Parameters):
        """Mine.

        Args:
            size: in metres.
            bond_dim: two, as it should be.
        """

        bond_dim: int = 2
        size: float = 1.0

    assert (Own().bond_dim, Own(bond_dim=3).bond_dim) == (2, 3)
    assert Own.__doc__ is not None
    assert Own.__doc__.count("bond_dim: ") == 1
    assert "    bond_dim: two, as it should be.\n    network: a name" in Own.__doc__
    assert Own.__doc__.rstrip().endswith("size: in metres.")
    assert with_entries_of(
        "A.\n\nArgs:\n    a: one\n        more.\n\nExample:\n    x", ["B.\n\nAttributes:\n    b_: two"]
    ) == ("A.\n\nArgs:\n    a: one\n        more.\n\nAttributes:\n    b_: two\n\nExample:\n    x")
    assert with_entries_of("Nothing.", ["", "No sections."]) == "Nothing."


def test_a_bond_dimension_of_the_network_is_compressed(tmp_path: Any) -> None:
    network = {"name": "mps", "bond_dim": 4}
    model = quick(network=network)
    small = model.compressed(max_bond=2)
    assert (small.bond_dim, max(small.layer_.bond_dims)) == (2, 2)
    assert model.network == network == {"name": "mps", "bond_dim": 4}
    small.save(tmp_path / "model.safetensors")
    for again in (clone(small), tnml.load(tmp_path / "model.safetensors")):
        assert max(again.fit(X, Y).layer_.bond_dims) == 2
    assert small.partial_fit(X, Y).n_iter_ == model.n_iter_ + 1
