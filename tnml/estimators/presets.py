"""The candidates of the estimators' presets, the most flexible one first.

They were chosen on the sets of `python -m benchmarks tables` that are for choosing, with splits of their own.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from tnml.estimators.solvers import usual_batch
from tnml.training.batches import batch_count

_MOST_EPOCHS = 200


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """Parameters to be tried.

    Args:
        steps: of the optimiser, at least.
        epochs: at least.
        parameters: of the estimator, by name; `steps` and `epochs` give one more.

    Example:
        >>> Candidate(steps=100, epochs=2, parameters={"bond_dim": 4}).parameters_for(320, None)
        {'bond_dim': 4, 'epochs': 10}
    """

    steps: int
    epochs: int
    parameters: Mapping[str, Any] = field(default_factory=dict)

    def parameters_for(self, samples: int, batch_size: Any) -> dict[str, Any]:
        """All parameters for a number of samples and the estimator's `batch_size`."""
        each = batch_count(samples, usual_batch(batch_size, samples))
        epochs = min(_MOST_EPOCHS, max(self.epochs, math.ceil(self.steps / each)))
        return {**self.parameters, "epochs": epochs}


def _hats(dim: int, levels: int, scale: str) -> dict[str, Any]:
    return {"name": "auto", "map": "hat", "dim": dim, "levels": levels, "scale": scale}


_COMMON: Mapping[str, Any] = {
    "order": "raster",
    "optimizer": "adamw",
    "decay_to": "path",
    "member_orders": "random",
}


def _candidate(
    steps: int, epochs: int, bond_dim: int, decay: float, features: Any, *, members: int
) -> Candidate:
    own = {"bond_dim": bond_dim, "weight_decay": decay, "features": features, "n_estimators": members}
    return Candidate(steps=steps, epochs=epochs, parameters={**_COMMON, **own})


PRESETS: Mapping[str, Mapping[str, tuple[Candidate, ...]]] = MappingProxyType(
    {
        "tables": {
            "classification": (
                _candidate(400, 6, 8, 0.3, _hats(8, 16, "quantile"), members=3),
                _candidate(400, 6, 8, 2.0, _hats(8, 16, "quantile"), members=3),
                _candidate(250, 5, 4, 3.0, _hats(8, 16, "quantile"), members=3),
                _candidate(300, 5, 4, 3.0, _hats(2, 0, "range"), members=3),
            ),
            "regression": (
                _candidate(500, 8, 8, 0.3, _hats(8, 8, "range"), members=4),
                _candidate(500, 8, 8, 1.0, _hats(5, 5, "range"), members=4),
                _candidate(500, 8, 8, 1.0, _hats(2, 0, "range"), members=4),
            ),
        }
    }
)
"""For each preset and task the candidates."""
