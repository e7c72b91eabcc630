"""Checkpoints: whole or absent, and nothing in them but tensors, numbers, texts, lists and dictionaries."""

import os
import pickle
import zipfile
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from tnml.errors import InputError
from tnml.files import atomic_path, no_space, user_path

FORMAT = 1

# Words of the errors that torch's zip writer raises for a failed write; every other RuntimeError is not ours.
_WRITER = ("PytorchStreamWriter", "inline_container", "basic_ios", "iostream", "unexpected pos")


def save(path: str | os.PathLike[str], state: Mapping[str, Any]) -> None:
    """Writes `state` to `path` atomically: after a crash at any moment the old or the new file is there.

    Args:
        path: by convention `checkpoint.pt` in the run's folder.
        state: tensors (any device), numbers, texts, booleans, None, and lists and dictionaries of them.

    Raises:
        InputError: the folder cannot be written to, or the disk is full.
        TypeError: something else is in `state`.

    Example:
        >>> import pathlib, tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save(pathlib.Path(folder) / "checkpoint.pt", {"epoch": 3, "weight": torch.ones(2)})
        ...     load(pathlib.Path(folder) / "checkpoint.pt")["epoch"]
        3
    """
    plain = {"format": FORMAT, "state": plain_copy(state)}
    with atomic_path(path) as temporary, no_space(path):
        try:
            torch.save(plain, temporary)
        except RuntimeError as error:
            if not any(word in str(error) for word in _WRITER):
                raise
            raise InputError(
                f"cannot write {path}: the disk may be full or the folder not writable; "
                "free some space or choose another folder"
            ) from error


def load(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The state that `save` wrote, its tensors on the CPU. Never runs code from the file.

    Raises:
        InputError: no such file, a truncated or damaged one, one that carries pickled objects, or another
            format.

    Example:
        >>> load("nowhere.pt")
        Traceback (most recent call last):
        tnml.errors.InputError: no checkpoint at nowhere.pt; check the path
    """
    source = user_path(path)
    if not source.is_file():
        raise InputError(f"no checkpoint at {source}; check the path")
    try:
        with zipfile.ZipFile(source) as archive:
            damaged = archive.testzip()
        if damaged is not None:
            raise zipfile.BadZipFile(f"bad checksum of {damaged}")
        stored = torch.load(source, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise InputError(
            f"{source} holds something other than tensors, numbers and texts, and was not loaded: "
            "running code from a file is never needed here; delete it or get a checkpoint you can trust"
        ) from error
    except (zipfile.BadZipFile, OSError, EOFError, RuntimeError, ValueError, KeyError) as error:
        raise InputError(
            f"{source} is not a readable checkpoint ({error}); it is damaged: start the run again"
        ) from error
    if not isinstance(stored, dict) or not isinstance(stored.get("state"), dict):
        raise InputError(f"{source} is not a tnml checkpoint; expected a file written by a tnml training run")
    if stored.get("format") != FORMAT:
        raise InputError(
            f"{source} has format {stored.get('format')!r}, this tnml reads {FORMAT}; start the run again"
        )
    return dict(stored["state"])


def plain_copy(value: Any) -> Any:
    """A copy of `value` with every tensor detached, on the CPU and with memory of its own.

    Raises:
        TypeError: `value` holds anything but tensors, numbers, texts, booleans, None, lists, tuples and
            dictionaries.

    Example:
        >>> plain_copy({"a": (1, 2.0)})
        {'a': [1, 2.0]}
    """
    if isinstance(value, Tensor):
        return value.detach().to("cpu", copy=True).contiguous()
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list | tuple):
        return [plain_copy(item) for item in value]
    if isinstance(value, Mapping):
        return {key: plain_copy(item) for key, item in value.items()}
    raise TypeError(
        f"a checkpoint holds tensors, numbers, texts, lists and dictionaries, got {type(value).__name__}"
    )
