"""Targets that a matrix product state computes exactly: teachers, permuted teachers and parity."""

from collections.abc import Sequence

import torch

from tnml.checks import is_whole, whole
from tnml.data import random_table
from tnml.data.inputs import Inputs
from tnml.data.targets import FeatureName, Target, chain_target
from tnml.errors import InputError
from tnml.features import FeatureMap, feature_map
from tnml.mps import MatrixProductState


def mps_teacher(
    *,
    n_sites: int = 10,
    bond_dim: int = 4,
    features: FeatureName = "legendre",
    inputs: str = "uniform",
    outputs: int = 1,
    levels: int | None = None,
    correlation: float = 0.5,
    seed: int = 0,
) -> Target:
    """A matrix product state with random normal cores, scaled to unit variance.

    A layer of bond dimension `bond_dim` (less where the chain is too short to need it) computes it exactly,
    and no smaller one does. The label core is the identity for one output and random for several. Mean and
    variance are exact. With many sites the outputs of a random chain have heavy tails: few samples carry the
    variance.

    Args:
        n_sites: length of the chain.
        bond_dim: largest bond dimension.
        features: name or description of the feature map; see `tnml.features.feature_map`.
        inputs: "uniform", "normal", "one-hot" or "markov"; see `tnml.data.inputs.Inputs`.
        outputs: number of outputs.
        levels: of "one-hot" and "markov"; None takes the dimension of the features.
        correlation: of neighbouring sites, for "markov".
        seed: of the cores.

    Raises:
        InputError: a value is out of its range.

    Source: the artificial data of Strashko and Stoudenmire, arXiv 2208.04372; sizes are our own.

    Example:
        >>> teacher = mps_teacher(seed=3)
        >>> teacher.bond_dim, round(float(teacher.variance), 9)
        (4, 1.0)
    """
    fmap = feature_map(features)
    state = _random_state(n_sites, bond_dim, fmap.dim, outputs, seed)
    return chain_target(state, features, distribution(inputs, fmap, levels, correlation))


def permuted_teacher(
    *,
    n_sites: int = 10,
    bond_dim: int = 4,
    features: FeatureName = "legendre",
    inputs: str = "uniform",
    outputs: int = 1,
    levels: int | None = None,
    seed: int = 0,
) -> Target:
    """The teacher of `mps_teacher` whose chain visits the inputs in a random order.

    The layer that knows the order (`Target.order`) needs `bond_dim`; a layer that takes the inputs as they
    come needs `Target.bond_dim`, usually the largest that the number of sites allows.

    Args:
        n_sites: length of the chain.
        bond_dim: largest bond dimension in the hidden order.
        features: as in `mps_teacher`.
        inputs: "uniform", "normal" or "one-hot".
        outputs: number of outputs.
        levels: as in `mps_teacher`.
        seed: of the cores and of the order.

    Raises:
        InputError: a value is out of its range, or the inputs are correlated.

    Example:
        >>> teacher = permuted_teacher(n_sites=6, bond_dim=2, seed=1)
        >>> sorted(teacher.order), teacher.bond_dim
        ([0, 1, 2, 3, 4, 5], 4)
    """
    if inputs == "markov":
        raise InputError("a permuted teacher takes independent inputs, got 'markov'; take 'one-hot'")
    fmap = feature_map(features)
    state = _random_state(n_sites, bond_dim, fmap.dim, outputs, seed)
    order = random_table.source(seed, random_table.PERMUTATION).permutation(n_sites)
    found = distribution(inputs, fmap, levels)
    return chain_target(state, features, found, order=tuple(int(site) for site in order))


def parity(
    *,
    n_sites: int = 10,
    sites: Sequence[int] | None = None,
    inputs: str = "uniform",
    correlation: float = 0.5,
) -> Target:
    """The product over `sites` of the sign of x - 1/2, which is 1 or -1; x = 1/2 counts as -1.

    With "one-hot" features of two components it is a product state, of bond dimension 1. A layer that starts
    near the identity does not discover it from a few samples. It is not scaled.

    Args:
        n_sites: inputs of one sample.
        sites: those that count, each once; None takes all.
        inputs: "uniform", "normal", "one-hot" or "markov", the last two with two levels.
        correlation: of neighbouring sites, for "markov".

    Raises:
        InputError: a site is out of range or named twice, or none is named.

    Example:
        >>> function = parity(n_sites=3, sites=[0, 2])
        >>> function(torch.tensor([[0.9, 0.1, 0.8], [0.9, 0.1, 0.2]]))
        tensor([ 1., -1.], dtype=torch.float64)
    """
    n_sites = whole("n_sites", n_sites, 1)
    chosen = list(range(n_sites)) if sites is None else list(sites)
    fits = all(is_whole(site, 0, n_sites - 1) for site in chosen)
    if not chosen or not fits or len(set(chosen)) < len(chosen):
        raise InputError(f"sites must name some of 0..{n_sites - 1}, each once, got {chosen}")
    factors = [[-1.0 if site in chosen else 1.0, 1.0] for site in range(n_sites)]
    cores = [torch.tensor(factor, dtype=torch.float64).reshape(1, 2, 1) for factor in factors]
    place = n_sites // 2
    cores.insert(place, torch.ones(1, 1, 1, dtype=torch.float64))
    state = MatrixProductState(cores, label_site=place)
    found = distribution(inputs, feature_map("one-hot"), 2, correlation)
    return chain_target(state, "one-hot", found, scaled=False)


def distribution(inputs: str, features: FeatureMap, levels: int | None, correlation: float = 0.5) -> Inputs:
    """The inputs of a teacher: as many levels as features unless said otherwise.

    Raises:
        InputError: unknown name, or a value out of range.

    Example:
        >>> distribution("one-hot", feature_map("rbf", dim=4), None).levels
        4
    """
    return Inputs(
        name=inputs, levels=max(2, features.dim) if levels is None else levels, correlation=correlation
    )


def _random_state(n_sites: int, bond_dim: int, physical: int, outputs: int, seed: int) -> MatrixProductState:
    n_sites, bond_dim = whole("n_sites", n_sites, 1), whole("bond_dim", bond_dim, 1)
    outputs, seed = whole("outputs", outputs, 1), whole("seed", seed)
    state = MatrixProductState.random(n_sites, bond_dim, physical, seed=seed)
    place = n_sites // 2
    cores, middle = state.cores, state.bond_dims[place]
    label = torch.eye(middle, dtype=torch.float64)[:, None]
    if outputs > 1:
        numbers = random_table.source(seed, random_table.WEIGHTS).standard_normal((middle, outputs, middle))
        label = torch.from_numpy(numbers / middle**0.5)
    cores.insert(place, label)
    return MatrixProductState(cores, log_scale=float(state.log_scale), label_site=place)
