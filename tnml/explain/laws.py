"""Laws of inputs as exact averages need them: independent columns, or a Markov chain along the sites."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Self

import torch
from jaxtyping import Float64, Real
from torch import Tensor

from tnml.checks import whole
from tnml.errors import InputError
from tnml.explain.background import background_features
from tnml.explain.central import about_the_mean, mean_products, varying, with_ones
from tnml.nn import TensorNetworkLayer

MOST = 4  # the highest moment
_SUM = 1e-6  # how far probabilities may be from adding up to 1, in single precision


class Law(NamedTuple):
    """What copies of a chain need of a law, in the network's order, in double precision.

    Attributes:
        mean: `[n, d]` of the local features.
        bases: of every site, `[d, e]`: the directions in which its features vary.
        emitted: of every site the moments `[e + 1, .., e + 1]` of (1, basis^T (phi - mean)), an axis for each
            copy; with states instead its values `[s, e + 1]` in each of them.
        start: `[s]` probabilities of the first state; one state without any.
        steps: `[n - 1, s, s]` probabilities from one site to the next; None without states.
    """

    mean: Float64[Tensor, "n d"]
    bases: Sequence[Tensor]
    emitted: Sequence[Tensor]
    start: Float64[Tensor, " s"]
    steps: Float64[Tensor, "m s s"] | None


class Pairs(NamedTuple):
    """Second moments of features and of their derivatives in each state; see `Law`.

    Attributes:
        second: `[n, s, d, d]`, E[phi phi^T].
        slopes: `[n, s, d, d]`, E[phi' phi'^T].
        start: `[s]`.
        steps: `[n - 1, s, s]` or None.
    """

    second: Float64[Tensor, "n s d d"]
    slopes: Float64[Tensor, "n s d d"]
    start: Float64[Tensor, " s"]
    steps: Float64[Tensor, "m s s"] | None


@dataclass(frozen=True, kw_only=True, eq=False)
class IndependentInputs:
    """Independent inputs, each with a distribution of its own, by the moments of their local features.

    Make one of samples by `of_columns`, or of moments that you know by `of_moments`.

    Attributes:
        mean: `[n, d]`, E[phi] of every input, in the order of the inputs.
        central: E[(phi - mean)^k] for k = 2, 3 and 4, `[n, d, d]`, `[n, d, d, d]` and so on, as far as known.
        slopes: `[n, d, d]`, E[phi' phi'^T] of the derivatives by the input, for `squared_gradients`; None if
            unknown.

    Example:
        >>> from tnml.nn import MPSLayer
        >>> law = IndependentInputs.of_columns(MPSLayer(4, 2), torch.rand(50, 4), order=3)
        >>> law.mean.shape, [tuple(moment.shape) for moment in law.central]
        (torch.Size([4, 2]), [(4, 2, 2), (4, 2, 2, 2)])
    """

    mean: Float64[Tensor, "n d"]
    central: tuple[Tensor, ...]
    slopes: Float64[Tensor, "n d d"] | None = None

    @classmethod
    def of_columns(
        cls, layer: TensorNetworkLayer, x: Tensor, weight: Tensor | None = None, *, order: int = 2
    ) -> Self:
        """All combinations of the values in the columns of samples, each column by itself.

        Nodes of a quadrature with their weights stand for a continuous law; see the example.

        Args:
            layer: the network whose features count.
            x: `[k, n]` inputs or `[k, n, d]` features.
            weight: `[k]`, at least 0: how often each row counts; None counts all equally.
            order: of the highest moment, 1 to 4.

        Raises:
            InputError: a shape, weight or number does not fit.

        Example:
            >>> import numpy as np
            >>> from tnml.nn import MPSLayer
            >>> nodes, weights = (torch.from_numpy(v) for v in np.polynomial.legendre.leggauss(8))
            >>> uniform = ((nodes + 1) / 2).unsqueeze(1).expand(-1, 3)  # on [0, 1], for three inputs
            >>> law = IndependentInputs.of_columns(MPSLayer(3, 1, dtype="float64"), uniform, weights)
            >>> round(float(law.central[0][0, 1, 1]), 9)  # the variance
            0.083333333
        """
        order, places = whole("order", order, 1, MOST), layer.order
        rows, share = background_features(layer, x.to(places.device), weight, joint=True)
        slopes = None if x.dim() > 2 else _derivatives(layer, x.to(places.device))
        if slopes is not None and weight is not None:
            slopes = slopes[weight.to(slopes.device) > 0]
        _check_real(rows)
        rows = rows.double()
        mean = torch.einsum("k,knd->nd", share, rows)
        found = [_in_input_order(mean, places)]
        for power in range(2, order + 1):
            found.append(_in_input_order(mean_products(rows - mean, share, power), places))
        squares = None if slopes is None else _in_input_order(mean_products(slopes, share, 2), places)
        return cls(mean=found[0], central=tuple(found[1:]), slopes=squares)

    @classmethod
    def of_moments(cls, *moments: Tensor, slopes: Tensor | None = None) -> Self:
        """Inputs of which E[phi], E[phi phi^T] and perhaps the third and fourth moments are known.

        Args:
            moments: `[n, d]`, `[n, d, d]`, `[n, d, d, d]` and `[n, d, d, d, d]`, about zero, from the first
                as far as they are known.
            slopes: `[n, d, d]`, E[phi' phi'^T] of the derivatives by the input.

        Raises:
            InputError: a shape does not fit, or a number is not finite.

        Example:
            >>> law = IndependentInputs.of_moments(torch.tensor([[1.0, 0.5]]), torch.ones(1, 2, 2))
            >>> law.central[0][0, 1]
            tensor([0.5000, 0.7500], dtype=torch.float64)
        """
        if not 1 <= len(moments) <= MOST or moments[0].dim() != 2:
            raise InputError(
                f"expected the moments [n, d], [n, d, d], .. of the features, up to {MOST} of them, got "
                f"{[list(moment.shape) for moment in moments]}"
            )
        n, d = moments[0].shape
        for power, moment in enumerate(moments, 1):
            _check_moment(f"moment {power}", moment, (n, *(d,) * power))
        if slopes is not None:
            _check_moment("slopes", slopes, (n, d, d))
        raw = [torch.ones(n, dtype=torch.float64, device=moments[0].device), *(m.double() for m in moments)]
        central = tuple(about_the_mean(raw, power) for power in range(2, len(raw)))
        return cls(mean=raw[1], central=central, slopes=None if slopes is None else slopes.double())

    def law(self, layer: TensorNetworkLayer, order: int) -> Law:
        """In the network's order, for this many copies.

        Raises:
            InputError: the sizes do not fit the layer, or a moment is not known.

        Example:
            >>> from tnml.nn import MPSLayer
            >>> layer = MPSLayer(4, 2)  # (1 - x, x): both components vary together
            >>> IndependentInputs.of_columns(layer, torch.rand(50, 4)).law(layer, 2).emitted[0].shape
            torch.Size([2, 2])
        """
        self._check(layer)
        if order > 1 + len(self.central):
            raise InputError(
                f"moments of order {order} of the outputs need those of the features, but they are known up "
                f"to order {1 + len(self.central)}; make the inputs with order={order}"
            )
        places = layer.order
        mean = self.mean.to(places.device).index_select(0, places)
        known = [moment.to(places.device).index_select(0, places) for moment in self.central[: order - 1]]
        bases, emitted = [], []
        for site in range(len(mean)):
            basis, moments = varying([moment[site] for moment in known], mean.shape[1])
            bases.append(basis)
            emitted.append(with_ones(moments, basis.shape[1], order).to(mean))
        return Law(mean, [basis.to(mean) for basis in bases], emitted, mean.new_ones(1), None)

    def pairs(self, layer: TensorNetworkLayer) -> Pairs:
        """Second moments in the network's order.

        Raises:
            InputError: the sizes do not fit the layer, or moments are not known.

        Example:
            >>> from tnml.nn import MPSLayer
            >>> IndependentInputs.of_columns(MPSLayer(4, 2), torch.rand(50, 4)).pairs(MPSLayer(4, 2))[0].shape
            torch.Size([4, 1, 2, 2])
        """
        self._check(layer)
        if self.slopes is None or not self.central:
            raise InputError(
                "squared gradients need second moments of the features and of their derivatives, and these "
                "inputs lack them; give inputs [k, n] instead of features, or `slopes`"
            )
        places = layer.order
        second = self.central[0] + self.mean.unsqueeze(2) * self.mean.unsqueeze(1)
        both = (m.to(places.device).index_select(0, places).unsqueeze(1) for m in (second, self.slopes))
        second, slopes = both
        return Pairs(second, slopes, torch.ones(1, dtype=torch.float64, device=places.device), None)

    def _check(self, layer: TensorNetworkLayer) -> None:
        wanted = (layer.n_sites, layer.features.dim)
        if tuple(self.mean.shape) != wanted:
            raise InputError(f"expected moments of {list(wanted)} features, got {list(self.mean.shape)}")


@dataclass(frozen=True, kw_only=True, eq=False)
class MarkovInputs:
    """Discrete inputs that depend on their neighbours: a Markov chain along the sites of a network.

    The chain follows the network's own order of the sites, which is that of the inputs unless the network has
    another `order`.

    Args:
        start: `[s]`, probabilities of the s states at the first site.
        transition: `[s, s]`, the probability to go from state i to state j in entry (i, j), or
            `[n - 1, s, s]`, one matrix for each step.
        values: `[s]` the input in each state; `[s, n]` for each input separately, in the order of the inputs;
            or its features `[s, n, d]`.

    Raises:
        InputError: probabilities are negative or do not add up to 1, or the shapes do not fit.

    Example:
        >>> MarkovInputs(start=torch.tensor([0.5, 0.5]), transition=torch.tensor([[0.9, 0.2], [0.2, 0.8]]),
        ...              values=torch.tensor([0.0, 1.0]))
        Traceback (most recent call last):
        tnml.errors.InputError: transition must hold probabilities that add up to 1 in each row, got sums ...
    """

    start: Real[Tensor, " s"]
    transition: Tensor
    values: Tensor

    def __post_init__(self) -> None:
        s = self.start.shape[0]
        _check_probabilities("start", self.start)
        if self.transition.dim() not in (2, 3) or self.transition.shape[-2:] != (s, s):
            raise InputError(
                f"expected a transition [{s}, {s}], or one for each step, got {list(self.transition.shape)}"
            )
        _check_probabilities("transition", self.transition)
        if not 1 <= self.values.dim() <= 3 or self.values.shape[0] != s:
            raise InputError(f"expected values [{s}], [{s}, n] or [{s}, n, d], got {list(self.values.shape)}")

    def law(self, layer: TensorNetworkLayer, order: int) -> Law:
        """In the network's order; the same for any number of copies.

        Raises:
            InputError: the sizes do not fit the layer.

        Example:
            >>> from tnml.nn import MPSLayer
            >>> half, ends = torch.full((2, 2), 0.5), torch.tensor([0.0, 1.0])
            >>> law = MarkovInputs(start=half[0], transition=half, values=ends).law(MPSLayer(4, 2), 2)
            >>> law.mean[0], law.emitted[0].shape
            (tensor([0.5000, 0.5000], dtype=torch.float64), torch.Size([2, 3]))
        """
        del order
        start, steps = self._probabilities(layer)
        rows = layer.local_features(self._inputs(layer))
        _check_real(rows)
        rows = rows.double()
        there = [start]
        for step in steps:
            there.append(there[-1] @ step)
        mean = torch.einsum("ns,snd->nd", torch.stack(there), rows)
        values = torch.cat([torch.ones_like(rows[..., :1]), rows - mean], 2)
        unit = torch.eye(mean.shape[1], dtype=torch.float64, device=mean.device)
        return Law(mean, [unit] * len(mean), list(values.unbind(1)), start, steps)

    def pairs(self, layer: TensorNetworkLayer) -> Pairs:
        """Second moments in each state, in the network's order.

        Raises:
            InputError: the sizes do not fit the layer, or only features are given.

        Example:
            >>> from tnml.nn import MPSLayer
            >>> half, ends = torch.full((2, 2), 0.5), torch.tensor([0.0, 1.0])
            >>> MarkovInputs(start=half[0], transition=half, values=ends).pairs(MPSLayer(4, 2)).second.shape
            torch.Size([4, 2, 2, 2])
        """
        start, steps = self._probabilities(layer)
        if self.values.dim() == 3:
            raise InputError("squared gradients need the inputs [s] or [s, n] of each state, not features")
        x = self._inputs(layer)
        rows = layer.local_features(x)
        _check_real(rows)
        both = (v.double() for v in (rows, _derivatives(layer, x)))
        second, slopes = (torch.einsum("snd,sne->nsde", v, v) for v in both)
        return Pairs(second, slopes, start, steps)

    def _probabilities(self, layer: TensorNetworkLayer) -> tuple[Tensor, Tensor]:
        given = (p.to(layer.order.device, torch.float64) for p in (self.start, self.transition))
        start, steps = (p / p.sum(-1, keepdim=True) for p in given)
        if steps.dim() == 2:
            return start, steps.expand(layer.n_sites - 1, -1, -1)
        if len(steps) != layer.n_sites - 1:
            raise InputError(f"expected {layer.n_sites - 1} transitions between the sites, got {len(steps)}")
        return start, steps

    def _inputs(self, layer: TensorNetworkLayer) -> Tensor:
        values = self.values.to(layer.order.device, torch.float64)
        return values.unsqueeze(1).expand(-1, layer.n_sites) if values.dim() == 1 else values


def _derivatives(layer: TensorNetworkLayer, x: Tensor) -> Tensor:
    """Phi' by the input, `[k, n, d]` in the network's order."""
    x = x.detach().double()
    if layer.features.n_columns is not None:
        return layer.in_order(layer.features.derivative(x), -2)
    return layer.features.derivative(layer.in_order(x, -1))


def _in_input_order(of_sites: Tensor, order: Tensor) -> Tensor:
    found = torch.empty_like(of_sites)
    found[order] = of_sites
    return found


def _check_real(features: Tensor) -> None:
    if features.is_complex():
        raise InputError("moments are of real outputs, got a network with complex features")


def _check_moment(name: str, moment: Tensor, shape: tuple[int, ...]) -> None:
    if tuple(moment.shape) != shape or moment.is_complex() or not bool(torch.isfinite(moment).all()):
        raise InputError(
            f"{name} must be finite real numbers {list(shape)}, got {moment.dtype} {list(moment.shape)}"
        )


def _check_probabilities(name: str, given: Tensor) -> None:
    sums = given.double().sum(-1)
    if bool((given < 0).any()) or not bool(((sums - 1).abs() <= _SUM).all()):
        where = " in each row" if given.dim() > 1 else ""
        raise InputError(
            f"{name} must hold probabilities that add up to 1{where}, got sums from "
            f"{float(sums.min()):.6g} to {float(sums.max()):.6g} and a least entry of {given.min():.6g}"
        )
