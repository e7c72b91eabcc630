"""What every estimator has to do. A new pair gives itself and its network, and inherits these tests."""

import copy
import inspect
import pickle
from abc import ABC, abstractmethod
from typing import Any, ClassVar

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import tnml
from tnml.errors import InputError
from tnml.nn import NETWORKS, Network
from tnml.training.losses import LOSSES

# One step an epoch over all samples in double precision: weights and repeats then differ by rounding alone.
EXACT: dict[str, Any] = {"dtype": "float64", "batch_size": 1000, "epochs": 12, "random_state": 0}
BEYOND = "ignore:.* of the values lie outside the range:UserWarning"  # of a few samples, in other samples


class EstimatorContract(ABC):
    """Subclass it as `TestMine(ClassifierContract)` or `TestMine(RegressorContract)` and give these.

    Attributes:
        kind: the estimator's class.
        row: of its network, where `NETWORKS` does not hold it.
        unknown: a parameter that the network does not have and another value than its default.
    """

    kind: ClassVar[Any]
    row: ClassVar[tuple[str, Network] | None] = None
    unknown: ClassVar[dict[str, Any]] = {}
    task: ClassVar[str]

    @pytest.fixture(autouse=True)
    def _in_the_table(self, monkeypatch: pytest.MonkeyPatch) -> None:
        if self.row is not None:
            monkeypatch.setitem(NETWORKS, *self.row)

    def make(self, **changes: Any) -> Any:
        return self.kind(**{"epochs": 3, "random_state": 0, **changes})

    @property
    def sweeps(self) -> bool:
        """Whether `solver="dmrg"` trains its network."""
        return NETWORKS[self.kind().network].sweeps

    @abstractmethod
    def data(self, rows: int = 40) -> tuple[np.ndarray, Any]:
        """Samples outside [0, 1], and targets."""

    @abstractmethod
    def outputs(self, model: Any, X: np.ndarray) -> np.ndarray:
        """What tells two models apart."""

    @abstractmethod
    def score_of(self, model: Any, X: np.ndarray, y: np.ndarray) -> float:
        """The score, by numpy."""

    def test_the_signature_shows_every_parameter_and_the_docstring_explains_it(self) -> None:
        signature = inspect.signature(self.kind).parameters
        assert next(iter(signature)) == "bond_dim"
        assert set(self.kind().get_params()) == set(signature)
        assert all(self.kind().get_params()[name] == p.default for name, p in signature.items())
        described = inspect.getdoc(self.kind).partition("Args:\n")[2].partition("\n\n")[0]
        missing = [name for name in signature if f"\n    {name}: " not in f"\n{described}"]
        assert not missing
        attributes = inspect.getdoc(self.kind).partition("Attributes:\n")[2]
        assert "    layer_: " in attributes

    def test_a_fit_gives_predictions_and_a_score(self) -> None:
        X, y = self.data()
        model = self.make()
        assert model.fit(X, y) is model
        assert model.predict(X).shape == np.shape(y)
        assert model.score(X, y) == pytest.approx(self.score_of(model, X, y))
        assert model.n_iter_ == len(model.history_) == 3
        assert model.layer_.network == self.kind().network
        assert np.array_equal(self.outputs(self.make().fit(X, y), X), self.outputs(model, X))
        assert not np.array_equal(
            self.outputs(self.make(random_state=1).fit(X, y), X), self.outputs(model, X)
        )
        parts = [self.outputs(model, X[rows]) for rows in (slice(0, 7), slice(7, None))]
        assert np.array_equal(np.concatenate(parts), self.outputs(model, X)), "the same bits in any company"

    def test_clones_are_unfitted_and_equal(self) -> None:
        X, y = self.data()
        model = self.make(noise=0.1) if "noise" in NETWORKS[self.kind().network].options else self.make()
        model.fit(X, y)
        twin = clone(model)
        assert not hasattr(twin, "layer_")
        assert twin.get_params() == model.get_params()
        assert np.array_equal(self.outputs(twin.fit(X, y), X), self.outputs(model, X))
        with pytest.raises(NotFittedError):
            clone(model).predict(X)

    @pytest.mark.parametrize("way", ["pickle", "copy", "file"])
    def test_copies_predict_the_same_bits_and_go_on(self, way: str, tmp_path: Any) -> None:
        X, y = self.data()
        model = self.make(loss=self.other_loss).fit(X, y)
        if way == "file":
            model.save(tmp_path / "model.safetensors")
            other = tnml.load(tmp_path / "model.safetensors")
            assert isinstance(model, type(other).__bases__)
        else:
            other = pickle.loads(pickle.dumps(model)) if way == "pickle" else copy.deepcopy(model)
            assert type(other) is self.kind
        assert other.get_params() == model.get_params()
        assert np.array_equal(self.outputs(other, X), self.outputs(model, X))
        assert np.array_equal(other.predict(X), model.predict(X))
        ahead, behind = (self.outputs(m.partial_fit(X, y), X) for m in (model, other))
        assert np.array_equal(ahead, behind)

    def test_weights_that_are_equal_change_nothing(self) -> None:
        X, y = self.data()
        plain = self.outputs(self.make().fit(X, y), X)
        for weight in (np.ones(len(X)), [1] * len(X)):
            np.testing.assert_allclose(
                self.outputs(self.make().fit(X, y, sample_weight=weight), X), plain, rtol=1e-4, atol=1e-5
            )

    @pytest.mark.filterwarnings(BEYOND)
    def test_samples_of_weight_0_are_not_there(self) -> None:
        X, y = self.data()
        X[5], y = 1e6, np.array(y)
        weight = np.ones(len(X))
        weight[5] = 0
        model = self.make(**EXACT).fit(X, y, sample_weight=weight)
        other = self.make(**EXACT).fit(np.delete(X, 5, 0), np.delete(y, 5, 0))
        np.testing.assert_array_equal(model.feature_range_, other.feature_range_)
        np.testing.assert_allclose(self.outputs(model, X), self.outputs(other, X), rtol=1e-9, atol=1e-11)

    def test_a_weighted_fit_is_a_fit_of_repeats(self) -> None:
        self.assert_weights_are_repeats(**EXACT)

    def test_weighted_sweeps_are_sweeps_over_repeats(self) -> None:
        X, y = self.data()
        swept = {"solver": "dmrg", "sweeps": 2, "bond_dim": 3, "dtype": "float64", "epochs": None}
        if not self.sweeps:
            with pytest.raises(InputError, match=r"solver='dmrg' trains .* train it with gradients"):
                self.make(solver="dmrg", epochs=None).fit(X, y)
            return
        self.assert_weights_are_repeats(**swept)
        assert "largest_bond" in self.make(**swept).fit(X, y).history_[0]

    def assert_weights_are_repeats(self, **parameters: Any) -> None:
        X, y = self.data()
        y, times = np.array(y), np.random.RandomState(1).randint(0, 4, len(X))
        weighted = self.make(**parameters).fit(X, y, sample_weight=times)
        repeated = self.make(**parameters).fit(X.repeat(times, axis=0), y.repeat(times, axis=0))
        losses = [[row["loss"] for row in model.history_] for model in (weighted, repeated)]
        np.testing.assert_allclose(*losses, rtol=1e-6)
        # scikit-learn's own tolerances of this comparison
        np.testing.assert_allclose(self.outputs(weighted, X), self.outputs(repeated, X), rtol=1e-7, atol=1e-9)

    def test_only_the_ratios_of_weights_count(self) -> None:
        X, y = self.data()
        weight = np.linspace(0.5, 2, len(X))
        one, other = (self.make(**EXACT).fit(X, y, sample_weight=k * weight) for k in (1.0, 1e-3))
        np.testing.assert_allclose(self.outputs(one, X), self.outputs(other, X), rtol=1e-7, atol=1e-9)

    @pytest.mark.parametrize(
        ("weight", "text"),
        [
            (np.ones(7), r"sample_weight must have shape \[40\] as X has, got \[7\]"),
            (np.ones((40, 1)), r"must have shape \[40\] as X has, got \[40, 1\]"),
            (-np.ones(40), r"sample_weight must not be negative, got -1"),
            (np.full(40, np.nan), "NaN"),
            (np.zeros(40), "weights of all samples are zero"),
            (["a"] * 40, "could not convert"),
        ],
        ids=["short", "square", "negative", "nan", "zero", "text"],
    )
    def test_bad_weights(self, weight: Any, text: str) -> None:
        X, y = self.data()
        with pytest.raises(ValueError, match=text):
            self.make().fit(X, y, sample_weight=weight)
        with pytest.raises(ValueError, match=text):
            self.started().partial_fit(X, y, sample_weight=weight)

    def started(self) -> Any:
        """A model after one `partial_fit`."""
        X, y = self.data()
        known = {"classes": np.unique(y)} if self.task == "classification" else {}
        return self.make().partial_fit(X, y, **known)

    def test_partial_fit_is_one_epoch(self) -> None:
        X, y = self.data()
        model = self.started()
        limits, before = model.feature_range_.copy(), self.outputs(model, X)
        assert model.partial_fit(X[:20], y[:20], sample_weight=np.arange(20)) is model
        assert model.n_iter_ == len(model.history_) == 2
        assert np.array_equal(model.feature_range_, limits)
        assert not np.array_equal(self.outputs(model, X), before)
        with pytest.raises(ValueError, match="features"):
            model.partial_fit(X[:, :2], y)

    def test_warm_start_goes_on(self) -> None:
        X, y = self.data()
        model = self.make(warm_start=True).fit(X, y)
        layer = model.layer_
        model.fit(X, y)
        assert model.layer_ is layer
        assert model.n_iter_ == len(model.history_) == 6
        assert model.history_[-1]["loss"] < model.history_[0]["loss"]

    def test_numbers_of_callbacks_are_in_the_history(self) -> None:
        X, y = self.data()
        seen = []

        def size(layer: Any, optimizer: Any, row: Any) -> dict[str, float]:
            seen.append((layer.training, optimizer is not None, row["loss"]))
            return {"size": sum(float(p.norm()) for p in layer.parameters())}

        model = self.make().fit(X, y, callbacks=[size, lambda *_: None])
        assert [row["size"] > 0 for row in model.history_] == [True] * 3
        assert seen == [(False, True, row["loss"]) for row in model.history_]
        model.partial_fit(X, y, callbacks=[lambda layer, optimizer, row: {"twice": 2 * row["loss"]}])
        assert model.history_[-1]["twice"] == 2 * model.history_[-1]["loss"]
        if self.sweeps:
            swept = self.make(solver="dmrg", epochs=None, sweeps=2).fit(X, y, callbacks=[size])
            assert "size" in swept.history_[1]
        with pytest.raises(InputError, match="callbacks must be a list of functions, got <function"):
            self.make().fit(X, y, callbacks=size)

    def test_early_stopping_by_any_column(self) -> None:
        X, y = self.data()
        epochs = iter(range(100))

        def rises(layer: Any, optimizer: Any, row: Any) -> dict[str, float]:
            return {"odd": float(next(epochs))}

        watch = {"epochs": 30, "patience": 2, "monitor": "odd"}
        model = self.make(**watch, monitor_mode="min").fit(X, y, callbacks=[rises])
        assert [row["odd"] for row in model.history_] == [0, 1, 2], "the first was the best"
        assert self.make(**watch, monitor_mode="max").fit(X, y, callbacks=[rises]).n_iter_ == 30
        with pytest.raises(InputError, match="monitor='odd', which is not measured"):
            self.make(**watch).fit(X, y)

    other_loss: ClassVar[Any] = None

    def test_every_loss_of_the_task_and_no_other(self) -> None:
        X, y = self.data()
        for name, tasks in LOSSES.items():
            if self.task in tasks:
                model = self.make(loss=name).fit(X, y)
                assert np.isfinite(self.outputs(model, X)).all()
            else:
                model = self.make(loss=name)
                with pytest.raises(InputError, match=rf"loss='{name}' is for .*, not for {self.task}"):
                    model.fit(X, y)
                assert not hasattr(model, "layer_"), "at the door"
        with pytest.raises(InputError, match="unknown loss 'msee'; did you mean 'mse'"):
            self.make(loss="msee").fit(X, y)
        with pytest.raises(InputError, match="a mapping with a 'name', got 3"):
            self.make(loss=3).fit(X, y)

    def test_other_losses_make_other_models(self) -> None:
        X, y = self.data()
        plain, other = (self.make(loss=loss).fit(X, y) for loss in (None, self.other_loss))
        assert not np.allclose(self.outputs(plain, X), self.outputs(other, X))

    def test_a_parameter_that_would_have_no_effect_is_refused(self) -> None:
        X, y = self.data()
        for name, value in {"sweeps": 3, "ridge": 0.5, "max_error": 0.1}.items():
            with pytest.raises(InputError, match=rf"'gradient' does not use {name}="):
                self.make(**{name: value}).fit(X, y)
        for name, value in self.unknown.items():
            with pytest.raises(InputError, match=rf"has no {name}, got {value!r}"):
                self.make(**{name: value}).fit(X, y)
        with pytest.raises(InputError, match="unknown network 'mpz'"):
            self.make(network="mpz").fit(X, y)
        with pytest.raises(InputError, match="unknown option of network"):
            self.make(network={"name": self.kind().network, "colour": "red"}).fit(X, y)

    def test_bad_data(self) -> None:
        X, y = self.data()
        hole = X.copy()
        hole[3, 1] = np.nan
        for bad, text in ((hole, "NaN"), (X[:-1], "inconsistent numbers"), (X[0], "Reshape your data")):
            with pytest.raises(ValueError, match=text):
                self.make().fit(bad, y)
        model = self.make().fit(X, y)
        with pytest.raises(ValueError, match="features"):
            model.predict(X[:, :2])

    @pytest.mark.filterwarnings(BEYOND)
    def test_in_a_pipeline_under_a_search(self) -> None:
        X, y = self.data()
        pipeline = make_pipeline(StandardScaler(), self.make())
        name = pipeline.steps[-1][0]
        search = GridSearchCV(pipeline, {f"{name}__epochs": np.array([1, 2])}, cv=2).fit(X, y)
        assert search.best_params_[f"{name}__epochs"] in (1, 2)
        assert np.shape(search.predict(X)) == np.shape(y)
