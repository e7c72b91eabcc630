"""The two solvers of an estimator: which parameters each of them uses, and the options of the sweeps."""

from collections.abc import Mapping
from typing import Any

from tnml.checks import whole
from tnml.errors import InputError, choose
from tnml.training import SweepOptions

# What only one solver uses, with the parameter of the other one that comes nearest.
_OWN: Mapping[str, Mapping[str, str | None]] = {
    "gradient": {
        "label_site": None,
        "noise": None,
        "bond_dropout": None,
        "site_dropout": None,
        "epochs": "sweeps",
        "lr": None,
        "optimizer": None,
        "weight_decay": "ridge",
        "schedule": None,
        "clip_norm": None,
        "average": None,
        "patience": None,
    },
    "dmrg": {"sweeps": "epochs", "max_error": "bond_dim", "ridge": "weight_decay"},
}
_SWEEPS = 5
_MOST_SAMPLES = 10_000  # of one half sweep; the next one draws others
_LEAST_DAMPING, _MOST_DAMPING = 0.1, 10.0


def check_solver(parameters: Mapping[str, Any], defaults: Mapping[str, Any]) -> None:
    """Raises unless the solver exists and all that only the other one uses is as it comes.

    Args:
        parameters: of the estimator, by name.
        defaults: what they are unless given.

    Raises:
        InputError: the solver is another word, or a parameter would have no effect.

    Example:
        >>> check_solver({"solver": "dmrg", "epochs": 9}, {"epochs": None})
        Traceback (most recent call last):
        tnml.errors.InputError: solver='dmrg' does not use epochs=9; ... as it comes (None) or set sweeps
    """
    solver = choose("solver", parameters["solver"], {name: name for name in _OWN})
    for other, names in _OWN.items():
        for name, nearest in names.items() if other != solver else ():
            value, usual = parameters.get(name, defaults.get(name)), defaults.get(name)
            if value is not usual and value != usual:
                instead = f" or set {nearest}" if nearest else f", or choose solver={other!r}"
                raise InputError(
                    f"solver={solver!r} does not use {name}={value!r}; leave it as it comes ({usual!r})"
                    f"{instead}"
                )


def sweep_options(parameters: Mapping[str, Any], samples: int, *, one_pass: bool, **own: Any) -> SweepOptions:
    """The options of the next sweeps on so many samples, numbers left at None chosen as the docstrings say.

    Args:
        parameters: of the estimator, by name, as Python numbers.
        samples: to train on.
        one_pass: whether there is to be one sweep only.
        own: further options, which go before these; `max_error` only where the estimator names none.

    Raises:
        InputError: an option is out of range.

    Example:
        >>> parameters = {"bond_dim": 8, "sweeps": None, "batch_size": None, "max_error": 0.01}
        >>> parameters |= {"ridge": 0.0, "validation_fraction": 0.0, "device": "cpu"}
        >>> sweep_options(parameters, 50_000, one_pass=True, seed=3).batch_size
        10000
    """
    given = dict(parameters)
    sweeps, batch = given["sweeps"], given["batch_size"]
    chosen = {
        "label": "travels",  # from bond dimension 1 it finds much better models than a label that stays
        "sweeps": whole("sweeps", _SWEEPS if sweeps is None else sweeps, 1),
        "max_bond": whole("bond_dim", given["bond_dim"], 1),
        "ridge": given["ridge"],
        "batch_size": min(samples, _MOST_SAMPLES) if batch is None else whole("batch_size", batch, 1),
        "validation": 0.0 if one_pass else given["validation_fraction"],
        "device": given["device"],
        **own,
    }
    if given["max_error"] is not None:
        chosen["max_error"] = given["max_error"]
    return SweepOptions(**chosen | ({"sweeps": 1} if one_pass else {}))


def damping(weights: float, samples: int) -> float:
    """How far a regressor mistrusts directions that the samples hardly show: 10 times weights per sample.

    Products of many features are such directions. They hold most of the weights of a chain, and where there
    are more weights than samples a least squares fit would learn the noise by them.

    Args:
        weights: that a local problem can have.
        samples: to train on.

    Example:
        >>> damping(8, 400), damping(1024, 400)
        (0.2, 10.0)
    """
    return min(_MOST_DAMPING, max(_LEAST_DAMPING, 10 * weights / samples))
