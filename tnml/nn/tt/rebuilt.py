"""A matrix that is rebuilt from other tensors at every access: reading it is fine, writing to it raises."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from torch import Tensor

from tnml.contraction.transforms import traced, transformed
from tnml.errors import InputError
from tnml.torch_private import as_plain_tensors


class Rebuilt(Tensor):
    """A tensor that nobody keeps, so that a change in place would be lost.

    What shares its memory, such as `.data` or a row, is one, too; everything else that is computed from it is
    an ordinary tensor.

    Example:
        >>> import torch
        >>> w = rebuilt(torch.ones(2, 2))
        >>> type(w + 1).__name__, type(w[0]).__name__, type(w.clone()).__name__
        ('Tensor', 'Rebuilt', 'Tensor')
        >>> w.zero_()
        Traceback (most recent call last):
        tnml.errors.InputError: this matrix is rebuilt from its cores at every access, and zero_ would ...
    """

    @classmethod
    def __torch_function__(
        cls,
        func: Callable[..., Any],
        types: Iterable[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Calls `func` on ordinary tensors, unless it writes."""
        del types
        named = dict(kwargs or {})
        written = named.get("out", args[0] if args else named.get("tensor", named.get("input")))
        if any(isinstance(tensor, cls) for tensor in _flat(written)) and _writes(func, named):
            raise InputError(
                f"this matrix is rebuilt from its cores at every access, and {func.__name__} would change a "
                "copy that is lost; change `cores`, or make a layer of a matrix by from_linear or "
                "from_embedding; clone() is a matrix of your own"
            )
        with as_plain_tensors():
            plain = [_plain(value) for value in args]
            found = func(*plain, **{name: _plain(value) for name, value in named.items()})
            memory = {t.untyped_storage().data_ptr() for value in plain for t in _flat(value)}
            return _shared(found, memory)


def rebuilt(tensor: Tensor) -> Tensor:
    """The tensor as one that refuses to be written to, except where PyTorch transforms or traces the call.

    Example:
        >>> import torch
        >>> rebuilt(torch.ones(1)).sum().item()
        1.0
    """
    return tensor if traced() or transformed(tensor) else tensor.as_subclass(Rebuilt)


def _writes(func: Callable[..., Any], named: Mapping[str, Any]) -> bool:
    name = func.__name__
    in_place = name.endswith("_") and not name.endswith("__")
    return "out" in named or in_place or name in ("__setitem__", "__set__") or name in _AUGMENTED


_AUGMENTED = {f"__i{name}__" for name in ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "matmul",
                                           "and", "or", "xor", "lshift", "rshift", "div")}  # fmt: skip


def _flat(value: object) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    return [t for t in value if isinstance(t, Tensor)] if isinstance(value, list | tuple) else []


def _plain(value: Any) -> Any:
    if isinstance(value, Rebuilt):
        return value.as_subclass(Tensor)
    return type(value)(map(_plain, value)) if type(value) in (list, tuple) else value


def _shared(found: Any, memory: set[int]) -> Any:
    """Views of the matrix are as untouchable as it is."""
    if type(found) is Tensor and not found.is_meta and found.untyped_storage().data_ptr() in memory:
        return found.as_subclass(Rebuilt)
    return type(found)(_shared(part, memory) for part in found) if type(found) in (list, tuple) else found
