"""Spectra and norms along a training, a row per epoch."""

from typing import Any

from torch import nn

from tnml.diagnostics.spectra import mps_layers, schmidt
from tnml.errors import InputError


class Tracker:
    """Keeps the Schmidt spectra and the norms of all `MPSLayer`s of a model, a row per call.

    A row has, for every layer (its name and a dot in front where the model is not the layer itself):
    "log_norm", "log_norm_growth" (since the first row), "entropy_mean", "entropy_max",
    "effective_bond_mean" and "effective_bond_max" over the bonds. Give it as `evaluate` to
    `tnml.training.run` and these numbers join the history, or call it from `on_epoch`. With several
    processes only the rank that evaluates keeps rows, and a resumed run starts a new list.

    Args:
        spectra: also keep the Schmidt values themselves, in `history` only.

    Example:
        >>> from tnml.nn import MPSLayer
        >>> tracker = Tracker()
        >>> row = tracker(MPSLayer(6, 2, bond_dim=3))
        >>> row["log_norm_growth"], [len(values) for values in tracker.history[0]["schmidt"]]
        (0.0, [2, 3, 3, 3, 3, 2])
    """

    def __init__(self, *, spectra: bool = True) -> None:
        self.spectra = spectra
        self.history: list[dict[str, Any]] = []
        """Plain numbers, strings and lists, ready for JSON: "epoch" (from 1), the row's numbers, and under
        "schmidt" a list of Schmidt values for every bond."""
        self._first: dict[str, float] = {}

    def __call__(self, model: nn.Module) -> dict[str, float]:
        """The row of the model as it is now.

        Cost: n d chi^3 for every layer.

        Raises:
            InputError: the model has no `MPSLayer`, or one is zero or not finite.
        """
        return self.on_epoch_end(model, None, len(self.history) + 1)

    def on_epoch_end(self, model: nn.Module, optimizer: object, epoch: int) -> dict[str, float]:
        """The same in the form of a callback; `optimizer` is not read."""
        del optimizer
        layers = mps_layers(model)
        if not layers:
            raise InputError(f"a Tracker follows MPSLayers, and {type(model).__name__} has none")
        row: dict[str, float] = {}
        kept: dict[str, list[list[float]]] = {}
        for name, layer in layers.items():
            start = f"{name}." if name else ""
            found = schmidt(layer)
            growth = found.log_norm - self._first.setdefault(name, found.log_norm)
            row[f"{start}log_norm"], row[f"{start}log_norm_growth"] = found.log_norm, growth
            for what, values in (
                ("entropy", found.entropies),
                ("effective_bond", found.effective_bond_dims),
            ):
                row[f"{start}{what}_mean"] = float(values.mean())
                row[f"{start}{what}_max"] = float(values.max())
            kept[f"{start}schmidt"] = [values.tolist() for values in found.values]
        self.history.append({"epoch": epoch, **row, **(kept if self.spectra else {})})
        return row
