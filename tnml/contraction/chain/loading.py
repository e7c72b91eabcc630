"""Loads the native engine on first use; on a new machine it is compiled, once."""

import builtins
import functools
import importlib
import logging
import math
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

from tnml.contraction.transforms import traced

_REPLACED = ((builtins, "max", max), (builtins, "min", min), (math, "pow", math.pow))  # by torch.export
ANNOUNCE_AFTER = 1.5  # seconds of compiling before a message says so


def native_engine() -> ModuleType | None:
    """The compiled native engine; None, after one warning, where numba cannot be used.

    The first call after installation compiles for a few seconds and says so; the result is kept on disk.
    A failure is remembered, except where PyTorch traces the call: tracing may be what made it fail.

    Example:
        >>> module = native_engine()
        >>> module is None or module.__name__
        'tnml.contraction.chain.native'
    """
    known = _loaded_once.cache_info().currsize > 0
    return _loaded_once() if known or not traced() else _engine()


def _engine() -> ModuleType | None:
    return _load(lambda: importlib.import_module("tnml.contraction.chain.native"))


def _load(importing: Callable[[], ModuleType]) -> ModuleType | None:
    try:
        with _own_functions(), _note_of_compiling():
            return importing()
    except Exception as error:  # noqa: BLE001 (numba and LLVM fail in many ways; the torch engine is left)
        warnings.warn(
            f"the native engine is not available ({type(error).__name__}: {error}); using the torch engine, "
            "which is slower on the CPU. Is numba installed and its cache folder writable?",
            RuntimeWarning,
            stacklevel=4,
        )
        return None


@contextmanager
def _note_of_compiling() -> Iterator[None]:
    """Says that numba compiles, where that takes a while; reading its cache does not count, however slow."""
    events: Any = importlib.import_module("numba.core.event")
    timer = threading.Timer(ANNOUNCE_AFTER, _announce)
    timer.daemon = True

    class Compiling(events.Listener):  # type: ignore[misc]  # numba has no types
        def on_start(self, event: object) -> None:
            if timer.ident is None:
                timer.start()

        def on_end(self, event: object) -> None:
            """Nothing: one function after the other is compiled."""

    try:
        with events.install_listener("numba:compile", Compiling()):  # not sent for what the cache holds
            yield
    finally:
        timer.cancel()


@contextmanager
def _own_functions() -> Iterator[None]:
    """Python's own functions for a while: torch.export replaces them, and numba compiles them by name."""
    replaced = [(module, name, getattr(module, name)) for module, name, _ in _REPLACED]
    try:
        for module, name, function in _REPLACED:
            setattr(module, name, function)
        yield
    finally:
        for module, name, function in replaced:
            setattr(module, name, function)


_loaded_once = functools.cache(_engine)


@functools.cache
def native_steps() -> ModuleType | None:
    """The module of whole training steps; None, after one warning, where the native engine cannot be used.

    Example:
        >>> module = native_steps()
        >>> module is None or module.__name__
        'tnml.contraction.chain.native_steps'
    """
    if native_engine() is None:
        return None
    return _load(lambda: importlib.import_module("tnml.contraction.chain.native_steps"))


def _announce() -> None:
    logging.getLogger("tnml").warning("tnml: compiling the native engine, once, about 10 seconds")
