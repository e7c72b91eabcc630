"""How many parameters a model has, and how many of them count."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from tnml.errors import InputError
from tnml.mps import MatrixProductState
from tnml.nn import TensorNetworkLayer
from tnml.nn.layer import Chain
from tnml.nn.tt.module import TTModule


@dataclass(frozen=True, kw_only=True)
class ParameterCounts:
    """Numbers of parameters; complex numbers count as one.

    Args:
        n_parameters: numbers in all parameters.
        gauge_free_parameters: see `gauge_free_parameters`.
        largest_core: numbers in the largest core of a tensor network, or in the largest parameter of other
            layers.

    Example:
        >>> count_parameters(nn.Linear(3, 2))
        ParameterCounts(n_parameters=8, gauge_free_parameters=8, largest_core=6)
    """

    n_parameters: int
    gauge_free_parameters: int
    largest_core: int


def count_parameters(model: nn.Module | MatrixProductState) -> ParameterCounts:
    """The numbers of parameters of a module or a state.

    Args:
        model: a module of any layers, or a state.

    Raises:
        InputError: it is neither.

    Example:
        >>> from tnml.nn import MPSLayer
        >>> counts = count_parameters(MPSLayer(10, 1, bond_dim=4))
        >>> counts.n_parameters, counts.gauge_free_parameters, counts.largest_core
        (248, 112, 32)
    """
    chains, others = _parts(model)
    sizes = [core.numel() for chain in chains for core in chain]
    rest = [parameter.numel() for parameter in others]
    return ParameterCounts(
        n_parameters=sum(sizes) + sum(rest),
        gauge_free_parameters=sum(map(_free, chains)) + sum(rest),
        largest_core=max([*sizes, *rest], default=0),
    )


def gauge_free_parameters(model: nn.Module | MatrixProductState) -> int:
    """The number of parameters without those that only choose a basis on the bonds.

        sum_i l_i d_i r_i - sum_bonds r²

    is the dimension of the set of tensors with these bonds. A label core counts with its c as d. Bonds that
    are wider than what the cores on one side can span are taken as wide as those. Parameters of layers that
    are not chains count in full.

    Args:
        model: a module (an `MPSLayer`, tensor-train layers, anything that holds them), or a state.

    Raises:
        InputError: it is neither.

    Source: Holtz, Rohwedder and Schneider, Numer. Math. 120 (2012) 701, on manifolds of fixed rank.

    Example:
        >>> gauge_free_parameters(MatrixProductState.random(3, 2))
        8
    """
    return count_parameters(model).gauge_free_parameters


def _parts(model: nn.Module | MatrixProductState) -> tuple[list[Sequence[Tensor]], list[Tensor]]:
    """The chains of cores in a model, and the parameters outside of them, each parameter once."""
    if isinstance(model, MatrixProductState):
        return [model.cores], []
    if not isinstance(model, nn.Module):
        raise InputError(f"expected a module or a MatrixProductState, got {type(model).__name__}")
    chains: list[Sequence[Tensor]] = []
    seen: set[int] = set()
    for module in model.modules():
        if isinstance(module, TensorNetworkLayer) and isinstance(module, Chain):
            cores, own = module.to_state().detach().cores, list(module.parameters(recurse=False))
            if sum(core.numel() for core in cores) == sum(parameter.numel() for parameter in own):
                chains.append(cores)  # not so where sites share a core
                seen |= set(map(id, own))
        elif isinstance(module, TTModule):
            chains.append([core.flatten(1, 2) for core in module.cores])
            seen |= set(map(id, module.cores))
    return chains, [parameter for parameter in model.parameters() if id(parameter) not in seen]


def _free(cores: Sequence[Tensor]) -> int:
    """The gauge-free count of cores `(l, d, r)`."""
    dims = [core.shape[1] for core in cores]
    bonds = [1, *(core.shape[2] for core in cores)]
    for site, d in enumerate(dims):
        bonds[site + 1] = min(bonds[site + 1], bonds[site] * d)
    for site in reversed(range(len(dims))):
        bonds[site] = min(bonds[site], dims[site] * bonds[site + 1])
    whole = sum(left * d * right for left, d, right in zip(bonds, dims, bonds[1:], strict=False))
    return whole - sum(bond * bond for bond in bonds[1:-1])
