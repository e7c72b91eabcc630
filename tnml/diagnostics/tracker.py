"""Spectra and norms over the course of training, a row per epoch."""

from collections.abc import Mapping
from typing import Any

from torch import nn

from tnml.diagnostics.spectra import networks_in, schmidt
from tnml.errors import InputError


class Tracker:
    """Keeps the Schmidt spectra and the norms of all tensor network layers of a model, a row per call.

    A row has, for every layer (its name and a dot in front where the model is not the layer itself):
    "log_norm", "log_norm_growth" (since the first row), "entropy_mean", "entropy_max",
    "effective_bond_mean" and "effective_bond_max" over the bonds. Give it to `callbacks=` of any training and
    these numbers join the history; a resumed run continues its list. With several processes only rank 0 keeps
    rows.

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

    def __call__(
        self, model: nn.Module, optimizer: object = None, row: Mapping[str, float] | None = None
    ) -> dict[str, float]:
        """The row of the model as it is now.

        Args:
            model: with tensor network layers.
            optimizer: ignored; every callback is given it.
            row: of the history, whose "epoch" or "sweep" is recorded; None counts the calls.

        Cost: n d chi^3 for every chain.

        Raises:
            InputError: the model has no tensor network layer, or one is zero or not finite.
        """
        count = len(self.history) + 1
        row = row or {}
        return self.on_epoch_end(model, optimizer, int(row.get("epoch", row.get("sweep", count))))

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {"history": self.history, "first": self._first}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores what `state_dict` returned."""
        self.history, self._first = list(state["history"]), dict(state["first"])

    def on_epoch_end(self, model: nn.Module, optimizer: object, epoch: int) -> dict[str, float]:
        """The same for an epoch counted by the caller; `optimizer` is ignored."""
        del optimizer
        layers = networks_in(model)
        if not layers:
            raise InputError(
                f"a Tracker follows tensor network layers, such as MPSLayer; {type(model).__name__} has none"
            )
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
