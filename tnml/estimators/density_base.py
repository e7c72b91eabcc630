"""What the density estimators share: parameters, columns, training and the questions, in the user's units."""

import dataclasses
import math
from abc import ABC
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float64
from numpy import ndarray
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from tnml.checks import whole
from tnml.errors import InputError, choose
from tnml.estimators.columns import order_of_columns
from tnml.estimators.density_columns import DensityColumns, fit_density_columns
from tnml.estimators.density_stored import StoredDensity
from tnml.estimators.parameters import estimator
from tnml.estimators.stored import plain
from tnml.estimators.tables import Table, checked_table
from tnml.loop.progress import ProgressReporter
from tnml.loop.results import Row
from tnml.nn import BornMachine
from tnml.training import TrainOptions, train_density
from tnml.training.dmrg.likelihood import USUAL, sweep_density

_SOLVERS = ("gradient", "dmrg")
_STEPS, _LEAST_EPOCHS, _MOST_EPOCHS = 1500, 10, 200


@estimator
class DensityParameters:
    """The parameters of a density.

    Args:
        bond_dim: largest bond dimension, the capacity of the model.
        hidden: values of a hidden variable in the middle of the chain, see `tnml.nn.BornMachine`.
        solver: "gradient" (stochastic gradient descent) or "dmrg" (two-site sweeps of maximum likelihood, in
            which bonds grow up to `bond_dim` where the data want it).
        features: "auto" looks at each column: text, truth values, pandas' categories and numbers with few
            distinct values are discrete, other numbers get Legendre functions of their transforms to [0, 1].
            Or a feature map for all columns of numbers, "one-hot" for levels; or a mapping of names or
            numbers of columns.
        order: the sequence of the columns on the chain, see `tnml.features.site_order`; "auto" puts columns
            that depend on each other side by side, or takes "snake" with an `image_shape`.
        image_shape: (height, width) if a sample is an image.
        noise: standard deviation of the noise on the starting cores, relative to them; None chooses it. With
            "dmrg", of the noise on every local tensor but in the last sweep, which opens new directions.
        epochs: passes over the data; None means about 1500 steps, in 10 to 200 epochs. "gradient" only.
        batch_size: samples per step; with "dmrg", per half sweep. None takes 100, and with "dmrg" all, but at
            most 10,000, drawn again each time.
        lr: peak learning rate; "gradient" only.
        sweeps: over all bonds and back; "dmrg" only.
        max_error: "dmrg" only: singular values of a bond are dropped while they make up less than this share
            of the norm.
        validation_fraction: share of the samples held out; its likelihood decides when to stop.
        patience: epochs or sweeps without a better held-out likelihood after which training stops and the
            best weights come back; None trains to the end.
        dtype: "float32" or "float64"; with "gradient" also "complex64" or "complex128".
        device: "cpu", "cuda", "cuda:1", or "auto" for CUDA if it is available.
        verbose: show progress.
        random_state: None, a number or a `numpy.random.RandomState`; a number makes `fit` repeatable.
    """

    bond_dim: int = dataclasses.field(default=8, kw_only=False)
    hidden: int = 1
    solver: str = "gradient"
    features: Any = "auto"
    order: str | Sequence[int] = "auto"
    image_shape: tuple[int, int] | None = None
    noise: float | None = None
    epochs: int | None = None
    batch_size: int | None = None
    lr: float = 1e-2
    sweeps: int = 6
    max_error: float | Sequence[float] = 1e-3
    validation_fraction: float = 0.1
    patience: int | None = 30
    dtype: str = "float32"
    device: str = "cpu"
    verbose: bool = False
    random_state: Any = None


class DensityEstimator(DensityParameters, StoredDensity, ABC):
    """The common part of `MPSDensity` and `MPSGenerativeClassifier`.

    Attributes:
        machine_: the trained `tnml.nn.BornMachine`.
        columns_: what `fit` found out about the columns.
        history_: one dictionary per epoch or sweep; losses are negative log-likelihoods of transformed
            samples, in nats.
        n_iter_: epochs or sweeps trained.
        n_features_in_, feature_names_in_: as in every scikit-learn estimator.
    """

    machine_: BornMachine
    columns_: DensityColumns
    history_: list[Row]
    n_iter_: int
    n_features_in_: int

    def __sklearn_tags__(self) -> Any:
        """scikit-learn's description of valid input: gaps and text are welcome."""
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = tags.input_tags.string = True
        return tags

    def _fit(self, table: Table, labels: npt.NDArray[Any] | None, classes: int | None) -> None:
        """Trains a machine on the columns of a table and, where there are any, labels with -1 for unknown."""
        chosen = {name: plain(value) for name, value in self.get_params(deep=False).items()}
        choose("solver", chosen["solver"], dict.fromkeys(_SOLVERS))
        choose("dtype", chosen["dtype"], dict.fromkeys(("float32", "float64", "complex64", "complex128")))
        seed = int(check_random_state(self.random_state).randint(np.iinfo(np.int32).max))
        self.columns_ = fit_density_columns(table, chosen["features"])
        codes, _ = self.columns_.encode(table)
        machine = BornMachine(
            codes.shape[1],
            1 if chosen["solver"] == "dmrg" else chosen["bond_dim"],
            classes=classes,
            hidden=chosen["hidden"],
            features=self.columns_.features,
            order=self._order(codes, labels),
            shape=chosen["image_shape"],
            noise=None if chosen["solver"] == "dmrg" else chosen["noise"],
            dtype=chosen["dtype"],
            device="cpu",
            seed=seed,
        )
        rng = np.random.RandomState(seed)
        full = codes if labels is None else np.column_stack([codes, labels])
        gaps, filled = np.isnan(full), _filled(full, rng)
        samples = torch.from_numpy(filled).to(machine.psi.dtype.to_real())
        self.machine_ = machine.start_(samples)
        self.history_ = []
        for round_ in range(2 if gaps.any() else 1):  # stochastic EM: gaps are drawn from the density itself
            if round_:
                drawn = machine.impute(torch.from_numpy(full), "draw", seed=seed)
                samples = drawn.to(samples)
            self.history_ += self._train(chosen, samples, seed)
        self.n_iter_ = len(self.history_)
        machine.eval()

    def _order(self, codes: Float64[ndarray, "b n"], labels: npt.NDArray[Any] | None) -> Any:
        """The order of the sites."""
        if not (isinstance(self.order, str) and self.order == "auto"):
            return self.order
        if self.image_shape is not None:
            return "snake"
        target = np.zeros(len(codes), np.int64) if labels is None else labels.astype(np.int64)
        known = target >= 0
        return order_of_columns(codes[known], target[known], None, ranked=True) if known.any() else "raster"

    def _train(self, chosen: Mapping[str, Any], samples: Tensor, seed: int) -> list[Row]:
        """The history of one training."""
        rows = len(samples)
        held = chosen["validation_fraction"] if rows >= 20 and chosen["patience"] is not None else 0.0
        patience = chosen["patience"] if held else None
        progress = None
        if self.verbose:
            progress = ProgressReporter(unit="sweep" if chosen["solver"] == "dmrg" else "epoch")
        if chosen["solver"] == "dmrg" and self.machine_.psi.n_sites > 1:
            return self._sweep(chosen, samples, seed, held, patience, progress)
        size = min(rows, chosen["batch_size"] or 100)
        steps = math.ceil(rows / size)
        epochs = chosen["epochs"]
        if epochs is None:
            epochs = int(np.clip(math.ceil(_STEPS / steps), _LEAST_EPOCHS, _MOST_EPOCHS))
        options = TrainOptions(
            epochs=epochs,
            lr=chosen["lr"],
            batch_size=size,
            validation=held,
            patience=patience,
            device=chosen["device"],
            seed=seed,
        )
        return train_density(self.machine_, samples, options, progress=progress).history

    def _sweep(
        self,
        chosen: Mapping[str, Any],
        samples: Tensor,
        seed: int,
        held: float,
        patience: int | None,
        progress: ProgressReporter | None,
    ) -> list[Row]:
        size = chosen["batch_size"] or (10_000 if len(samples) > 10_000 else None)
        options = dataclasses.replace(
            USUAL,
            sweeps=chosen["sweeps"],
            max_bond=whole("bond_dim", chosen["bond_dim"], 1),
            max_error=chosen["max_error"],
            noise=0.02 if chosen["noise"] is None else chosen["noise"],
            label="travels" if self.machine_.psi.out_features == 1 else "stays",
            batch_size=size,
            validation=held,
            device=chosen["device"],
            seed=seed,
        )
        return sweep_density(self.machine_, samples, options, patience=patience, progress=progress).history

    def _codes(self, X: Any) -> tuple[Tensor, Float64[ndarray, " b"]]:
        """Checked samples as the machine sees them, and the logarithms of the slopes of their transforms."""
        check_is_fitted(self)
        codes, slopes = self.columns_.encode(checked_table(self, X, reset=False))
        return torch.from_numpy(codes), slopes

    def _codes_needed(self) -> None:
        """Raises unless the estimator is fitted."""
        check_is_fitted(self)

    def _checked_fit(self, X: Any) -> Table:
        """The training table.

        Raises:
            InputError: a column has no value at all.
        """
        table = checked_table(self, X, reset=True)
        for column in table.columns:
            if column.missing.all():
                raise InputError(f"column {column.name} has no value; leave it out")
        return table


def _filled(codes: Float64[ndarray, "b n"], rng: np.random.RandomState) -> Float64[ndarray, "b n"]:
    """Codes with every gap replaced by a value of another row."""
    found = codes.copy()
    for column in found.T:
        gaps = np.isnan(column)
        if gaps.any():
            column[gaps] = rng.choice(column[~gaps], gaps.sum())
    return found
