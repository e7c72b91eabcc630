"""The losses that go by a name, and the name of any loss."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from torch import Tensor

from tnml.checks import one_of
from tnml.errors import InputError
from tnml.pde.losses.deep_bsde import DeepBSDELoss
from tnml.pde.losses.euler import EulerLoss
from tnml.pde.losses.multistep import MultistepLoss
from tnml.pde.losses.path_loss import PathLoss
from tnml.pde.losses.unbiased import UnbiasedLoss
from tnml.pde.options import LOSS_NAMES, SolveOptions
from tnml.pde.paths.noise import sign_design
from tnml.pde.paths.simulation import Paths
from tnml.pde.problem import Problem

Loss = Callable[[Any, Problem, Paths], Tensor]  # (model, problem, paths) -> mean over the paths

OWN = "own"  # the name of every loss that is not one of these classes
_CLASSES: Mapping[str, type[PathLoss]] = MappingProxyType(
    {"euler": EulerLoss, "unbiased": UnbiasedLoss, "multistep": MultistepLoss, "deep-bsde": DeepBSDELoss}
)


def loss_of(options: SolveOptions, dim: int) -> Loss:
    """The loss that settled options name, for a problem of that many dimensions.

    Example:
        >>> loss_of(SolveOptions(loss="unbiased", group=2), dim=3).fresh_increments
        4
    """
    if options.loss != "unbiased":
        return _CLASSES[options.loss](chunk=options.chunk)
    design = options.group_noise == "design"
    return UnbiasedLoss(
        group=len(sign_design(dim)) if design else options.group,
        groups=1 if design else 2,
        ahead=options.ahead,
        relative=options.relative,
        chunk=options.chunk,
    )


def name_of(loss: object) -> str | None:
    """The name of a loss given to `solve`, that of its class for an object; None if none is given.

    Raises:
        InputError: it is neither a loss nor the name of one.

    Example:
        >>> name_of(EulerLoss()), name_of(lambda ansatz, problem, paths: 0.0), name_of(None)
        ('euler', 'own', None)
    """
    if loss is None:
        return None
    if isinstance(loss, str):
        return one_of("loss", loss, LOSS_NAMES)
    if isinstance(loss, type) or not callable(loss):
        came = f"the class {loss.__name__}" if isinstance(loss, type) else type(loss).__name__
        raise InputError(
            f"loss must be a name ({', '.join(LOSS_NAMES)}) or a function loss(ansatz, problem, paths), such "
            f"as the object EulerLoss(); got {came}"
        )
    return next((name for name, kind in _CLASSES.items() if isinstance(loss, kind)), OWN)
