"""Explanations of fitted estimators: the answers of `tnml.explain` in the user's own names and units."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float64, Int64, Shaped
from numpy import ndarray
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from tnml.checks import whole
from tnml.errors import InputError, choose
from tnml.estimators.base import TensorNetworkEstimator
from tnml.estimators.stored import stored_array
from tnml.estimators.tables import Column, Table
from tnml.explain import Explanation, banzhaf, individual_dependence, shapley
from tnml.explain.explanation import gap_of
from tnml.loop.options import LoopOptions
from tnml.loop.processes import device_of
from tnml.nn import TensorNetworkLayer

KINDS: dict[str, Callable[..., Explanation]] = {"shapley": shapley, "banzhaf": banzhaf}
_ROWS, _POINTS = 1000, 101


@dataclass(frozen=True, kw_only=True, eq=False)
class Dependence:
    """How outputs follow one feature.

    Attributes:
        feature: its name, or its number if it has none.
        grid: `[g]` its values, as the user gives them.
        mean: `[g, k]` the outputs, averaged over the samples (partial dependence).
        curves: `[b, g, k]` those of every sample (ICE).
        names: k names of the outputs.

    Example:
        >>> from tnml import MPSRegressor
        >>> X = np.random.RandomState(0).rand(50, 2)
        >>> found = MPSRegressor(bond_dim=2, random_state=0).fit(X, X[:, 0]).dependence(X, 0)
        >>> found.feature, found.mean.shape, found.curves.shape
        ('0', (101, 1), (50, 101, 1))
    """

    feature: str
    grid: Shaped[ndarray, " g"]
    mean: Float64[ndarray, "g k"]
    curves: Float64[ndarray, "b g k"]
    names: tuple[Any, ...]


class Explained(TensorNetworkEstimator, ABC):
    """The part of an estimator that explains its outputs.

    Attributes:
        mean_features_: `[n, d]`, the mean local features of the training samples, which explanations compare
            with; None if each column has its own features, which keep their own means, or if the layer was
            trained elsewhere.
    """

    mean_features_: npt.NDArray[np.float64] | None = None  # pickles of earlier versions have none
    _weight_of_means: float = 0.0

    def explain(
        self,
        X: Any,
        background: Any = None,
        *,
        target: Any = None,
        against: Any = None,
        kind: str = "shapley",
        joint: bool = False,
        background_weight: Any = None,
        nodes: int | str = "auto",
    ) -> Explanation:
        """What each feature of samples `X [b, n]` contributes to the outputs, exactly.

        The outputs are those of `decision_function` before a difference of two is taken (logits, or what
        `loss` makes of them), or the predictions of a regressor, in the units of the targets. Features that
        are left out are averaged over a background. A missing value contributes nothing.

        Args:
            X: samples, as for `predict`.
            background: samples to compare with, some hundred of `fit`; None: all samples of the last fit.
            target: a class, or the number of a target of a regressor; a list of them; None for all.
            against: explain the difference to the output of this class, which a softmax depends on.
            kind: "shapley" (contributions add up to the output minus that of the background) or "banzhaf".
            joint: whether rows of the background are kept as they are, which needs `background` and takes
                as many times longer; otherwise its columns are independent. See `tnml.explain.shapley`.
            background_weight: of the samples of `background`; None counts all alike.
            nodes: of the quadrature, see `tnml.explain.shapley`.

        Returns:
            With the names of the columns and of the outputs, and with `X` itself as `data`.

        Raises:
            InputError: there is no background, a name is unknown, or the outputs are the logarithms of
                averaged probabilities (a classifier of several networks), which are not linear.

        Example:
            >>> from tnml import MPSClassifier
            >>> X = np.random.RandomState(0).rand(60, 3)
            >>> model = MPSClassifier(bond_dim=2, random_state=0).fit(X, X[:, 1] > 0.5)
            >>> found = model.explain(X[:5], target=True, against=False)
            >>> found.values.shape, found.names, int(found.importance.argmax())
            (torch.Size([5, 3, 1]), ('True - False',), 1)
        """
        choose("kind", kind, KINDS)
        x, layers = self._to_explain(X)
        columns, names, shift = self._asked(target, against)
        options: dict[str, Any] = {"joint": joint}
        if background_weight is not None:
            options["weight"] = torch.as_tensor(np.asarray(background_weight))
        if kind == "shapley":
            options["nodes"] = nodes
        others = self._compared_with(background, joint=joint)
        each = [KINDS[kind](layer, x, others, columns, **options) for layer in layers]
        values, base, outputs = (
            torch.stack([getattr(found, name) for found in each]).mean(0).cpu()
            for name in ("values", "base", "outputs")
        )
        feature_names = getattr(self, "feature_names_in_", None)
        return Explanation(
            values=values,
            base=base + shift,
            outputs=outputs + shift,
            gap=None if each[0].gap is None else gap_of(values, base, outputs),
            nodes=max(found.nodes for found in each),
            features=None if feature_names is None else tuple(map(str, feature_names)),
            names=names,
            data=_as_array(self._inputs(X)),
        )

    def dependence(
        self, X: Any, feature: str | int, *, grid: Any = None, target: Any = None, against: Any = None
    ) -> Dependence:
        """The outputs of samples `X [b, n]` with one of their features at each value of a grid, and the mean.

        An output is linear in the features of one site, so the whole curve of a sample comes from one
        derivative.

        Args:
            X: samples, some hundred of the training.
            feature: name or number of a column.
            grid: `[g]` values of the column; None: 101 from the lowest to the highest in `X`, or its
                categories.
            target: as in `explain`.
            against: as in `explain`.

        Raises:
            InputError: as `explain`, or the column or a value of the grid is unknown.

        Source: Friedman, Annals of Statistics 29 (2001) 1189; Goldstein et al., arXiv 1309.6392.

        Example:
            >>> from tnml import MPSRegressor
            >>> X = np.random.RandomState(0).rand(50, 2)
            >>> model = MPSRegressor(bond_dim=2, random_state=0).fit(X, 3 * X[:, 0])
            >>> rise = np.diff(model.dependence(X, 0, grid=[0.0, 1.0]).mean[:, 0])
            >>> bool(2 < rise[0] < 4)
            True
        """
        x, layers = self._to_explain(X)
        columns, names, shift = self._asked(target, against)
        given = self._inputs(X)
        known = getattr(self, "feature_names_in_", None)
        if isinstance(feature, str):
            there = [] if known is None else list(known)
            place = choose("feature", feature, {str(name): i for i, name in enumerate(there)})
        else:
            place = whole("feature", feature, 0, self.n_features_in_ - 1)
        values, encoded = self._grid(given, place, grid)
        at = torch.from_numpy(encoded)
        each = [individual_dependence(layer, x, place, at.to(layer.dtype), columns) for layer in layers]
        curves = (torch.stack(each).mean(0).cpu() + shift).numpy()
        return Dependence(
            feature=str(place if known is None else known[place]),
            grid=values,
            mean=curves.mean(0),
            curves=curves,
            names=names,
        )

    @abstractmethod
    def _output_names(self) -> list[Any]:
        """What the user calls the outputs."""

    def _units(self) -> tuple[Float64[ndarray, " c"], Float64[ndarray, " c"]]:
        """What the outputs of the network are multiplied by, and what is added then."""
        outputs = self.layer_.out_features
        return np.ones(outputs), np.zeros(outputs)

    def _averages_outputs(self) -> bool:
        """Whether the outputs of several networks are averaged as they are."""
        return True

    def _to_explain(self, X: Any) -> tuple[Tensor, list[TensorNetworkLayer]]:
        """The samples as tensors, and the networks, on the device of the parameters."""
        check_is_fitted(self)
        if len(self.layers_) > 1 and not self._averages_outputs():
            raise InputError(
                f"the outputs of {len(self.layers_)} networks together are logarithms of averaged "
                "probabilities, which are not linear in the features; explain one network with "
                "tnml.explain.shapley(model.layers_[0], ...), or fit with loss='mse' or n_estimators=1"
            )
        device = device_of(LoopOptions(device=self.device).device)
        layers = [layer.to(device).eval() for layer in self.layers_]
        return torch.from_numpy(self._to_predict(X)).to(layers[0].dtype), layers

    def _asked(self, target: Any, against: Any) -> tuple[Float64[Tensor, "c k"], tuple[Any, ...], Tensor]:
        """The combinations of outputs in the user's units, their names, and what is added to each."""
        known = self._output_names()
        listed = isinstance(target, list | tuple | np.ndarray)
        places = (
            range(len(known))
            if target is None
            else [_place(known, t) for t in (target if listed else [target])]
        )
        columns = np.eye(len(known))[:, list(places)]
        names = [known[place] for place in places]
        if against is not None:
            other = _place(known, against)
            columns = columns - np.eye(len(known))[:, [other]]
            names = [f"{name} - {known[other]}" for name in names]
        factor, shift = self._units()
        return torch.from_numpy(factor[:, None] * columns), tuple(names), torch.from_numpy(shift @ columns)

    def _compared_with(self, background: Any, *, joint: bool) -> Tensor:
        """The background as inputs `[k, n]` or features `[k, n, d]`."""
        if background is not None:
            return torch.from_numpy(self._to_predict(background)).to(self.layer_.dtype)
        if joint:
            raise InputError("joint=True compares with single samples; give some as background")
        if self.columns_ is not None:  # a missing value has the mean features of its column
            return torch.full((1, self.layer_.n_sites), torch.nan, dtype=self.layer_.dtype)
        if self.mean_features_ is None:
            raise InputError(
                "this model does not know the mean features of its training samples, because it was trained "
                "elsewhere, interrupted or written by an earlier version; give some of them as background"
            )
        return torch.from_numpy(self.mean_features_).to(self.layer_.dtype).unsqueeze(0)

    def _grid(self, given: Any, place: int, grid: Any) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        """Values of a column, and the inputs of the network for them."""
        column = given.columns[place].values if isinstance(given, Table) else given[:, place]
        if grid is None and column.dtype == object:
            values = np.array(sorted({value for value in column if value is not None}), dtype=object)
        elif grid is None:
            values = np.linspace(np.nanmin(column), np.nanmax(column), _POINTS)
        else:
            values = np.asarray(grid, dtype=column.dtype)
        if values.ndim != 1 or not len(values):
            raise InputError(f"expected a grid [g] of values for the feature, got {list(values.shape)}")
        if isinstance(given, Table) and self.columns_ is not None:
            some = Column(given.columns[place].name, values, given.columns[place].categorical)
            return values, self.columns_.encoders[place].encode(some).astype(np.float32)
        rows = np.repeat(given[:1], len(values), axis=0)
        rows[:, place] = values
        return values, self._scaled(rows)[:, place]

    def _start(
        self,
        X: Any,
        targets: npt.NDArray[Any],
        weight: Float64[ndarray, " b"] | None,
        outputs: int,
        seed: int,
    ) -> None:
        super()._start(X, targets, weight, outputs, seed)
        self.mean_features_, self._weight_of_means = None, 0.0

    @torch.no_grad()
    def _settle(
        self,
        x: npt.NDArray[Any],
        targets: npt.NDArray[Any],
        weight: Float64[ndarray, " b"] | None,
        keep: Int64[ndarray, " k"],
        held: Int64[ndarray, " h"],
    ) -> None:
        """Adds the samples to the mean features."""
        del targets, keep, held
        if self.columns_ is not None:
            return
        share = torch.ones(len(x), dtype=torch.float64) if weight is None else torch.from_numpy(weight)
        total, before = torch.zeros((), dtype=torch.float64), self._weight_of_means
        for some, part in zip(torch.from_numpy(x).split(_ROWS), share.split(_ROWS), strict=True):
            given = some.to(self.layer_.dtype)
            features = self.layer_.features(given).to(given.dtype).double()
            total = total + torch.einsum("b,bnd->nd", part, features)
        after = before + float(share.sum())
        if self.mean_features_ is not None:
            total = total + before * torch.from_numpy(self.mean_features_)
        self.mean_features_, self._weight_of_means = (total / after).numpy(), after

    def _arrays_of_means(self) -> dict[str, npt.NDArray[Any]]:
        """The arrays that a model file keeps."""
        if self.mean_features_ is None:
            return {}
        return {"mean_features": self.mean_features_, "mean_weight": np.array([self._weight_of_means])}

    def _adopt_means(self, tensors: Mapping[str, Tensor]) -> None:
        """Restores what `_arrays_of_means` returned."""
        if "mean_features" in tensors:
            shape = (self.layer_.n_sites, self.layer_.features.dim)
            self.mean_features_ = stored_array(tensors, "mean_features", shape)
            self._weight_of_means = float(stored_array(tensors, "mean_weight", (1,))[0])


def _place(known: list[Any], name: Any) -> int:
    """The number of an output that has this name."""
    for place, other in enumerate(known):
        if type(other) is type(name) and other == name:
            return place
    try:
        return known.index(name.item() if isinstance(name, np.generic) else name)
    except ValueError:
        told = ", ".join(map(repr, known[:12])) + (", ..." if len(known) > 12 else "")
        raise InputError(f"there is no output {name!r}; choose from: {told}") from None


def _as_array(given: Any) -> npt.NDArray[Any]:
    """The samples as one array; of objects if a column holds text."""
    if not isinstance(given, Table):
        return np.asarray(given)
    columns = [column.values for column in given.columns]
    kind = object if any(column.is_text for column in given.columns) else np.float64
    found: npt.NDArray[Any] = np.stack([column.astype(kind) for column in columns], axis=1)
    return found
