"""Targets that a small matrix product state cannot compute: a grid of tensors and a random network."""

from dataclasses import dataclass

import torch
from torch import Tensor

from tnml.checks import number, whole
from tnml.data import random_table
from tnml.data.targets import FeatureName, Target, chain_target, one_or_all
from tnml.data.teachers import distribution
from tnml.errors import InputError, choose
from tnml.features import feature_map, site_order
from tnml.mps import MatrixProductState

MOMENT_SAMPLES = 2**17  # of the random network: its variance is known to about half a percent

_CHUNK = 8192  # samples at a time, which bounds the memory
_LARGEST_WIRES = 1024  # open bonds of the grid taken as one
Bond = tuple[int, int]


def grid_teacher(
    *,
    rows: int = 3,
    columns: int = 4,
    bond_dim: int = 2,
    features: FeatureName = "legendre",
    inputs: str = "uniform",
    order: str = "raster",
    outputs: int = 1,
    levels: int | None = None,
    correlation: float = 0.5,
    seed: int = 0,
) -> Target:
    """A grid of random normal tensors joined to their neighbours (PEPS), scaled to unit variance.

    A chain that visits the grid row by row cuts up to `columns + 1` of its bonds, so a matrix product state
    needs a bond dimension that is exponential in the width. That state is made here without approximation,
    site by site, and mean and variance are exact.

    Args:
        rows: height of the grid.
        columns: its width; the shorter side is the cheaper one.
        bond_dim: dimension of every bond of the grid.
        features: as in `mps_teacher`.
        inputs: "uniform", "normal", "one-hot" or "markov", the last along the chain.
        order: how the inputs of a sample go through the grid: "raster" (row by row) or "snake" (every second
            row backwards). With one output both are the same function but for the order of the numbers.
        outputs: number of outputs, carried by the tensor in the middle of the chain.
        levels: as in `mps_teacher`.
        correlation: of inputs that follow each other, for "markov".
        seed: of the tensors.

    Raises:
        InputError: a value is out of its range, or the bonds cut at once make more than 1024.

    Cost: rows columns d w^3 for w the bond dimension of the chain, w <= bond_dim^(columns + 1).

    Source: Verstraete and Cirac, arXiv cond-mat/0407066, for the network; own design for the rest.

    Example:
        >>> teacher = grid_teacher(rows=3, columns=2)
        >>> teacher.n_sites, teacher.bond_dim
        (6, 8)
    """
    rows, columns = whole("rows", rows, 1), whole("columns", columns, 1)
    bond_dim, outputs, seed = (
        whole("bond_dim", bond_dim, 1),
        whole("outputs", outputs, 1),
        whole("seed", seed),
    )
    choose("order", order, dict.fromkeys(("raster", "snake")))
    fmap = feature_map(features)
    tensors = grid_tensors(rows, columns, bond_dim, fmap.dim, outputs, seed)
    sites = site_order(order, (rows, columns), rows * columns).tolist()
    state = _chain_of(tensors, neighbours(rows, columns), sites, bond_dim, outputs)
    return chain_target(state, features, distribution(inputs, fmap, levels, correlation))


def neighbours(rows: int, columns: int) -> list[Bond]:
    """The bonds of a grid as pairs of pixels, the smaller first; pixel (i, j) is i * columns + j.

    Example:
        >>> neighbours(2, 2)
        [(0, 1), (2, 3), (0, 2), (1, 3)]
    """
    pixels = range(rows * columns)
    across = [(pixel, pixel + 1) for pixel in pixels if pixel % columns < columns - 1]
    down = [(pixel, pixel + columns) for pixel in pixels if pixel < (rows - 1) * columns]
    return across + down


def grid_tensors(
    rows: int, columns: int, bond_dim: int, physical: int, outputs: int, seed: int
) -> list[Tensor]:
    """The random tensors of the grid, `[outputs, physical, bonds ..]` for every pixel.

    The bonds of a pixel come as `neighbours` lists them. The outputs beyond the first are used at one pixel
    only, the one in the middle of the chain.

    Example:
        >>> [tuple(tensor.shape) for tensor in grid_tensors(1, 2, 3, 2, 1, seed=0)]
        [(1, 2, 3), (1, 2, 3)]
    """
    bonds = neighbours(rows, columns)
    tensors = []
    for pixel in range(rows * columns):
        legs = [bond_dim] * sum(pixel in bond for bond in bonds)
        numbers = random_table.source(seed, random_table.WEIGHTS, pixel).standard_normal(
            (outputs, physical, *legs)
        )
        tensors.append(torch.from_numpy(numbers))
    return tensors


def _chain_of(
    tensors: list[Tensor], bonds: list[Bond], sites: list[int], bond_dim: int, outputs: int
) -> MatrixProductState:
    """The matrix product state of a network in the given order: the bonds cut between two sites are its bond.

    The core of a site is its tensor beside identities for the bonds that only pass by:

        passing ──────────── passing
        ending  ──┐      ┌── starting
                  [tensor]
                     |
                     d
    """
    cores: list[Tensor] = []
    wires: list[Bond] = []
    middle = len(sites) // 2
    for place, site in enumerate(sites):
        own = [bond for bond in bonds if site in bond]
        ending = [bond for bond in own if bond in wires]
        starting = [bond for bond in own if bond not in wires]
        passing = [bond for bond in wires if bond not in own]
        if bond_dim ** (len(passing) + len(starting)) > _LARGEST_WIRES:
            raise InputError(
                f"the grid's chain would have bonds of {bond_dim}^{len(passing) + len(starting)}, more than "
                f"{_LARGEST_WIRES}; make columns the shorter side, or the grid smaller"
            )
        axes = [2 + own.index(bond) for bond in (*ending, *starting)]
        inner, outer, by = (bond_dim ** len(group) for group in (ending, starting, passing))
        labels = outputs if place == middle else 1
        tensor = tensors[site][:labels].permute(0, 1, *axes).flatten(2).unflatten(2, (inner, outer))
        eye = torch.eye(by, dtype=torch.float64)
        core = torch.einsum("kK,cdio->kidcKo", eye, tensor)
        listed, count = [*passing, *ending], len(wires)
        core = core.reshape(*[bond_dim] * count, *core.shape[2:])
        core = core.permute(*(listed.index(bond) for bond in wires), *range(count, count + 4))
        after = by * outer
        cores.append(core.reshape(bond_dim**count, -1, labels * after))
        if place == middle:
            label = torch.einsum("ce,kK->ckeK", torch.eye(outputs), torch.eye(after)).double()
            cores.append(label.reshape(outputs * after, outputs, after))
        wires = [*passing, *starting]
    return MatrixProductState(cores, label_site=middle + 1).truncate().state


@dataclass(frozen=True, eq=False)
class TanhNetwork:
    """v · tanh(W z + b) with z = √3 (2 x - 1), which has unit variance for uniform x.

    Args:
        hidden: W, `[width, n_sites]`.
        bias: b, `[width]`.
        out: v, `[outputs, width]`.

    Example:
        >>> net = TanhNetwork(torch.ones(1, 1).double(), torch.zeros(1).double(), torch.ones(1, 1).double())
        >>> net(torch.full((1, 1), 0.5).double())
        tensor([[0.]], dtype=torch.float64)
    """

    hidden: Tensor
    bias: Tensor
    out: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        """Outputs `[n, outputs]` of `x [n, n_sites]`."""
        z = 3**0.5 * (2 * x - 1)
        return torch.tanh(z @ self.hidden.T + self.bias) @ self.out.T


def tanh_network(
    *,
    n_sites: int = 10,
    width: int = 32,
    gain: float = 1.0,
    inputs: str = "uniform",
    outputs: int = 1,
    levels: int | None = None,
    correlation: float = 0.5,
    seed: int = 0,
) -> Target:
    """A random network of one hidden layer, scaled to unit variance over a fixed sample.

    Weights are normal with variance gain² / n_sites, biases and output weights standard normal. Mean and
    variance are those of 131,072 fixed samples, not a closed form: the true variance is 1 within about half a
    percent. No matrix product state is known that computes it.

    Args:
        n_sites: inputs of one sample.
        width: hidden units.
        gain: of the weights; the larger, the less linear the function.
        inputs: as in `mps_teacher`.
        outputs: number of outputs.
        levels: of "one-hot" and "markov"; None takes 2.
        correlation: of neighbouring sites, for "markov".
        seed: of the weights.

    Raises:
        InputError: a value is out of its range.

    Example:
        >>> network = tanh_network(seed=1)
        >>> network.bond_dim is None, round(float(network.variance), 9)
        (True, 1.0)
    """
    n_sites, width, outputs = (
        whole("n_sites", n_sites, 1),
        whole("width", width, 1),
        whole("outputs", outputs, 1),
    )
    gain = number("gain", gain, above=0.0)
    found = distribution(inputs, feature_map("affine"), levels, correlation)
    numbers = random_table.source(seed, random_table.WEIGHTS)
    hidden = torch.from_numpy(numbers.standard_normal((width, n_sites)) * (gain / n_sites**0.5))
    bias = torch.from_numpy(numbers.standard_normal(width))
    out = torch.from_numpy(numbers.standard_normal((outputs, width)))
    network = TanhNetwork(hidden, bias, out)
    samples = found.draw(MOMENT_SAMPLES, n_sites, seed=random_table.REFERENCE_SEED)
    values = torch.cat([network(part) for part in samples.split(_CHUNK)])
    scale = values.var(0).rsqrt()
    values = values * scale
    return Target(
        n_sites=n_sites,
        outputs=outputs,
        inputs=found,
        mean=one_or_all(values.mean(0)),
        variance=one_or_all(values.var(0)),
        scale=one_or_all(scale),
        function=TanhNetwork(hidden, bias, out * scale[:, None]),
    )
