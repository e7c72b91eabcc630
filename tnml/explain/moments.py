"""Moments of outputs and of their gradients, exactly: mean, covariance, third and fourth moments.

An output is linear in the features of every site. So the mean of a product of k outputs is that of k copies
of the chain with the moments of the features between them: nothing is sampled, and nothing is taken to be
normal.

    E[f_a f_b] =  --o--o--[a]--o--        E[phi phi^T] between the copies; in a Markov chain of inputs,
                    |  |       |          its transition matrix leads from site to site
                  --o--o--[b]--o--

Sources: Fischer et al., arXiv 2202.04925, for networks as maps of moments; Dherin et al., arXiv 2209.13083,
for geometric complexity. The methods are our own design.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float64
from torch import Tensor

from tnml.checks import number, whole
from tnml.diagnostics import undisturbed
from tnml.errors import InputError
from tnml.explain.background import check_linear, combinations
from tnml.explain.copies import joint_moments, left_side, right_side
from tnml.explain.laws import MOST, IndependentInputs, Law, MarkovInputs, Pairs
from tnml.explain.slopes import derivatives
from tnml.mps import MatrixProductState
from tnml.mps.linalg import rescaled
from tnml.nn import TensorNetworkLayer
from tnml.nn.layer import Chain

_NUMBER = 8  # bytes
_LARGEST = 3  # tensors of the largest size at a time


@dataclass(frozen=True, kw_only=True, eq=False)
class Moments:
    """How outputs are distributed over random inputs.

    Attributes:
        mean: `[k]`, of each output or combination of outputs.
        covariance: `[k, k]`; None if only the mean was asked for.
        third: `[k, k, k]`, the mean product of deviations from the mean; None below order 3.
        fourth: `[k, k, k, k]`; None below order 4.

    Example:
        >>> from tnml.nn import MPSLayer
        >>> found = moments(MPSLayer(4, 2, noise=0.5), torch.rand(50, 4), order=4)
        >>> found.fourth.shape, bool((found.kurtosis >= 1 + found.skewness.square()).all())
        (torch.Size([2, 2, 2, 2]), True)
    """

    mean: Float64[Tensor, " k"]
    covariance: Float64[Tensor, "k k"] | None = None
    third: Float64[Tensor, "k k k"] | None = None
    fourth: Float64[Tensor, "k k k k"] | None = None

    @property
    def deviation(self) -> Float64[Tensor, " k"]:
        """The standard deviation of each output."""
        return self._own(self.covariance, "deviation", 2).sqrt()

    @property
    def skewness(self) -> Float64[Tensor, " k"]:
        """The third moment of each output in units of its deviation; 0 for a normal distribution."""
        return self._own(self.third, "skewness", 3) / self.deviation**3

    @property
    def kurtosis(self) -> Float64[Tensor, " k"]:
        """The fourth moment of each output in units of its deviation; 3 for a normal distribution."""
        return self._own(self.fourth, "kurtosis", 4) / self.deviation**4

    def _own(self, joint: Tensor | None, name: str, order: int) -> Tensor:
        if joint is None:
            raise InputError(f"the {name} needs moments of order {order}; call moments with order={order}")
        every = torch.arange(len(self.mean), device=joint.device)
        return joint[(every,) * order].clamp_min(0) if order == 2 else joint[(every,) * order]


def moments(
    layer: TensorNetworkLayer,
    inputs: Tensor | IndependentInputs | MarkovInputs,
    order: int = 2,
    target: int | Sequence[int] | Tensor | None = None,
    *,
    weight: Tensor | None = None,
    memory_gb: float = 4.0,
) -> Moments:
    """Mean, covariance, third and fourth central moments of the outputs over random inputs.

    Args:
        layer: a real network that is a chain, such as an `MPSLayer`; for the mean over independent inputs
            any real network of `tnml.nn.NETWORKS` that is linear in every site's features.
        inputs: samples `[k, n]` or `[k, n, d]`, whose columns are taken as independent (all combinations of
            their values count); or `IndependentInputs`, `MarkovInputs`.
        order: of the highest moment, 1 to 4.
        target: an output, several, a matrix `[c, k]` of combinations of outputs (a column with 1 and -1 is a
            difference), or None for all outputs.
        weight: `[k]`, at least 0, with samples: how often each row counts; None counts all equally.
        memory_gb: most memory, in units of 10^9 bytes, for the copies of the chain.

    Raises:
        InputError: the layer is not a chain or is complex, a shape or number does not fit, or the copies need
            more memory.

    Cost: O(n k (e + 1)^(k - 1) chi^(k + 1)) time and O((e + 1)^(k - 1) chi^k) memory for order k and features
    that vary in e directions, at most d: one for "linear", none where an input is constant. With s states of
    a Markov chain it is O(n k s chi^(k + 1)) and O(s chi^k). In double precision.

    Example:
        >>> from tnml.nn import MPSLayer
        >>> layer, x = MPSLayer(4, 2, noise=0.5, dtype="float64"), torch.rand(2, 4).double()
        >>> every = torch.cartesian_prod(*x.T)  # all 2^4 combinations of the columns
        >>> torch.allclose(moments(layer, x).covariance, layer(every).T.cov(correction=0))
        True
    """
    order = whole("order", order, 1, MOST)
    check_linear(layer)
    if layer.dtype.is_complex:
        raise InputError("moments are of real outputs, got a complex network")
    columns = combinations(target, layer.out_features, layer.order.device)
    with undisturbed(layer), torch.no_grad():
        law = _inputs(layer, inputs, weight, order).law(layer, order)
        if not isinstance(layer, Chain):
            return Moments(mean=_mean_of_any(layer, law, columns, order))
        state = layer.to_state().detach().to("float64")
        _check_memory(max(state.bond_dims, default=1), law, order, number("memory_gb", memory_gb, above=0.0))
        left, right = (side(state, layer.label_site, law, order) for side in (left_side, right_side))
        label, up = rescaled(torch.einsum("lcr,ck->lkr", state.cores[layer.label_site], columns))
        mean, central = joint_moments(label, left, right, order)
        scale = left.log + right.log + up + state.log_scale
    found = [moment * (power * scale).exp() for power, moment in enumerate((mean, *central), 1)]
    return Moments(**dict(zip(("mean", "covariance", "third", "fourth"), found, strict=False)))


def squared_gradients(
    layer: TensorNetworkLayer,
    inputs: Tensor | IndependentInputs | MarkovInputs,
    target: int | Sequence[int] | Tensor | None = None,
    *,
    weight: Tensor | None = None,
) -> Float64[Tensor, "n k"]:
    """The mean over random inputs of the squared derivative of each output by each input.

    Its sum over inputs and outputs is the geometric complexity, E |df/dx|². For inputs that are uniform on
    [0, 1] an entry over pi² times the output's variance bounds the total Sobol index of that input from
    above.

    Args:
        layer: a real network that is a chain, such as an `MPSLayer`.
        inputs: as for `moments`; samples have to be inputs `[k, n]`.
        target: as for `moments`.
        weight: as for `moments`.

    Returns:
        In the order of the inputs.

    Raises:
        InputError: the layer is not a chain or is complex, a shape does not fit, or the inputs do not tell
            the derivatives of their features.

    Cost: O(k n s d chi^3) for s states and k targets. In double precision.

    Source: Dherin et al., arXiv 2209.13083; Sobol' and Kucherenko, Mathematics and Computers in Simulation 79
    (2009) 3009, for the bound. The method is our own design.

    Example:
        >>> from tnml.diagnostics import feature_moments, mps_geometric_complexity
        >>> from tnml.nn import MPSLayer
        >>> layer, x = MPSLayer(4, 2, noise=0.5, dtype="float64"), torch.rand(50, 4).double()
        >>> whole = mps_geometric_complexity(layer, *feature_moments("linear", x))
        >>> torch.allclose(squared_gradients(layer, x).sum(), whole)
        True
    """
    if not isinstance(layer, Chain):
        raise InputError(
            f"squared gradients in closed form need a network that is a chain, got {type(layer).__name__}; "
            "use tnml.diagnostics.geometric_complexity on samples"
        )
    if layer.dtype.is_complex:
        raise InputError("squared gradients are of real outputs, got a complex network")
    columns = combinations(target, layer.out_features, layer.order.device)
    with undisturbed(layer), torch.no_grad():
        pairs = _inputs(layer, inputs, weight, 2).pairs(layer)
        each = _squares(layer.to_state().detach().to("float64"), layer.label_site, columns, pairs)
    found = torch.empty_like(each)
    found[layer.order] = each
    return found


def _inputs(
    layer: TensorNetworkLayer,
    inputs: Tensor | IndependentInputs | MarkovInputs,
    weight: Tensor | None,
    order: int,
) -> IndependentInputs | MarkovInputs:
    if isinstance(inputs, Tensor):
        return IndependentInputs.of_columns(layer, inputs, weight, order=order)
    if weight is not None:
        raise InputError("weights belong to samples; leave them out with other inputs")
    return inputs


def _mean_of_any(layer: TensorNetworkLayer, law: Law, columns: Tensor, order: int) -> Float64[Tensor, " k"]:
    """The outputs at mean features."""
    if order > 1 or law.steps is not None:
        raise InputError(
            f"moments in closed form need a network that is a chain, got {type(layer).__name__}; for others "
            "only the mean (order=1) over independent inputs is known, the rest by averages over samples"
        )
    return derivatives(layer, law.mean.unsqueeze(0).to(layer.dtype), columns)[0][0]


def _check_memory(bond: int, law: Law, order: int, memory_gb: float) -> None:
    """Raises if the copies would need more memory."""
    wide = len(law.start) if law.steps is not None else max(len(m) for m in law.emitted) ** (order - 1)
    needed = _LARGEST * _NUMBER * wide * float(bond + 1) ** order
    if needed <= 1e9 * memory_gb:
        return
    fits = int((1e9 * memory_gb / (_LARGEST * _NUMBER * wide)) ** (1 / order)) - 1
    smaller = f"take a copy with bonds of at most {fits} (layer.compressed), " if fits > 0 else ""
    raise InputError(
        f"{order} copies of a chain with bonds of {bond} need {needed / 1e9:.3g} GB, more than memory_gb="
        f"{memory_gb:g}; {smaller}ask for a lower order, raise memory_gb, or average over samples"
    )


def _squares(
    state: MatrixProductState, place: int, columns: Float64[Tensor, "c k"], pairs: Pairs
) -> Float64[Tensor, "n k"]:
    """E[(df_k / dx_i)²] at every site: both sides without the derivative, and the site in between with it."""
    cores = state.cores
    label, scale = rescaled(torch.einsum("lcr,ck->klr", cores.pop(place), columns))
    scale, n = 2 * (scale + state.log_scale), len(cores)
    turned = [core.permute(2, 1, 0) for core in cores]
    lefts, rights = {0: _end(pairs, first=True)}, {n: _end(pairs, first=False)}
    for site in range(place):
        lefts[site + 1] = _through(lefts[site], cores[site], pairs.second[site], None, _step(pairs, site))
    for site in reversed(range(place, n)):
        rights[site] = _through(rights[site + 1], turned[site], pairs.second[site], _step(pairs, site), None)
    across = {place: _over_label(rights[place], label.transpose(1, 2))}  # with an axis of outputs
    beyond = {place: _over_label(lefts[place], label)}
    for site in reversed(range(1, place)):
        across[site] = _through(across[site + 1], turned[site], pairs.second[site], _step(pairs, site), None)
    for site in range(place, n - 1):
        beyond[site + 1] = _through(beyond[site], cores[site], pairs.second[site], None, _step(pairs, site))
    found = []
    for site in range(n):
        before, after = (lefts[site], across[site + 1]) if site < place else (beyond[site], rights[site + 1])
        here, up = _through(before, cores[site], pairs.slopes[site], None, _step(pairs, site))
        total = (here * after[0]).sum((-3, -2, -1))
        found.append(total * (up + after[1] + scale).exp())
    return torch.stack(found)


Carried = tuple[Tensor, Tensor]  # [.., s, l, m] between two sites, and the logarithm of its factor


def _end(pairs: Pairs, *, first: bool) -> Carried:
    """An end of the chain: before the first site there is one state, after the last all of them."""
    states = 1 if first else pairs.second.shape[1]
    return pairs.start.new_ones(states, 1, 1), torch.zeros_like(pairs.start[0])


def _step(pairs: Pairs, site: int) -> Float64[Tensor, "s t"]:
    """Probabilities from the states before a site to those at it."""
    if site == 0:
        return pairs.start.unsqueeze(0)
    return torch.ones(1, 1).to(pairs.start) if pairs.steps is None else pairs.steps[site - 1]


def _through(
    carried: Carried,
    core: Float64[Tensor, "l d r"],
    between: Float64[Tensor, "s d d"],
    after: Tensor | None,
    before: Tensor | None,
) -> Carried:
    """Past a site, from the left with `before` its step of the states, or from the right with `after`."""
    given, log = carried
    if before is not None:
        given = torch.einsum("st,...slm->...tlm", before, given)
    half = torch.einsum("...slm,ldr->...smdr", given, core)
    half = torch.einsum("...smdr,sde->...smer", half, between)
    found = torch.einsum("...smer,meq->...srq", half, core)
    if after is not None:
        found = torch.einsum("st,...tlm->...slm", after, found)
    found, up = rescaled(found)
    return found, log + up


def _over_label(carried: Carried, label: Float64[Tensor, "k l r"]) -> Carried:
    """`[k, s, r, r]`, past the label core with an output in both copies."""
    given, log = carried
    return torch.einsum("slm,klr,kmq->ksrq", given, label, label), log
