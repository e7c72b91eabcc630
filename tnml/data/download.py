"""Where the files of the shipped sets lie, and how they are downloaded and verified."""

import errno
import hashlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from tnml.data import idx
from tnml.data.shipped import MIRRORS, RemoteFile, ShippedSet, shipped_set
from tnml.errors import InputError
from tnml.files import atomic_path, cache_folder, user_path

VARIABLE = "TNML_DATA"
TIMEOUT_SECONDS = 30  # without a byte from a mirror, before the next one is tried
DISK_ERRORS = ("ENOSPC", "EDQUOT", "EFBIG", "EROFS", "EACCES", "EPERM", "EIO")


def locate(name: str, parts: Sequence[str], cache: str | os.PathLike[str] | None = None) -> Path | None:
    """The folder that holds the named parts of a shipped set, or None.

    Looks in `$TNML_DATA/<name>`, then in the cache; a file in the cache whose size is not that of the
    original counts as absent.

    Args:
        name: a shipped set.
        parts: of "train" and "test".
        cache: instead of the user's cache.

    Raises:
        InputError: unknown name.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     locate("mnist", ["train", "test"], cache=folder) in (None, own_folder("mnist"))
        True
    """
    shipped = shipped_set(name)
    own = own_folder(name)
    if own is not None and all(idx.find_part(own, part) for part in parts):
        return own
    folder = cache_folder(cache) / name
    for part in parts:
        pair = idx.find_part(folder, part)
        if pair is None or not all(_whole(file, shipped) for file in pair):
            return None
    return folder


def own_folder(name: str) -> Path | None:
    """`$TNML_DATA/<name>`, or None where the variable is not set; the folder need not exist.

    Example:
        >>> own_folder("mnist") in (None, Path(os.environ.get("TNML_DATA", "")).expanduser() / "mnist")
        True
    """
    root = os.environ.get(VARIABLE)
    return user_path(root) / name if root else None


def fetch(
    name: str,
    *,
    cache: str | os.PathLike[str] | None = None,
    verify: bool = False,
    mirrors: Sequence[str] | None = None,
    report: Callable[[str], None] | None = None,
) -> Path:
    """The folder with all files of a shipped set, downloaded into the cache where they are missing.

    A download is checked by size and sha256 and appears under its name only when complete. A mirror that
    fails or sends wrong bytes is followed by the next. A set complete under `$TNML_DATA` is left alone.

    Args:
        name: "mnist" or "fashion-mnist".
        cache: folder to keep downloads in, instead of the user's cache.
        verify: also check the sha256 of files that are there; wrong ones in the cache are downloaded again.
        mirrors: base addresses to try, instead of `MIRRORS[name]`.
        report: called with one line for every download begun and every mirror that failed.

    Raises:
        InputError: unknown name, no mirror gave the right bytes (each is listed with its reason), the
            cache cannot be written, or a file under `$TNML_DATA` fails its check.

    Example:
        >>> fetch("digits")
        Traceback (most recent call last):
        tnml.errors.InputError: digits come with scikit-learn; there is nothing to download: use it as it is
    """
    shipped = shipped_set(name)
    own = own_folder(name)
    if own is not None and all(idx.find_part(own, part) for part in shipped.counts):
        if verify:
            _verify_own(own, shipped)
        return own
    folder = cache_folder(cache) / name
    addresses = MIRRORS.get(name, ()) if mirrors is None else mirrors
    for file in shipped.files:
        target = folder / file.name
        if not (_whole(target, shipped) and (not verify or _problem(target, file) is None)):
            _download(file, target, addresses, report or _silent)
    return folder


def _whole(path: Path, shipped: ShippedSet) -> bool:
    """Whether the file is there with its original size; unpacked copies have no recorded size."""
    sizes = {file.name: file.size for file in shipped.files}
    return path.is_file() and sizes.get(path.name, path.stat().st_size) == path.stat().st_size


def _problem(path: Path, file: RemoteFile) -> str | None:
    """What is wrong with a file that should be `file`, or None."""
    size = path.stat().st_size
    if size != file.size:
        return f"{size} bytes instead of {file.size}"
    with open(path, "rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    if digest == file.sha256:
        return None
    return f"wrong sha256 {digest[:12]}... instead of {file.sha256[:12]}..."


def _verify_own(folder: Path, shipped: ShippedSet) -> None:
    """Checks the originals in the user's folder; that folder is never written to."""
    for file in shipped.files:
        path = folder / file.name
        if not path.is_file():
            raise InputError(
                f"{folder} holds no {file.name}, so its sha256 cannot be checked; put the original file there"
            )
        if problem := _problem(path, file):
            raise InputError(f"{path} is not the original file: {problem}; replace or remove it")


def _download(file: RemoteFile, target: Path, mirrors: Sequence[str], report: Callable[[str], None]) -> None:
    """Puts `file` at `target` from the first mirror that has the right bytes."""
    tried = []
    for mirror in mirrors:
        url = f"{mirror.rstrip('/')}/{file.name}"
        report(f"downloading {url} ({file.size / 1e6:.1f} MB)")
        problem = _attempt(url, file, target)
        if problem is None:
            return
        tried.append(f"{url}: {problem}")
        report(f"failed: {tried[-1]}")
    raise InputError(
        f"{file.name} could not be downloaded; tried {'; '.join(tried) or 'no mirror, none is given'}. "
        f"Put the files into a folder {target.parent.name} and set {VARIABLE} to its parent, "
        "or give that folder, or use digits"
    )


def _attempt(url: str, file: RemoteFile, target: Path) -> str | None:
    """Downloads one address to `target`; the reason where that failed."""
    import pooch  # loaded when used: keeps `import tnml` quick

    get = pooch.HTTPDownloader(progressbar=False, timeout=TIMEOUT_SECONDS)
    try:
        with atomic_path(target) as temporary:
            get(url, str(temporary), None)
            if problem := _problem(temporary, file):
                raise _WrongBytesError(problem)
    except _WrongBytesError as error:
        return str(error)
    except OSError as error:  # what requests raises is an OSError without errno
        if errno.errorcode.get(error.errno or 0) in DISK_ERRORS:
            raise InputError(
                f"cannot write {target}: {error.strerror}; free some space or choose another cache folder"
            ) from error
        text = str(error)
        return text if len(text) <= 160 else f"{text[:157]}..."
    return None


class _WrongBytesError(Exception):
    """A download ended, but not with the expected bytes."""


def _silent(line: str) -> None:
    """Takes a line and discards it."""
