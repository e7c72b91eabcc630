"""Sites in an order, and the state dict of a module that has whole numbers besides parameters."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self, final

import torch
from torch import Tensor, nn

from tnml.features import site_order
from tnml.nn.entry import on_the_cpu, placed
from tnml.torch_private import holds_numbers


class OrderedModule(nn.Module):
    """A module whose sites stand in an order; whole numbers in its state are safe from averages of weights.

    Averages of weights average parameters and buffers, integers included, and some do so in the tensors of a
    state dict. A site order is then no longer a permutation. So whole numbers are plain attributes here, a
    state dict holds copies of them, and loading refuses an order that is not a permutation.

    Args:
        n_sites: number of sites n.
        order: a name or a permutation; see `tnml.features.site_order`.
        shape: `(height, width)` of the image behind the sites.

    Raises:
        InputError: the order does not fit.

    Example:
        >>> module = OrderedModule(4, "snake", (2, 2))
        >>> dict(module.state_dict())
        {'order': tensor([0, 1, 3, 2])}
        >>> list(module.buffers())
        []
    """

    order: Tensor

    def __init__(self, n_sites: int, order: str | Sequence[int], shape: tuple[int, int] | None) -> None:
        super().__init__()
        with on_the_cpu():
            sites = site_order(order, shape, n_sites)
        self._arguments: dict[str, Any] = {
            "order": order if isinstance(order, str) else sites.tolist(),
            "shape": shape if shape is None else tuple(map(int, shape)),
        }
        self._take_order(sites)

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Also reads modules pickled by earlier versions, whose whole numbers were buffers."""
        buffers = dict(state.get("_buffers", {}))
        numbers = {name: buffers.pop(name) for name in ("order", "layout") if name in buffers}
        super().__setstate__({**state, "_buffers": buffers})  # type: ignore[no-untyped-call]
        for name, value in numbers.items():
            setattr(self, name, value)
        if "order" in numbers:
            self._take_order(self.order.cpu())

    def whole_state(self) -> dict[str, Tensor]:
        """The whole numbers that a state dict holds besides parameters and buffers, by name.

        A network with sizes of its own adds them here and reads them in `adopt_`.

        Example:
            >>> from tnml.nn import MPSLayer
            >>> list(MPSLayer(4, 2).whole_state())
            ['order', 'layout']
        """
        return {"order": self.order}

    def adopt_(self, state: Mapping[str, Any], prefix: str) -> None:
        """Adopts the sizes of a state before it is loaded; does nothing if sizes are fixed.

        Args:
            state: a state dict, perhaps incomplete or of another network: torch then raises afterwards.
            prefix: of this layer's names in it.
        """

    @final
    def in_order(self, x: Tensor, axis: int) -> Tensor:
        """`x` with the entries of an axis in the order of the sites.

        Example:
            >>> OrderedModule(4, "snake", (2, 2)).in_order(torch.arange(4.0), 0)
            tensor([0., 1., 3., 2.])
        """
        return x if self._as_given else x.index_select(axis, self.order.to(x.device))

    @final
    def _take_order(self, sites: Tensor) -> None:
        """Adopts an order `[n]` on the CPU."""
        with on_the_cpu():
            self._as_given = torch.equal(sites, torch.arange(len(sites)))
        self.order = placed(sites, self._place())

    @final
    def _place(self) -> torch.device:
        """The device of the parameters; the CPU if that is "meta", as an order always holds numbers."""
        device = next((p.device for p in self.parameters()), torch.get_default_device())
        return torch.device("cpu") if device.type == "meta" else device

    @final
    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self.order = self.order.to(self._place())
        return self

    @final
    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        """Parameters, copies of the whole numbers, buffers: the order of the names in earlier files."""
        super()._save_to_state_dict(destination, prefix, keep_vars)
        buffers = [prefix + name for name in self._buffers if prefix + name in destination]
        last = {name: destination.pop(name) for name in buffers}
        destination.update({prefix + name: value.clone() for name, value in self.whole_state().items()})
        destination.update(last)

    @final
    def _load_from_state_dict(
        self,
        state_dict: Mapping[str, Any],
        prefix: str,
        local_metadata: Mapping[str, Any],
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        """Adopts sizes and order from the state, so that a saved state loads into a fresh layer."""
        self.adopt_(state_dict, prefix)
        own = {prefix + name: value for name, value in self.whole_state().items()}
        for name, mine in own.items():
            given = state_dict.get(name)
            if not isinstance(given, Tensor):
                missing_keys += [name] if strict else []
            elif given.shape != mine.shape:
                error_msgs.append(
                    f"size mismatch for {name}: copying {list(given.shape)} into {list(mine.shape)}."
                )
            else:
                error_msgs += self._adopted(name, whole_numbers(given), mine)
        rest = {name: value for name, value in state_dict.items() if name not in own}
        super()._load_from_state_dict(
            rest, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs
        )

    def _adopted(self, name: str, numbers: list[int] | None, mine: Tensor) -> list[str]:
        """Adopts an order; reports one that is not a permutation, and sizes that `adopt_` did not take."""
        if numbers is None or not holds_numbers(mine) or numbers == mine.tolist():
            return []
        advice = "whole numbers of a state dict must not be averaged; keep those of the layer."
        if not name.endswith("order"):
            return [f"{name} does not belong to the other tensors; {advice}"]
        if sorted(numbers) != list(range(len(mine))):
            return [f"{name} is not a permutation of 0..{len(mine) - 1}; {advice}"]
        with on_the_cpu():
            self._take_order(torch.tensor(numbers))
        self._arguments["order"] = numbers
        return []


def whole_numbers(tensor: Tensor) -> list[int] | None:
    """The entries of a vector as integers, rounded if an average made floats of them; None if there are none.

    Example:
        >>> whole_numbers(torch.tensor([3.0, 1.9999])), whole_numbers(torch.ones(1, device="meta"))
        ([3, 2], None)
    """
    return [round(value) for value in tensor.tolist()] if holds_numbers(tensor) else None
