"""The density estimator: likelihoods, samples, gaps and anomalies of a table from one state."""

from collections.abc import Mapping
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float64, Int64
from numpy import ndarray
from sklearn.base import DensityMixin, OutlierMixin

from tnml.checks import number, whole
from tnml.errors import InputError
from tnml.estimators.density_base import DensityEstimator
from tnml.estimators.density_columns import Numbers
from tnml.estimators.parameters import estimator
from tnml.estimators.stored import plain
from tnml.nn.born.questions import Conditional, typical


@estimator
class MPSDensity(OutlierMixin, DensityMixin, DensityEstimator):
    """A probability density of the rows of a table, of which every question has an exact answer.

    Columns may be numbers, text, truth values or categories, and any value may be missing (NaN, None): the
    density is then that of the values that are there. Log-densities are in the units of the data, in nats;
    discrete columns count with their probabilities.

    Args:
        contamination: share of the training samples that `predict` calls outliers.

    Attributes:
        offset_: the log-density below which a sample is an outlier.

    Example:
        >>> rng = np.random.RandomState(0)
        >>> X = rng.normal(size=(300, 1)) * [1.0, -1.0] + 0.1 * rng.normal(size=(300, 2))
        >>> model = MPSDensity(random_state=0).fit(X)
        >>> model.predict([[1.0, -1.0], [1.0, 1.0]])
        array([ 1, -1])
        >>> bool(abs(model.impute([[1.0, np.nan]])[0, 1] + 1) < 0.4)
        True
    """

    _kind: ClassVar[str] = "density"

    contamination: float = 0.1

    def fit(self, X: Any, y: Any = None) -> Self:
        """Learns the density of the rows of `X`.

        Args:
            X: `[b, n]`, an array or a data frame.
            y: not used.

        Raises:
            InputError: a column has no value, or a parameter is out of range.
        """
        share = number("contamination", plain(self.contamination), above=0.0, most=0.5)
        table = self._checked_fit(X)
        self._fit(table, None, None)
        self.offset_ = float(np.quantile(self._log_density(*self._encoded(table)), share))
        return self

    def _encoded(self, table: Any) -> tuple[torch.Tensor, Float64[ndarray, " b"]]:
        codes, slopes = self.columns_.encode(table)
        return torch.from_numpy(codes), slopes

    def _log_density(self, codes: torch.Tensor, slopes: Float64[ndarray, " b"]) -> Float64[ndarray, " b"]:
        found: npt.NDArray[np.float64] = self.machine_.log_prob(codes).numpy() + slopes
        return found

    def _facts(self) -> dict[str, Any]:
        return {"offset": self.offset_}

    def _adopt(self, facts: Mapping[str, Any]) -> None:
        self.offset_ = float(facts["offset"])

    def score_samples(self, X: Any) -> Float64[ndarray, " b"]:
        """The logarithm of p of every row, of the values that are not missing."""
        return self._log_density(*self._codes(X))

    def score(self, X: Any, y: Any = None) -> float:
        """The mean of `score_samples`."""
        return float(self.score_samples(X).mean())

    def decision_function(self, X: Any) -> Float64[ndarray, " b"]:
        """The logarithm of p above `offset_`: negative for outliers."""
        return self.score_samples(X) - self.offset_

    def predict(self, X: Any) -> Int64[ndarray, " b"]:
        """1 for inliers, -1 for outliers."""
        return np.where(self.decision_function(X) < 0, -1, 1)

    def anomaly_score(self, X: Any) -> Float64[ndarray, " b"]:
        """-log p: the larger, the stranger."""
        return -self.score_samples(X)

    def surprise(self, X: Any) -> Float64[ndarray, "b n"]:
        """-log p of every value given the others of its row, NaN where it is missing: why a row is strange.

        In the units of the data up to a constant for each piece of a column of numbers: of the transforms.
        """
        codes, _ = self._codes(X)
        found: npt.NDArray[np.float64] = self.machine_.surprise(codes).numpy()
        return found

    def sample(self, n_samples: int = 1, *, given: Any = None, random_state: int = 0) -> npt.NDArray[Any]:
        """Rows drawn from the density.

        A column of categories has one more place, for those that training has not seen. A draw of it is
        missing: NaN, or None in a table with text. A model that is trained well hardly ever draws it.

        Args:
            n_samples: how many, of every row of `given`.
            given: rows whose missing values are to be drawn; the result is `[n_samples, b, n]`.
            random_state: seed of the draws.
        """
        count = whole("n_samples", plain(n_samples), 1)
        if given is None:
            self._codes_needed()
            return self.columns_.decode(self.machine_.sample(count, seed=random_state).numpy())
        codes, _ = self._codes(given)
        draws = self.machine_.sample(count, given=codes, seed=random_state).numpy()
        rows = self.columns_.decode(draws.reshape(-1, draws.shape[-1]))
        known = self._as_given(given, rows.dtype)
        rows = rows.reshape(count, len(codes), -1)
        return np.where(torch.isnan(codes).numpy(), rows, known)

    def impute(self, X: Any, how: str = "mean", *, random_state: int = 0) -> npt.NDArray[Any]:
        """The rows with every missing value filled in, given the others.

        Args:
            X: rows with NaN or None.
            how: "mean" (of levels, the most probable), "median" or "mode" of each value's own density, or
                "draw".
            random_state: seed of "draw".

        Raises:
            InputError: there is no such way.
        """
        codes, _ = self._codes(X)
        gaps = torch.isnan(codes).numpy()
        if how == "mean":
            rows = self._means(codes)
        else:
            rows = self.columns_.decode(self.machine_.impute(codes, how, seed=random_state).numpy())
        return np.where(gaps, rows, self._as_given(X, rows.dtype))

    def _means(self, codes: torch.Tensor) -> npt.NDArray[Any]:
        """Means in the units of the data; of levels the most probable."""
        every = self.machine_.conditionals(codes)
        rows = self.columns_.decode(torch.stack([typical(found, "mode") for found in every], 1).numpy())
        for column, (found, encoder) in enumerate(zip(every, self.columns_.encoders, strict=True)):
            if isinstance(encoder, Numbers):
                mass = (found.density.clamp_min(0) * found.weights).numpy()
                rows[:, column] = mass @ encoder.decode(found.values.numpy()) / mass.sum(1)
        return rows

    def conditional(self, X: Any, column: int | str) -> Conditional:
        """The density of one column given the other values of each row, in the units of the data.

        Args:
            X: rows; the column's own values are not looked at.
            column: its number, or its name.

        Raises:
            InputError: there is no such column.
        """
        codes, _ = self._codes(X)
        place = self._number(column)
        found, encoder = self.machine_.conditional(codes, place), self.columns_.encoders[place]
        values = found.values.numpy()
        if not isinstance(encoder, Numbers):
            table = np.full((len(values), codes.shape[1]), np.nan)
            table[:, place] = values
            return Conditional(
                self.columns_.decode(table)[:, place], found.density.numpy(), found.weights.numpy()
            )
        known = encoder.decode(values)
        slope = np.exp(encoder.encode(known)[1])
        return Conditional(known, found.density.numpy() * slope, found.weights.numpy() / slope)

    def mutual_information(self) -> Float64[ndarray, "n n"]:
        """The mutual information of every two columns in nats."""
        self._codes_needed()
        found: npt.NDArray[np.float64] = self.machine_.mutual_information().numpy()
        return found

    def _number(self, column: int | str) -> int:
        names = list(getattr(self, "feature_names_in_", []))
        if isinstance(column, str):
            if column not in names:
                raise InputError(
                    f"there is no column {column!r}; columns: {', '.join(map(str, names)) or 'no names'}"
                )
            return names.index(column)
        return whole("column", plain(column), 0, self.n_features_in_ - 1)

    def _as_given(self, X: Any, dtype: Any) -> npt.NDArray[Any]:
        values = X.to_numpy(dtype=object) if hasattr(X, "to_numpy") else np.asarray(X, dtype=object)
        return values if np.dtype(dtype).kind == "O" else values.astype(np.float64)
