"""The workers of the native engine as functions: from object code on disk, else compiled by numba, once."""

import ctypes
import functools
import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import llvmlite.binding as llvm

from tnml.contraction.chain.objects import ObjectStore, load_object, optimise, target_machine

_SIGNATURE = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
_SOURCES = ("driver", "step_driver", "machine_code", "slots", "step_slots", "reference", "workers", "objects")
_HARMLESS = {"memset", "memcpy", "memmove"}  # of the C library, which every process has


class Worker(NamedTuple):
    """One function of `driver` or `step_driver` as machine code.

    Attributes:
        address: where it is.
        call: calls it with the address of a parameter vector, without Python's lock.
    """

    address: int
    call: Callable[[Any], None]


@functools.cache
def worker(name: str) -> Worker:
    """A worker of `driver` or `step_driver` by its name; numba is imported only if its code is not on disk.

    Example:
        >>> worker("forward_worker").address > 0
        True
    """
    store = _store()
    code = store.read(name)
    address = _compiled(name, store) if code is None else load_object(code, name)
    return Worker(address, _SIGNATURE(address))


@functools.cache
def _store() -> ObjectStore:
    """The code kept on disk; it is of all files that workers are made from, and of those that make it."""
    folder = Path(__file__).parent
    return ObjectStore("workers", [folder / f"{name}.py" for name in _SOURCES], ["numba"])


def _compiled(name: str, store: ObjectStore) -> int:
    """The address of a worker that numba compiles now; its code is kept for the next process."""
    if name == "steps_worker":
        found = importlib.import_module("tnml.contraction.chain.step_driver").__dict__[name]
    else:
        found = importlib.import_module("tnml.contraction.chain.driver").__dict__[name]
    module = llvm.parse_assembly(found.inspect_llvm())
    for function in module.functions:
        if not function.is_declaration:
            function.linkage = "external" if function.name == found.native_name else "internal"
    module.get_function(found.native_name).name = name
    optimise(module)  # what handles exceptions that nothing raises is left out, and numba's help with it
    needed = {f.name for f in module.functions if f.is_declaration and not f.name.startswith("llvm.")}
    if not needed <= _HARMLESS:
        return int(found.address)
    return load_object(store.write(name, target_machine().emit_object(module)), name)
