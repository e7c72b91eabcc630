"""What happens inside a network: units that are active, and how well conditioned its blocks are."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from tnml.diagnostics.isolation import device_beside, undisturbed
from tnml.errors import InputError


def activation_sparsity(model: nn.Module, x: Tensor) -> dict[str, float]:
    """How many ReLU units of a network are active, and how many never are.

    Args:
        model: any module with `nn.ReLU` modules in it, in eval mode for the measurement and left as it was.
        x: `[b, ...]` inputs.

    Returns:
        "active_fraction": of the units, mean over the inputs; "dead_fraction": units active for no input.

    Raises:
        InputError: there is no ReLU in the model, or no input.

    Cost: one forward pass.

    Source: Cornacchia, Hazla, Nachum and Yehudayoff, Regularization by misclassification in ReLU neural
    networks, arXiv 2111.02154.

    Example:
        >>> net = nn.Sequential(nn.Identity(), nn.ReLU())
        >>> activation_sparsity(net, torch.tensor([[1.0, -1.0], [-1.0, -1.0]]))
        {'active_fraction': 0.25, 'dead_fraction': 0.5}
    """
    units = [module for module in model.modules() if isinstance(module, nn.ReLU)]
    if not units or not len(x):
        raise InputError("expected a model with nn.ReLU modules and at least one input")
    active: list[Tensor] = []
    with (
        torch.no_grad(),
        undisturbed(model),
        _watched(units, lambda module, given, out: active.append(out > 0)),
    ):
        model(x.to(device_beside(model, x)))
    flat = [each.reshape(len(each), -1) for each in active]
    count = sum(each.shape[1] for each in flat)
    return {
        "active_fraction": sum(float(each.double().mean(0).sum()) for each in flat) / count,
        "dead_fraction": sum(int((~each.any(0)).sum()) for each in flat) / count,
    }


def layer_conditioning(
    model: nn.Module, x: Tensor, layers: Sequence[str] | None = None
) -> dict[str, dict[str, float]]:
    """The singular values of the Jacobians of a network's blocks at their own inputs.

    In a network of linear maps and piecewise linear functions these are the matrices D W, or D W + 1 with a
    skip connection, whose product decides how gradients grow or vanish.

    Args:
        model: any module, in eval mode for the measurement and left as it was.
        x: `[b, ...]` inputs; a few dozen are enough.
        layers: names of the blocks, as `named_modules` gives them; None takes the direct children.

    Returns:
        By name the medians over the inputs of "smax", the largest singular value, "smin", the smallest, and
        "cond", their ratio, which is infinite where a direction is lost.

    Raises:
        InputError: a name is unknown, or a block does not map tensors to tensors.

    Cost: for every input as many backward passes through a block as it has outputs.

    Source: Riedi, Balestriero and Baraniuk, Singular value perturbation and deep network optimization, arXiv
    2203.03099.

    Example:
        >>> net = nn.Sequential(nn.Linear(2, 2, bias=False))
        >>> _ = nn.init.eye_(net[0].weight)
        >>> layer_conditioning(net, torch.ones(1, 2))
        {'0': {'smax': 1.0, 'smin': 1.0, 'cond': 1.0}}
    """
    blocks = dict(model.named_modules())
    names = [name for name, _ in model.named_children()] if layers is None else list(layers)
    for name in names:
        if name not in blocks:
            raise InputError(f"the model has no module {name!r}; it has {', '.join(filter(None, blocks))}")
    seen: dict[nn.Module, Tensor] = {}
    wanted = [blocks[name] for name in names]
    with undisturbed(model), torch.inference_mode(False):
        with torch.no_grad(), _watched(wanted, lambda module, given, out: seen.setdefault(module, given)):
            model(x.to(device_beside(model, x)))
        return {name: _conditioning(name, blocks[name], seen) for name in names}


def _conditioning(name: str, block: nn.Module, seen: dict[nn.Module, Tensor]) -> dict[str, float]:
    """Medians over the inputs of a block."""
    if block not in seen:
        raise InputError(f"the module {name!r} was not called with a tensor, or gives none")
    rows = []
    for given in seen[block]:
        slopes = torch.autograd.functional.jacobian(lambda one: block(one.unsqueeze(0))[0], given)
        values = torch.linalg.svdvals(slopes.reshape(-1, given.numel()).double())
        least = values[-1] if float(values[-1]) > 1e-7 * float(values[0]) else values.new_zeros(())
        rows.append(torch.stack([values[0], least, values[0] / least]))
    smax, smin, cond = torch.stack(rows).median(0).values.tolist()
    return {"smax": smax, "smin": smin, "cond": cond}


@contextmanager
def _watched(
    modules: Sequence[nn.Module], tell: Callable[[nn.Module, Tensor, Tensor], object]
) -> Iterator[None]:
    """Calls `tell(module, input, output)` whenever one of the modules is called."""

    def hook(module: nn.Module, given: tuple[Any, ...], output: Any) -> None:
        if isinstance(output, Tensor) and given and isinstance(given[0], Tensor):
            tell(module, given[0], output)

    with ExitStack() as stack:
        for module in modules:
            stack.callback(module.register_forward_hook(hook).remove)
        yield
