"""Compiles, exports and writes as ONNX every module of `module_cases.py`; prints what came of it as JSON.

An export is the first thing that this process does with a layer.
"""

import contextlib
import importlib.util
import io
import json
import sys
import tempfile
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
from module_cases import CASES, DROPPING, Case

from tnml.contraction.chain.loading import native_engine
from tnml.nn import MPSLayer

BATCH = ({0: torch.export.Dim("b")},)
ONNX = all(importlib.util.find_spec(name) for name in ("onnx", "onnxscript", "onnxruntime"))


def close(found: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def compiled(case: Case) -> None:
    """Before the first eager call, whole, for two sizes of a batch, with gradients and random numbers."""
    module, twin = case.make(), case.make()
    twin.load_state_dict(module.state_dict())
    program = torch.compile(twin, fullgraph=True, backend="aot_eager")
    for batch in (5, 3):
        torch.manual_seed(1)
        found = program(case.inputs(batch))
        torch.manual_seed(1)
        expected = module(case.inputs(batch))
        close(found, expected)
    found.square().sum().backward()
    expected.square().sum().backward()
    for one, other in zip(twin.parameters(), module.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-3, atol=1e-4)


def exported(case: Case, *, strict: bool = False) -> None:
    module = case.make()
    program = torch.export.export(module, (case.inputs(5),), dynamic_shapes=BATCH, strict=strict).module()
    for batch in (5, 2, 9):
        close(program(case.inputs(batch)), module(case.inputs(batch)))


def onnx(case: Case) -> None:
    import onnxruntime

    module = case.make()
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "module.onnx")
        torch.onnx.export(module, (case.inputs(5),), path, dynamo=True, dynamic_shapes=BATCH, verbose=False)
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (name,) = [given.name for given in session.get_inputs()]
    for batch in (5, 2, 9):
        (found,) = session.run(None, {name: case.inputs(batch).numpy()})
        close(torch.from_numpy(found), module(case.inputs(batch)))


def outcome(work: Callable[[], None]) -> str:
    torch.compiler.reset()
    try:
        work()
    except Exception:  # noqa: BLE001 (the test that asks shows it)
        return traceback.format_exc()
    return "the same"


def engine_after_export() -> str:
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="the native engine")
        torch.export.export(MPSLayer(9, 3).eval(), (torch.rand(2, 9),))
        return str(getattr(native_engine(), "__name__", "none"))


found: dict[str, str] = {}
with contextlib.redirect_stdout(io.StringIO()):
    found["native engine"] = engine_after_export()
    for name, case in CASES.items():
        found[f"{name}, exported"] = outcome(lambda case=case: exported(case))
        found[f"{name}, exported strictly"] = outcome(lambda case=case: exported(case, strict=True))
        if ONNX:
            found[f"{name}, onnx"] = outcome(lambda case=case: onnx(case))
    for name, case in {**CASES, **DROPPING}.items():
        found[f"{name}, compiled"] = outcome(lambda case=case: compiled(case))
print(json.dumps(found))
