"""A fitted layer, adapted to parameters that were changed, before it is trained further."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from tnml.errors import InputError
from tnml.nn import TensorNetworkLayer
from tnml.nn.layer import Growable


def following(
    layer: TensorNetworkLayer, before: Mapping[str, Any], now: Mapping[str, Any], *, swept: bool, seed: int
) -> TensorNetworkLayer:
    """The layer, or a copy with larger bonds if `bond_dim` has grown.

    Args:
        layer: the fitted layer.
        before: the parameters that it was made with.
        now: the present values of the same parameters.
        swept: whether it is trained by sweeps next, which grow and cut bonds themselves.
        seed: of the noise on new weights.

    Raises:
        InputError: something else has changed.

    Example:
        >>> from tnml.nn import MPSLayer
        >>> before, now = {"bond_dim": 2, "noise": None}, {"bond_dim": 4, "noise": None}
        >>> max(following(MPSLayer(6, 2, 2), before, now, swept=False, seed=0).bond_dims)
        4
    """
    names = changed(before, now)
    wider = not swept and "bond_dim" in names
    for name in names:
        if name != "bond_dim" and not (name == "noise" and wider):
            raise InputError(
                f"{name} was {before[name]!r} when this model was made, and further training cannot "
                f"change it to {now[name]!r}; set it back, or fit with warm_start=False"
            )
    if not wider:
        return layer
    was, wanted = before["bond_dim"], now["bond_dim"]
    if wanted < was:
        raise InputError(
            f"bond_dim was {was} when this model was made, and further training cannot lower it to {wanted}; "
            f"use compressed(max_bond={wanted}), or fit with warm_start=False"
        )
    if not isinstance(layer, Growable):
        raise InputError(
            f"bond_dim was {was} when this model was made, and the network {layer.network!r} cannot grow to "
            f"{wanted}; set it back, or fit with warm_start=False"
        )
    return layer.grown(wanted, noise=now["noise"], seed=seed).eval()


def changed(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """The names whose values differ.

    Example:
        >>> changed({"order": [1, 0], "features": "linear"}, {"order": np.array([1, 0]), "features": "rbf"})
        ['features']
    """
    pairs = {name: (before[name], value) for name, value in now.items()}
    return [name for name, (a, b) in pairs.items() if not (a is b or np.array_equal(a, b))]
