"""Everything in a model that has a spectrum: weight matrices, cores, and the Schmidt values of bonds."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tnml.errors import InputError
from tnml.mps import MatrixProductState
from tnml.mps.canonical import entropies
from tnml.nn import TensorNetworkLayer
from tnml.nn.tt.module import TTModule


@dataclass(frozen=True, kw_only=True)
class Schmidt:
    """What the cuts of a tensor network carry, in double precision.

    Args:
        values: the Schmidt values of every cut (of a chain: its inner bonds), descending, their squares
            adding up to 1.
        entropies: `[bonds]` von Neumann entropies in nats.
        effective_bond_dims: `[bonds]` exp(entropy): that many equal Schmidt values would be as entangled.
        log_norm: logarithm of the 2-norm of the weight tensor.

    Example:
        >>> found = schmidt(MatrixProductState.from_dense(torch.eye(2)))
        >>> found.effective_bond_dims, round(found.log_norm, 4)
        (tensor([2.0000], dtype=torch.float64), 0.3466)
    """

    values: list[Tensor]
    entropies: Tensor
    effective_bond_dims: Tensor
    log_norm: float


def schmidt(layer: TensorNetworkLayer | MatrixProductState) -> Schmidt:
    """The Schmidt values, entropies and norm of a layer or state.

    They do not depend on the gauge. They belong to the weight tensor, label leg included, and so count all
    features alike: for feature maps that are orthonormal under the distribution of the inputs they are those
    of the function.

    Args:
        layer: a tensor network layer, such as an `MPSLayer`, whose n + 1 cores have n bonds; or a state.

    Raises:
        InputError: it is neither, or it is zero or not finite.

    Cost: that of the network's `bonds`; of a chain n d chi^3, in double precision.

    Example:
        >>> from tnml.nn import MPSLayer
        >>> found = schmidt(MPSLayer(6, 2, bond_dim=3))
        >>> len(found.values), found.entropies.shape
        (6, torch.Size([6]))
    """
    if isinstance(layer, TensorNetworkLayer):
        values, log_norm = [_spectrum(found) for found in layer.bonds()], layer.log_norm()
    elif isinstance(layer, MatrixProductState):
        state = layer.detach().to("complex128" if layer.dtype.is_complex else "float64")
        values, log_norm = [found.real for found in state.schmidt_values()], float(state.log_norm())
    else:
        raise InputError(
            f"expected an MPSLayer, another tensor network layer or a MatrixProductState, "
            f"got {type(layer).__name__}"
        )
    entropy = entropies(values)
    return Schmidt(values=values, entropies=entropy, effective_bond_dims=entropy.exp(), log_norm=log_norm)


def _spectrum(found: Tensor) -> Tensor:
    """The Schmidt values of one of a network's `bonds`."""
    if found.dim() == 1:
        return found
    if not bool(torch.isfinite(found).all()) or not bool(found.any()):
        raise InputError("the weight tensor is zero or not finite: it has no Schmidt values")
    values: Tensor = torch.linalg.svdvals(_double(found))
    return values.div(torch.linalg.vector_norm(values))


def matrices(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Every matrix of a model that has a spectrum, with a name.

    A tensor network layer gives the diagonal matrix of Schmidt values of each cut ("bond.0", ..), for its
    tensors depend on the gauge; a tensor-train layer its dense matrix ("weight") and each core as
    `[l o, i r]` ("cores.0", ..); other layers each parameter with two axes or more as `[first, rest]`.

    Args:
        model: any module.

    Returns:
        (name, `[rows, columns]`) one by one, without gradients; views where the parameter is a matrix.

    Raises:
        InputError: a tensor network layer in it is zero or not finite.

    Example:
        >>> [(name, tuple(m.shape)) for name, m in matrices(nn.Sequential(nn.Linear(3, 2), nn.ReLU()))]
        [('0.weight', (2, 3))]
    """
    for prefix, module in _not_in_networks(model):
        start = f"{prefix}." if prefix else ""
        if isinstance(module, TensorNetworkLayer):
            for bond, values in enumerate(schmidt(module).values):
                yield f"{start}bond.{bond}", torch.diag(values)
            continue
        if isinstance(module, TTModule):
            yield f"{start}weight", module.weight.detach()
        for name, parameter in _own(module):
            if parameter.dim() == 4 and isinstance(module, TTModule):
                yield f"{start}{name}", parameter.detach().flatten(0, 1).flatten(1, 2)
            elif parameter.dim() >= 2:
                yield f"{start}{name}", parameter.detach().reshape(parameter.shape[0], -1)


def singular_values(model: nn.Module) -> dict[str, Tensor]:
    """The singular values of everything that `matrices` gives, descending, by name, in double precision.

    Args:
        model: any module.

    Raises:
        InputError: a tensor network layer in it is zero or not finite.

    Example:
        >>> line = nn.Linear(2, 1)
        >>> _ = nn.init.constant_(line.weight, 3.0)
        >>> singular_values(line)
        {'weight': tensor([4.2426], dtype=torch.float64)}
    """
    return {name: torch.linalg.svdvals(_double(matrix)) for name, matrix in matrices(model)}


def networks_in(model: nn.Module) -> dict[str, TensorNetworkLayer]:
    """Every tensor network layer in a module by name; the module itself is "".

    Example:
        >>> from tnml.nn import MPSLayer
        >>> list(networks_in(nn.Sequential(nn.Identity(), MPSLayer(4, 2))))
        ['1']
    """
    return {name: part for name, part in _not_in_networks(model) if isinstance(part, TensorNetworkLayer)}


def _not_in_networks(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """The modules of a model by name, without those that a tensor network layer is made of."""
    inside: list[str] = []
    for name, module in model.named_modules():
        if name.startswith(tuple(inside)):
            continue
        if isinstance(module, TensorNetworkLayer):
            inside.append(f"{name}." if name else "")
        yield name, module


def _own(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """The parameters of a module itself; those of a tensor-train layer lie in a list of their own."""
    if isinstance(module, nn.ParameterList):
        return
    yield from module.named_parameters(recurse=isinstance(module, TTModule))


def _double(matrix: Tensor) -> Tensor:
    return matrix.to(torch.complex128 if matrix.is_complex() else torch.float64)
