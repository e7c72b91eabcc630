"""Geometric complexity: how steep a model is at its inputs, by autograd and in closed form.

Source: Dherin, Munn, Rosca and Barrett, Why neural networks find simple solutions, arXiv 2209.13083. The
closed form for matrix product states is our own.
"""

import torch
from torch import Tensor, nn

from tnml.checks import whole
from tnml.diagnostics.isolation import device_beside, undisturbed
from tnml.errors import InputError, choose
from tnml.mps import MatrixProductState
from tnml.mps.linalg import rescaled
from tnml.nn import TensorNetworkLayer
from tnml.nn.layer import Chain
from tnml.randomness import seeded

METHODS = ("exact", "hutchinson")
REDUCTIONS = ("mean", "none")


def geometric_complexity(
    model: nn.Module,
    x: Tensor,
    method: str = "exact",
    *,
    n_proj: int = 1,
    seed: int = 0,
    reduction: str = "mean",
    batch_size: int = 1000,
    differentiable: bool = False,
) -> Tensor:
    """The mean over the inputs of |df/dx|², the squared Frobenius norm of the Jacobian of the outputs.

    The outputs are taken as the model gives them, before any softmax. The derivative is with respect to `x`:
    for a tensor network layer by the inputs where x is `[b, n]`, by the features where it is `[b, n, d]`. The
    model is in eval mode and left as it was; samples must not affect each other there: they do not in batch
    normalisation with running statistics. Compare models of one data set and one training length only.

    Args:
        model: `[b, ...]` to real outputs `[b, c]` or `[b]`.
        x: `[b, ...]` inputs of a floating dtype.
        method: "exact", or "hutchinson": the mean of |J^T r|² over normal vectors r, without bias.
        n_proj: vectors r for each sample, "hutchinson" only.
        seed: of these vectors.
        reduction: "mean", or "none" for one number per sample `[b]`.
        batch_size: samples at a time.
        differentiable: whether gradients flow from the result to the parameters, for a penalty in a loss.

    Returns:
        float64, without axes or `[b]`.

    Raises:
        InputError: there is no sample, a name or number is out of range, or the outputs are complex or do
            not come from x by differentiable operations.

    Cost: c backward passes for "exact", `n_proj` for "hutchinson".

    Source: Dherin et al., arXiv 2209.13083.

    Example:
        >>> line = nn.Linear(3, 2)
        >>> found = geometric_complexity(line, torch.rand(5, 3))
        >>> torch.allclose(found, line.weight.double().square().sum())
        True
    """
    choose("method", method, dict.fromkeys(METHODS))
    choose("reduction", reduction, dict.fromkeys(REDUCTIONS))
    n_proj, batch_size = whole("n_proj", n_proj, 1), whole("batch_size", batch_size, 1)
    if not len(x) or not x.is_floating_point():
        raise InputError(f"expected at least one input of a floating dtype, got {x.dtype} {list(x.shape)}")
    generator = seeded(seed) if method == "hutchinson" else None
    device = device_beside(model, x)
    with undisturbed(model), torch.inference_mode(False), torch.enable_grad():
        squares = [
            _squares(model, part.detach().to(device, copy=True), n_proj, generator, differentiable)
            for part in x.split(batch_size)
        ]
    found = torch.cat(squares)
    return found.mean() if reduction == "mean" else found


def _squares(
    model: nn.Module, x: Tensor, n_proj: int, generator: torch.Generator | None, differentiable: bool
) -> Tensor:
    """|df/dx|² of every sample `[b]`; estimated where there is a generator to draw from."""
    outputs = model(x.requires_grad_())
    if outputs.is_complex() or not outputs.requires_grad or len(outputs) != len(x):
        raise InputError(
            f"expected real outputs [{len(x)}, c] that depend on x by differentiable operations, got "
            f"{outputs.dtype} {list(outputs.shape)}"
        )
    outputs = outputs.reshape(len(x), -1)
    if generator is None:
        directions = list(outputs.unbind(1))
    else:
        draws = torch.randn(n_proj, *outputs.shape, generator=generator, dtype=torch.float64)
        directions = [(outputs * draw.to(outputs)).sum(1) for draw in draws]
    total = torch.zeros(len(x), dtype=torch.float64, device=x.device)
    for place, direction in enumerate(directions):
        (slope,) = torch.autograd.grad(
            direction.sum(),
            x,
            retain_graph=differentiable or place + 1 < len(directions),
            create_graph=differentiable,
            allow_unused=True,
        )
        if slope is not None:
            total = total + slope.double().square().reshape(len(x), -1).sum(1)
    return total if generator is None else total / n_proj


def mps_geometric_complexity(
    layer: TensorNetworkLayer | MatrixProductState, second_moment: Tensor, second_moment_of_derivative: Tensor
) -> Tensor:
    """The expectation of |df/dx|² of a matrix product state over independent inputs, without samples.

        E |df/dx|² = sum_j  <two copies of the chain, with E[phi' phi'^T] at site j, E[phi phi^T] elsewhere>

    f is linear in the features of every site, so each term factorises over the sites. One pass carries the
    two copies without and with the derivative already taken, which adds up all terms at once. Outputs are
    those of eval mode. Gradients flow to the cores; inputs that depend on each other need
    `geometric_complexity` on samples.

    Args:
        layer: one that is a chain, such as an `MPSLayer`, or a state whose label core, if any, is marked by
            `label_site`.
        second_moment: `E[phi phi^T]`, `[d, d]` for all sites or `[n, d, d]`, as `feature_moments` gives them;
            for a layer in the order of its inputs, for a state in the order of its chain.
        second_moment_of_derivative: `E[phi' phi'^T]` in the same shape.

    Returns:
        float64 without axes; infinite where it exceeds the largest double.

    Raises:
        InputError: the moments do not fit the sites, or the layer is not a chain.

    Cost: O(n d chi^3 + n d^2 chi^2), in double precision.

    Source: own design.

    Example:
        >>> from tnml.diagnostics import feature_moments
        >>> line = MatrixProductState([torch.tensor([[[0.5], [2.0]]])])
        >>> mps_geometric_complexity(line, *feature_moments("affine"))
        tensor(4., dtype=torch.float64)
    """
    order, state = (None, layer) if isinstance(layer, MatrixProductState) else _chain(layer)
    double = torch.complex128 if state.dtype.is_complex else torch.float64
    n_sites = state.n_sites - (state.label_site is not None)
    moments = []
    for name, moment in (
        ("second_moment", second_moment),
        ("second_moment_of_derivative", second_moment_of_derivative),
    ):
        checked = _checked_moment(name, moment, state, n_sites).to(state.device, double)
        moments.append(checked if order is None else checked.index_select(0, order))
    plain = torch.ones(1, 1, dtype=double, device=state.device)
    pair = torch.stack([plain, torch.zeros_like(plain)])  # without and with the derivative, [2, l, l']
    log = 2 * state.log_scale
    site = 0
    for place, core in enumerate(state.to(double).cores):
        half = torch.einsum("xlm,ldr->xmdr", pair, core)
        if place != state.label_site:
            kept = torch.einsum("xmdr,de->xmer", half, moments[0][site])
            taken = torch.einsum("mdr,de->mer", half[0], moments[1][site])
            half = torch.stack([kept[0], kept[1] + taken])
            site += 1
        pair, up = rescaled(torch.einsum("xmer,mes->xrs", half, core.conj()))
        log = log + up
    return pair[1].real.reshape(()) * log.exp()


def _chain(layer: TensorNetworkLayer) -> tuple[Tensor, MatrixProductState]:
    """Site order and state of a layer.

    Raises:
        InputError: it is not a chain.
    """
    if not isinstance(layer, Chain):
        raise InputError(
            f"the closed form is that of a chain, got {type(layer).__name__}; "
            "use geometric_complexity on samples"
        )
    return layer.order, layer.to_state()


def _checked_moment(name: str, moment: Tensor, state: MatrixProductState, n_sites: int) -> Tensor:
    dims = {d for place, d in enumerate(state.physical_dims) if place != state.label_site}
    d = max(dims, default=0)
    if len(dims) > 1 or tuple(moment.shape) not in ((d, d), (n_sites, d, d)):
        raise InputError(
            f"{name} must be [{d}, {d}] or [{n_sites}, {d}, {d}] for {n_sites} sites of physical "
            f"dimension {', '.join(map(str, sorted(dims)))}, got {list(moment.shape)}"
        )
    if not bool(torch.isfinite(moment).all()):
        raise InputError(f"{name} holds NaN or infinite values; look at the inputs it was made from")
    return moment if moment.dim() == 3 else moment.expand(n_sites, d, d)
