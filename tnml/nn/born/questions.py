"""What can be asked of a density: log-probabilities, samples, conditionals, gaps, anomalies, information."""

from abc import abstractmethod
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from tnml.checks import one_of, whole
from tnml.errors import InputError
from tnml.mps import MatrixProductState
from tnml.nn.born.draws import drawn
from tnml.nn.born.information import column_entropies, mutual_information
from tnml.nn.born.state import BornState
from tnml.randomness import seeded

FILLINGS = ("mean", "median", "mode", "draw")


class Conditional(NamedTuple):
    """The density of one column, given others: tensors, from an estimator arrays.

    Attributes:
        values: `[q]`, ascending: its levels, or points in [0, 1].
        density: `[b, q]`: probabilities of levels, densities at points.
        weights: `[q]`, with which `density` sums up to 1: 1 for levels, else those of a quadrature.
    """

    values: Any
    density: Any
    weights: Any


class Questions:
    """The questions that a `BornMachine` answers, exactly and in double precision.

    Samples are `[b, n]`; NaN stands for a value that is not given, over which the density is summed.

    Example:
        >>> from tnml.nn import BornMachine
        >>> issubclass(BornMachine, Questions)
        True
    """

    @abstractmethod
    def exact(self) -> BornState:
        """The density in double precision."""

    def log_prob(self, x: Float[Tensor, "b n"]) -> Float[Tensor, " b"]:
        """The logarithm of p `[b]` of the values that are given, float64; -inf where they are impossible.

        Raises:
            InputError: `x` is not `[b, n]`.

        Cost: b n d chi² where all values are given, else b n d chi^3.

        Example:
            >>> from tnml.nn import BornMachine
            >>> machine = BornMachine(2, noise=0.0)
            >>> machine.log_prob(torch.tensor([[0.0, 1.0], [0.0, torch.nan]])).exp()
            tensor([0.2500, 0.5000], dtype=torch.float64)
        """
        state = self.exact()
        return state.log_prob(checked(state, x))

    def sample(self, n: int = 1, *, given: Tensor | None = None, seed: int = 0) -> Float[Tensor, "*b n"]:
        """Independent samples `[n, columns]`; with `given [b, columns]`, `[n, b, columns]`.

        Args:
            n: how many, of each row of `given`.
            given: values that are known, NaN elsewhere; one row `[columns]` or several.
            seed: of the draws.

        Raises:
            InputError: `given` does not fit.

        Cost: n columns d chi²; with several rows given d chi^3.

        Example:
            >>> from tnml.nn import BornMachine
            >>> machine = BornMachine(3)
            >>> machine.sample(5).shape, machine.sample(5, given=torch.tensor([1.0, torch.nan, 0.0])).shape
            (torch.Size([5, 3]), torch.Size([5, 3]))
        """
        state, count = self.exact(), whole("n", n, 1)
        if given is None:
            given = torch.full((state.n_columns,), torch.nan, dtype=torch.float64)
        rows = checked(state, given if given.dim() == 2 else given.unsqueeze(0))
        repeated = rows.repeat(count, 1)
        found = drawn(state, repeated, seeded(seed), shared=len(rows) == 1)
        return found if given.dim() == 1 else found.view(count, len(rows), -1)

    def conditional(self, x: Float[Tensor, "b n"], column: int) -> Conditional:
        """The density of one column given the other values of each row; its own value is not looked at.

        Raises:
            InputError: `x` is not `[b, n]`, or there is no such column.

        Cost: b n d chi^3.

        Example:
            >>> from tnml.nn import BornMachine
            >>> BornMachine(3, noise=0.0).conditional(torch.tensor([[0.0, 1.0, torch.nan]]), 2).density
            tensor([[0.5000, 0.5000]], dtype=torch.float64)
        """
        return self.conditionals(x)[whole("column", column, 0, self.exact().n_columns - 1)]

    def conditionals(self, x: Float[Tensor, "b n"]) -> list[Conditional]:
        """`conditional` of every column, at the cost of one.

        Raises:
            InputError: `x` is not `[b, n]`.
        """
        state = self.exact()
        pairs = zip(state.densities(checked(state, x)), state.basis_of_column, strict=True)
        return [Conditional(basis.points, basis.density(rho), basis.weights) for rho, basis in pairs]

    def marginal(self, column: int) -> Conditional:
        """The density `[1, q]` of one column, all others summed over.

        Raises:
            InputError: there is no such column.
        """
        n = self.exact().n_columns
        return self.conditional(torch.full((1, n), torch.nan, dtype=torch.float64), column)

    def impute(self, x: Float[Tensor, "b n"], how: str = "mean", *, seed: int = 0) -> Float[Tensor, "b n"]:
        """The samples with every NaN replaced, given the other values of the row.

        Args:
            x: samples.
            how: "mean", "median" or "mode" of each column's own density given what is known, or "draw": one
                joint draw of all that is missing.
            seed: of the draws.

        Raises:
            InputError: `x` does not fit, or there is no such way.

        Cost: b n d chi^3.

        Example:
            >>> from tnml.nn import BornMachine
            >>> BornMachine(2, noise=0.0).impute(torch.tensor([[1.0, torch.nan]]))
            tensor([[1.0000, 0.5000]], dtype=torch.float64)
        """
        one_of("how", how, FILLINGS)
        state = self.exact()
        given = checked(state, x)
        if how == "draw":
            return drawn(state, given, seeded(seed))
        found, gaps = given.clone(), torch.isnan(given)
        rows = gaps.any(1)
        if not bool(rows.any()):
            return found
        filled = torch.stack([typical(found, how) for found in self.conditionals(given[rows])], 1)
        found[rows] = torch.where(gaps[rows], filled, given[rows])
        return found

    def surprise(self, x: Float[Tensor, "b n"]) -> Float[Tensor, "b n"]:
        """-log p of every value given all other values of its row; NaN where there is none.

        Large where a value does not fit the others: the reasons behind `anomaly_score`.

        Raises:
            InputError: `x` is not `[b, n]`.

        Cost: b n d chi^3.

        Example:
            >>> from tnml.nn import BornMachine
            >>> BornMachine(2, noise=0.0).surprise(torch.tensor([[1.0, torch.nan]]))
            tensor([[0.6931,    nan]], dtype=torch.float64)
        """
        state = self.exact()
        given, columns = checked(state, x), []
        for column, (rho, basis) in enumerate(
            zip(state.densities(given), state.basis_of_column, strict=True)
        ):
            values = basis.at(given[:, column]).to(rho)
            density = torch.einsum("bd,bde,be->b", values, rho, values.conj()).real.clamp_min(0)
            columns.append(torch.where(torch.isnan(given[:, column]), torch.nan, -density.log()))
        return torch.stack(columns, 1)

    def anomaly_score(self, x: Float[Tensor, "b n"]) -> Float[Tensor, " b"]:
        """-log p `[b]` of what is given: the larger, the stranger the sample.

        Raises:
            InputError: `x` is not `[b, n]`.
        """
        return -self.log_prob(x)

    def mutual_information(self) -> Float[Tensor, "n n"]:
        """The mutual information of every two columns in nats; each column's entropy on the diagonal.

        Cost: n² q d chi^3 / 2 for columns of q points: levels, or 64 nodes of a quadrature for numbers.
        """
        return mutual_information(self.exact())

    def entropy(self) -> Float[Tensor, " n"]:
        """The entropy of every column by itself in nats; of numbers in [0, 1] differential, at most 0."""
        return column_entropies(self.exact())

    def bond_entropies(self) -> Float[Tensor, " m"]:
        """The entanglement entropy in nats of every bond of the chain: what the two sides share."""
        cores = self.exact().cores
        flat = [core.flatten(1, 2) for core in cores]
        return MatrixProductState(flat).entropies()


def checked(state: BornState, x: Tensor) -> Tensor:
    """Samples in double precision on the CPU, unknown classes as NaN.

    Raises:
        InputError: they are not `[b, n]`, or infinite.
    """
    if not isinstance(x, Tensor) or x.dim() != 2 or x.shape[1] != state.n_columns:
        came = list(x.shape) if isinstance(x, Tensor) else type(x).__name__
        raise InputError(f"expected samples [b, {state.n_columns}], got {came}; one row per sample")
    found = x.detach().cpu().double()
    if bool(torch.isinf(found).any()):
        raise InputError("x holds infinite values; give NaN where a value is missing")
    if state.n_columns - 1 in state.columns and state.basis_of_column[-1].points[-1] > 1:
        labels = found[:, -1]
        found = torch.cat([found[:, :-1], torch.where(labels < 0, torch.nan, labels).unsqueeze(1)], 1)
    return found


def typical(of: Conditional, how: str) -> Float[Tensor, " b"]:
    """One value for each density of a column.

    Args:
        of: the densities.
        how: "mean", "median" or "mode".

    Example:
        >>> found = Conditional(torch.tensor([0.0, 1.0]), torch.tensor([[0.4, 0.6]]), torch.ones(2))
        >>> typical(found, "median")
        tensor([1.])
    """
    values: Tensor = of.values
    density: Tensor = of.density
    weights: Tensor = of.weights
    mass = density.clamp_min(0) * weights
    if how == "mean":
        return (mass * values).sum(1) / mass.sum(1)
    if how == "mode":
        return values[density.argmax(1)]
    total = mass.cumsum(1)
    return values[(total >= 0.5 * total[:, -1:]).int().argmax(1)]
