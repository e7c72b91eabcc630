"""Files that are never half written, and the one-file model format (safetensors with JSON metadata)."""

import json
import os
import secrets
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from tnml.errors import InputError
from tnml.version import __version__

FORMAT = 1
"""Version of the model format that this tnml writes; it reads this one and all earlier ones."""

METADATA_KEY = "tnml"
COMPLEX_KEY = "tnml.complex"  # names of complex tensors, kept as pairs of real numbers
CHECKSUM_KEY = "tnml.crc32"  # of all tensors as they are in the file


def user_path(path: str | os.PathLike[str]) -> Path:
    """A path that a user gave, with a leading "~" as the user's folder, as a shell reads it.

    Every public function that takes a path begins with it. A "~name" without such a user stays as it is.

    Example:
        >>> user_path("~/m.safetensors") == Path.home() / "m.safetensors", user_path("a~b").name
        (True, 'a~b')
    """
    return Path(os.path.expanduser(path))  # noqa: PTH111 (pathlib's raises where there is no such user)


@contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A temporary path beside `path`; when the block succeeds it is flushed to disk and renamed to `path`.

    A reader sees the old file or the whole new one, never a part, even after a crash at any moment.
    On an error the temporary file is removed and `path` is left as it was.

    Raises:
        InputError: the folder cannot be made or written to.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with atomic_path(Path(folder) / "a.txt") as temporary:
        ...         _ = temporary.write_text("whole")
        ...     (Path(folder) / "a.txt").read_text()
        'whole'
    """
    final = user_path(path)
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        temporary = final.parent / f".{final.name}.{secrets.token_hex(8)}.tmp"
        handle = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o666)  # less the user's umask
    except OSError as error:
        raise InputError(
            f"cannot write {final}: {error.strerror or error}; choose a folder you can write to"
        ) from error
    os.close(handle)
    try:
        yield temporary
        with no_space(final):
            _publish(temporary, final)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _publish(temporary: Path, final: Path) -> None:
    """Flushes the temporary file, renames it and flushes the folder entry."""
    with open(temporary, "rb") as stream:
        os.fsync(stream.fileno())
    os.replace(temporary, final)
    if hasattr(os, "O_DIRECTORY"):
        folder = os.open(final.parent, os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Writes `text` to `path` in UTF-8 through `atomic_path`.

    Raises:
        InputError: the folder cannot be written to, or the disk is full.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_text(Path(folder) / "note.txt", "chi = 4")
        ...     (Path(folder) / "note.txt").read_text()
        'chi = 4'
    """
    with atomic_path(path) as temporary, no_space(path):
        temporary.write_text(text, encoding="utf-8")


def cache_folder(cache: str | os.PathLike[str] | None = None) -> Path:
    """The folder for what can be recreated (downloads, measured rates): `cache`, or the user's for tnml.

    Example:
        >>> cache_folder("mine").name
        'mine'
    """
    if cache is not None:
        return user_path(cache)
    import pooch  # loaded when used: keeps `import tnml` quick

    return Path(pooch.os_cache("tnml"))


@contextmanager
def no_space(path: str | os.PathLike[str]) -> Iterator[None]:
    """Turns a failed write inside the block (full disk, file-size limit) into one clear `InputError`.

    Example:
        >>> with no_space("model.safetensors"):
        ...     raise OSError(28, "No space left on device")
        Traceback (most recent call last):
        tnml.errors.InputError: cannot write model.safetensors: No space left on device; free some space ...
    """
    try:
        yield
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(
            f"cannot write {path}: {reason}; free some space or choose another folder"
        ) from error


def write_model(
    path: str | os.PathLike[str], tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]
) -> None:
    """Writes one safetensors file: the tensors, and `metadata` as JSON in the file's header.

    The version of tnml that wrote the file stands beside the metadata, as "tnml".

    Args:
        path: where to write; by convention it ends in `.safetensors`.
        tensors: names and tensors of any shape and dtype; copied to the CPU.
        metadata: anything `json.dumps` takes; a "tnml" in it is replaced by this version.

    Raises:
        InputError: the file cannot be written.

    Example:
        >>> import tempfile, torch
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_model(Path(folder) / "m.safetensors", {"w": torch.ones(2)}, {"kind": "layer"})
        ...     read_model(Path(folder) / "m.safetensors")
        ({'w': tensor([1., 1.])}, {'kind': 'layer', 'tnml': '...'})
    """
    complex_names = sorted(name for name, tensor in tensors.items() if tensor.is_complex())
    plain = {
        name: (torch.view_as_real(tensor.resolve_conj()) if tensor.is_complex() else tensor)
        .detach()
        .cpu()
        .contiguous()
        for name, tensor in tensors.items()
    }
    header = {
        METADATA_KEY: json.dumps({**metadata, "tnml": __version__}),
        COMPLEX_KEY: json.dumps(complex_names),
        CHECKSUM_KEY: str(_checksum(plain)),
    }
    with atomic_path(path) as temporary, no_space(path):
        save_file(plain, temporary, metadata=header)


def _checksum(tensors: Mapping[str, Tensor]) -> int:
    """One number from the bytes of all tensors, in the order of their names."""
    total = 0
    for name in sorted(tensors):
        total = zlib.crc32(tensors[name].reshape(-1).view(torch.uint8).numpy().data, total)
    return total


def read_model(path: str | os.PathLike[str]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors and the metadata of a file made by `write_model`; nothing is ever unpickled.

    Raises:
        InputError: no such file, a damaged one, or one without tnml's metadata.

    Example:
        >>> read_model("nowhere.safetensors")
        Traceback (most recent call last):
        tnml.errors.InputError: no model file at nowhere.safetensors; check the path
    """
    source = user_path(path)
    if not source.is_file():
        raise InputError(f"no model file at {source}; check the path")
    try:
        with safe_open(source, framework="pt") as stored:
            header = stored.metadata() or {}
            tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118 (not a dict)
        metadata = json.loads(header[METADATA_KEY]) if METADATA_KEY in header else None
        complex_names = json.loads(header.get(COMPLEX_KEY, "[]"))
        whole = header.get(CHECKSUM_KEY) in (None, str(_checksum(tensors)))
        tensors |= {name: torch.view_as_complex(tensors[name]) for name in complex_names}
    except (SafetensorError, LookupError, OSError, RuntimeError, TypeError, ValueError) as error:
        raise InputError(
            f"{source} is not a readable safetensors file ({error}); it may be damaged: save the model again"
        ) from error
    if not whole:
        raise InputError(
            f"{source} is damaged: its tensors are not those that were saved; save the model again"
        )
    if not isinstance(metadata, dict):
        raise InputError(f"{source} holds no tnml metadata; expected a file written by tnml's `save`")
    return tensors, metadata
