"""Object code of the native engine: loaded into the process, and kept on disk between processes.

LLVM compiles a kernel in milliseconds, numba all workers in seconds, and every process on a machine gets the
same code. Kept as object code it is loaded in a fraction of a millisecond, and numba need not be imported.
"""

import functools
import hashlib
import os
import secrets
import sysconfig
import zlib
from collections.abc import Sequence
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import llvmlite.binding as llvm

from tnml.files import cache_folder

_IDLE = ("NUMBA_CACHE_DIR", "NUMBA_NUM_THREADS", "NUMBA_THREADING_LAYER")  # change no code
_alive: list[object] = []  # keeps loaded code in memory


@functools.cache
def _target() -> llvm.Target:
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    return llvm.Target.from_default_triple()


def target_machine() -> llvm.TargetMachine:
    """LLVM's view of this processor, at its highest level of optimisation."""
    return _target().create_target_machine(
        cpu=llvm.get_host_cpu_name(), features=llvm.get_host_cpu_features().flatten(), opt=3
    )


def optimise(module: llvm.ModuleRef) -> None:
    """Optimises LLVM's code of a module for this processor, in place."""
    options = llvm.create_pipeline_tuning_options(speed_level=2)
    passes = llvm.create_pass_builder(target_machine(), options)
    passes.getModulePassManager().run(module, passes)


def load_object(code: bytes, symbol: str) -> int:
    """The address of a function of some object code, which stays in memory until the process ends.

    Args:
        code: for this processor, using nothing but the C library's memory functions.
        symbol: the function's name.

    Raises:
        OSError: there is no such function.
    """
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), target_machine())
    file = llvm.ObjectFileRef.from_data(code)
    engine.add_object_file(file)
    engine.finalize_object()
    _alive.extend((engine, file))
    address = int(engine.get_function_address(symbol))
    if not address:
        raise OSError(f"the object code has no function {symbol}")
    return address


class ObjectStore:
    """Object code on disk, by name; code from other sources or for another processor is never found.

    If nothing can be written, it stays empty.

    Args:
        kind: the first part of the names of its files.
        sources: files that the code is made from.
        packages: whose versions matter besides llvmlite's.

    Example:
        >>> ObjectStore("none", []).read("nothing") is None
        True
    """

    def __init__(self, kind: str, sources: Sequence[str | Path], packages: Sequence[str] = ()) -> None:
        key = hashlib.sha256()
        for source in sources:
            key.update(Path(source).read_bytes())
        settings = [
            f"{k}={v}" for k, v in sorted(os.environ.items()) if k.startswith("NUMBA_") and k not in _IDLE
        ]
        versions = [_version(name) for name in ("llvmlite", *packages)]
        processor = [llvm.get_host_cpu_name(), llvm.get_host_cpu_features().flatten()]
        key.update("\n".join([*settings, *versions, *processor, sysconfig.get_platform()]).encode())
        self._start = f"{kind}-{key.hexdigest()[:20]}-"

    def read(self, name: str) -> bytes | None:
        """The code that was written under a name; None if there is none, or if it is damaged."""
        try:
            content = (_folder() / f"{self._start}{name}.o").read_bytes()
        except OSError:
            return None
        whole = content[:4] == zlib.crc32(content[4:]).to_bytes(4, "big")
        return content[4:] if whole else None

    def write(self, name: str, code: bytes) -> bytes:
        """The code itself, which is written if possible: whole, or not at all."""
        final = _folder() / f"{self._start}{name}.o"
        temporary = final.with_name(f".{name}.{secrets.token_hex(8)}.tmp")
        try:
            final.parent.mkdir(parents=True, exist_ok=True)
            temporary.write_bytes(zlib.crc32(code).to_bytes(4, "big") + code)
            temporary.replace(final)
        except OSError:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
        return code


def _version(package: str) -> str:
    try:
        return f"{package} {version(package)}"
    except PackageNotFoundError:
        return package


def _folder() -> Path:
    """Where numba would keep compiled code: its configured folder, one next to this module, or the user's."""
    told = os.environ.get("NUMBA_CACHE_DIR")
    if told:
        return Path(told)
    here = Path(__file__).parent / "__pycache__"
    return here if os.access(here if here.exists() else here.parent, os.W_OK) else cache_folder() / "code"
