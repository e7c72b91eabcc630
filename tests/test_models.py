"""One door for saved models: what comes back, and one clear error for everything else."""

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

import tnml
from tnml import InputError, MPSClassifier, MPSRegressor
from tnml.files import read_model, write_model
from tnml.nn import MPSLayer

X = np.random.RandomState(0).rand(30, 4)
Y = np.where(X[:, 0] > X[:, 1], "right", "left")


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "model.safetensors"
    MPSClassifier(bond_dim=3, epochs=2, random_state=7).fit(X, Y).save(path)
    return path


def altered(saved: Path, path: Path, **changes: Any) -> Path:
    """A copy with other metadata; a value of None takes the entry out."""
    tensors, metadata = read_model(saved)
    metadata |= changes
    for name in [name for name, value in changes.items() if value is None]:
        del metadata[name]
    write_model(path, tensors, metadata)
    return path


def test_the_file_is_plain_safetensors(saved: Path) -> None:
    """Somebody without tnml reads the tensors and the JSON."""
    with safe_open(saved, framework="np") as stored:
        metadata = json.loads(stored.metadata()["tnml"])
        assert stored.get_tensor("feature_range").shape == (2, 4)
        assert {"layer.weight", "layer.label"} <= set(stored.keys())
    assert metadata["format"] == 1
    assert metadata["kind"] == "classifier"
    assert metadata["classes"] == ["left", "right"]
    assert metadata["config"]["features"]["name"] == "linear"
    assert metadata["parameters"]["bond_dim"] == 3
    assert metadata["tnml"] == tnml.__version__


def test_everything_comes_back(saved: Path) -> None:
    model = tnml.load(saved)
    assert isinstance(model, MPSClassifier)
    assert model.random_state == 7
    assert model.n_iter_ == 2
    assert model.classes_.dtype == Y.dtype
    assert model.data_ is None
    assert not model.layer_.training


@pytest.mark.parametrize(
    "parameters",
    [
        {"image_shape": (2, 2), "order": "hilbert"},
        {"order": np.array([2, 0, 1, 3]), "bond_dim": np.int64(2)},
        {"feature_range": (np.float64(0), 2), "random_state": np.random.RandomState(0)},
        {"features": tnml.features.feature_map("fourier", dim=3), "noise": 0.01, "dtype": "float64"},
        {"feature_range": None, "device": "auto"},
    ],
    ids=", ".join,
)
@pytest.mark.parametrize("kind", [MPSClassifier, MPSRegressor])
def test_parameters_survive(kind: Any, parameters: dict[str, Any], tmp_path: Path) -> None:
    model = kind(epochs=1, **parameters).fit(X, np.arange(30) % 2)
    model.save(tmp_path / "m.safetensors")
    other = tnml.load(tmp_path / "m.safetensors")
    assert np.array_equal(other.predict(X), model.predict(X))
    assert other.image_shape == model.image_shape
    assert other.layer_.weight.dtype == model.layer_.weight.dtype
    assert other.fit(X, np.arange(30) % 2).layer_.bond_dims == model.layer_.bond_dims


def test_names_of_features_survive(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas", reason="data frames need pandas")
    frame = pandas.DataFrame(X, columns=list("abcd"))
    MPSRegressor(epochs=1).fit(frame, X[:, 0]).save(tmp_path / "m.safetensors")
    other = tnml.load(tmp_path / "m.safetensors")
    assert other.feature_names_in_.tolist() == list("abcd")
    assert other.predict(frame).shape == (30,)


def test_classes_a_file_cannot_keep(tmp_path: Path) -> None:
    days = np.array(["2020-01-01", "2021-01-01"], dtype="datetime64[D]")
    model = MPSClassifier.from_layer(MPSLayer(4, 2), days)
    with pytest.raises(InputError, match="text, numbers or truth values"):
        model.save(tmp_path / "m.safetensors")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("dtype", ["float32", "float64", "complex64", "complex128"])
def test_layers(dtype: str, tmp_path: Path) -> None:
    layer = MPSLayer(5, 3, 4, features="trigonometric", order="snake", label_site=1, dtype=dtype, seed=2)
    layer.save(tmp_path / "layer.safetensors")
    other = tnml.load(tmp_path / "layer.safetensors")
    assert isinstance(other, MPSLayer)
    x = torch.rand(6, 5, generator=torch.Generator().manual_seed(0))
    assert torch.equal(other(x), layer(x))
    assert other.weight.dtype == getattr(torch, dtype)


def test_loading_leaves_the_random_numbers_alone(saved: Path) -> None:
    before = torch.get_rng_state()
    tnml.load(saved)
    assert torch.equal(torch.get_rng_state(), before)


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"format": 2}, "format 2, this tnml reads up to 1; install a newer tnml"),
    ({"format": 0}, "no format version"),
    ({"format": "1"}, "no format version"),
    ({"format": None}, "no format version"),
    ({"kind": "clasifier"}, "did you mean 'classifier'"),
    ({"kind": None}, "unknown kind of model"),
    ({"kind": ["classifier"]}, "unknown kind of model"),
    ({"kind": "regressor"}, "what a regressor needs"),
    ({"kind": "layer"}, "what a layer needs"),
    ({"classes": None}, "what a classifier needs"),
    ({"classes": ["a", "b", "c"]}, "2 outputs and 3 classes"),
    ({"classes": 5}, "what a classifier needs"),
    ({"classes_dtype": "int32"}, "what a classifier needs"),
    ({"classes_dtype": "nonsense"}, "what a classifier needs"),
    ({"config": {}}, "what a classifier needs"),
    ({"config": "os.system('true')"}, "what a classifier needs"),
    ({"parameters": {}}, "what a classifier needs"),
    ({"parameters": {"image_shape": None, "exec": "true"}}, "what a classifier needs"),
    ({"parameters": None}, "parameters"),
    ({"data": None}, "data"),
    ({"feature_names": 3}, "what a classifier needs"),
    ({"feature_names": ["a", "b"]}, "2 feature names"),
    ({"n_iter": "many"}, "n_iter"),
]


@pytest.mark.parametrize(("changes", "text"), WRONG, ids=lambda value: str(value)[:40])
def test_wrong_metadata(changes: dict[str, Any], text: str, saved: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=text):
        tnml.load(altered(saved, tmp_path / "other.safetensors", **changes))


@pytest.mark.parametrize(
    "change", ["missing", "reshaped", "of another dtype", "of another width", "not finite"]
)
def test_wrong_tensors(change: str, saved: Path, tmp_path: Path) -> None:
    tensors, metadata = read_model(saved)
    if change == "missing":
        del tensors["layer.weight"]
    elif change == "reshaped":
        tensors["layer.weight"] = tensors["layer.weight"][:-1].clone()
    elif change == "of another dtype":
        tensors["layer.layout"] = tensors["layer.layout"] * 0 - 1
    elif change == "not finite":
        tensors["feature_range"] = tensors["feature_range"] * float("nan")
    else:
        tensors["feature_range"] = tensors["feature_range"][:, :2].clone()
    write_model(tmp_path / "other.safetensors", tensors, metadata)
    with pytest.raises(InputError, match="may be damaged"):
        tnml.load(tmp_path / "other.safetensors")


def test_files_that_are_no_models(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no model file"):
        tnml.load(tmp_path / "missing.safetensors")
    with pytest.raises(InputError, match="no model file"):
        tnml.load(tmp_path)
    for name, content in {
        "empty": b"",
        "text": b"hello, I am a text\n" * 10,
        "zip": b"PK\x03\x04" * 20,
    }.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match="not a readable safetensors file"):
            tnml.load(tmp_path / name)
    save_file({"weight": torch.ones(2)}, tmp_path / "foreign.safetensors")
    with pytest.raises(InputError, match="no tnml metadata"):
        tnml.load(tmp_path / "foreign.safetensors")


class Bomb:
    """Leaves a trace when it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.trace,)


@pytest.mark.parametrize("writer", ["pickle", "torch"])
def test_pickles_are_never_opened(writer: str, tmp_path: Path) -> None:
    trace, path = tmp_path / "trace", tmp_path / "model.safetensors"
    if writer == "pickle":
        path.write_bytes(pickle.dumps(Bomb(trace)))
    else:
        torch.save({"layer.weight": Bomb(trace)}, path)
    with pytest.raises(InputError, match="not a readable safetensors file"):
        tnml.load(path)
    assert not trace.exists()


def test_a_file_cut_anywhere_is_noticed(saved: Path, tmp_path: Path) -> None:
    content = saved.read_bytes()
    for cut in [*range(0, len(content), max(1, len(content) // 60)), len(content) - 1]:
        (tmp_path / "cut").write_bytes(content[:cut])
        with pytest.raises(InputError):
            tnml.load(tmp_path / "cut")


def test_a_changed_byte_is_noticed_or_harmless(saved: Path, tmp_path: Path) -> None:
    """Any other byte gives an error, or a model that predicts the same (a byte of padding or free text)."""
    content, model = saved.read_bytes(), tnml.load(saved)
    expected, noticed = model.decision_function(X), 0
    places = np.random.RandomState(0).randint(0, len(content), 150)
    for place in places:
        broken = bytearray(content)
        broken[place] ^= 1 << (int(place) % 8)
        (tmp_path / "broken").write_bytes(broken)
        try:
            other = tnml.load(tmp_path / "broken")
            found = other.decision_function(X)  # parameters are checked where they are used
        except InputError:
            noticed += 1
            continue
        assert isinstance(other, MPSClassifier)
        assert np.array_equal(found, expected)
    assert noticed > 50
