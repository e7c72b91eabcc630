"""Every public module with what PyTorch does to modules: one table of modules times a list of questions.

Compiling, exporting and ONNX run in one process for all modules, see `programs/traced_modules.py`.
"""

import copy
import inspect
import json
import pickle
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from children import complete, environment
from module_cases import CASES, DROPPING
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.optim.swa_utils import AveragedModel, get_ema_avg_fn

import tnml.nn
from tnml.errors import InputError
from tnml.nn import NETWORKS

PARTS = {"BondDropout", "SiteDropout"}  # of layers: their forward takes masks and sizes
every = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


def test_no_public_module_is_missing() -> None:
    classes = [c for c in vars(tnml.nn).values() if isinstance(c, type) and issubclass(c, nn.Module)]
    modules = {c for c in classes if not inspect.isabstract(c) and c.__name__ not in PARTS}
    assert modules | {row.layer for row in NETWORKS.values()} == {case.module for case in CASES.values()}


@every
def test_vmap_takes_sample_by_sample(case) -> None:
    module, x = case.make(dtype=torch.float64), case.inputs(4)
    x = x.double() if x.is_floating_point() else x
    torch.testing.assert_close(torch.func.vmap(module)(x), module(x))


@every
def test_functional_call_takes_parameters_or_a_whole_state(case) -> None:
    module, other, x = case.make(), case.make(), case.inputs(4)
    moved = {name: 1.5 * p.detach() for name, p in module.named_parameters()}
    with torch.no_grad():
        for name, parameter in other.named_parameters():
            parameter.copy_(moved[name])
    before = module(x)
    for state in (moved, other.state_dict()):
        # without gradients another plan of a product may be the quickest, which rounds differently
        torch.testing.assert_close(torch.func.functional_call(module, state, (x,)), other(x))
    assert torch.equal(module(x), before)


@every
def test_many_states_at_once(case) -> None:
    """The recipe for ensembles: stacked states, and a copy on the meta device that is called with them."""
    modules = [case.make(), case.make()]
    with torch.no_grad():
        for parameter in modules[1].parameters():
            parameter.mul_(1.1)
    x = case.inputs(4)
    states = torch.func.stack_module_state(modules)
    empty = copy.deepcopy(modules[0]).to("meta")
    found = torch.func.vmap(lambda *state: torch.func.functional_call(empty, state, (x,)))(*states)
    for one, module in zip(found, modules, strict=True):
        torch.testing.assert_close(one, module(x), rtol=1e-4, atol=1e-5)


@every
@pytest.mark.parametrize(
    "again", [copy.deepcopy, lambda module: pickle.loads(pickle.dumps(module))], ids=["copy", "pickle"]
)
def test_copies_are_whole_and_their_own(case, again) -> None:
    module, x = case.make(), case.inputs(4)
    twin, expected = again(module), module(x).detach()
    assert torch.equal(twin(x), expected)
    assert repr(twin) == repr(module)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.zero_()
    assert torch.equal(module(x), expected)


@every
@pytest.mark.parametrize("way", ["default", "argument"])
def test_meta_device(case, way) -> None:
    trained, x = case.make(), case.inputs(4)
    with torch.device("meta" if way == "default" else "cpu"):
        module = case.make(**({} if way == "default" else {"device": "meta"}))
    assert all(t.is_meta for t in (*module.parameters(), *module.buffers()))
    assert module(x.to("meta")).shape == trained(x).shape
    assigned = copy.deepcopy(module)
    assigned.load_state_dict(trained.state_dict(), assign=True)
    assert torch.equal(assigned(x), trained(x))
    started = module.to_empty(device="cpu")
    with torch.no_grad():
        for tensor in (*started.parameters(), *started.buffers()):
            tensor.fill_(torch.nan)
    for part in started.modules():
        if hasattr(part, "reset_parameters"):
            part.reset_parameters()
    assert bool(torch.isfinite(started(x)).all())
    started.load_state_dict(trained.state_dict())
    assert torch.equal(started(x), trained(x))


@every
def test_fake_tensors(case) -> None:
    x, shape = case.inputs(4), case.make()(case.inputs(4)).shape
    with FakeTensorMode() as mode:
        module = case.make()
        assert module(mode.from_tensor(x)).shape == shape
    assert case.make()(x).shape == shape, "nothing fake stays behind"


@every
@pytest.mark.parametrize("decay", [0.9, 0.9999])
def test_averages_of_weights_that_do_not_change(case, decay) -> None:
    module, x = case.make(), case.inputs(4)
    average = AveragedModel(module, avg_fn=get_ema_avg_fn(decay), use_buffers=True)
    copied = copy.deepcopy(module)
    for _ in range(5):
        average.update_parameters(module)
        with torch.no_grad():  # as timm's ModelEmaV2 does it
            for mine, theirs in zip(copied.state_dict().values(), module.state_dict().values(), strict=True):
                mine.copy_(decay * mine + (1 - decay) * theirs)
    loaded = case.make()
    loaded.load_state_dict(average.module.state_dict())
    for found in (average.module, copied, loaded):
        torch.testing.assert_close(found(x), module(x), rtol=1e-4, atol=1e-5)


@pytest.fixture
def double() -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


@every
@pytest.mark.usefixtures("double")
def test_it_follows_the_default_dtype(case) -> None:
    module, x = case.make(), case.inputs(4)
    assert {p.dtype for p in module.parameters()} == {torch.float64}
    assert module(x.double() if x.is_floating_point() else x).dtype == torch.float64
    single = x.float() if x.is_floating_point() else x
    assert case.make(dtype=torch.float32)(single).dtype == torch.float32


@every
def test_bfloat16(case, tmp_path) -> None:
    module, x = case.make(), case.inputs(4)
    expected = module(x)
    small = copy.deepcopy(module).bfloat16()
    found = small(x.bfloat16() if x.is_floating_point() else x)
    assert found.dtype == torch.bfloat16
    assert (found.float() - expected).abs().max() <= case.bf16 * expected.abs().max()
    if hasattr(small, "save"):
        small.save(tmp_path / "small.safetensors")
        again = tnml.load(tmp_path / "small.safetensors")
        assert torch.equal(again(x.bfloat16()), found)


@every
def test_reset_parameters_forgets_what_was_learned(case) -> None:
    module, x = case.make(), case.inputs(4)
    fresh = module(x)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.fill_(7.0)
    identities = [id(p) for p in module.parameters()]
    module.reset_parameters()
    assert [id(p) for p in module.parameters()] == identities
    assert not any(bool((p == 7.0).any()) for p in module.parameters())
    found = module(x)
    assert 0.01 * fresh.abs().max() < found.abs().max() < 100 * fresh.abs().max()


@every
@pytest.mark.usefixtures("unchecked")
def test_what_is_no_tensor_gets_one_clear_error(case) -> None:
    module, x = case.make(), case.inputs(4)
    for given in (x.numpy(), x.tolist()):
        with pytest.raises(InputError, match=r"expected a torch\.Tensor, got (ndarray|list); convert it"):
            module(given)


@every
def test_leading_axes_are_those_of_the_outputs(case) -> None:
    module, x = case.make(dtype=torch.float64), case.inputs(6)
    x = x.double() if x.is_floating_point() else x
    expected = module(x)
    for lead in ((2, 3), (1, 2, 3), (6, 1)):
        found = module(x.reshape(*lead, *x.shape[1:]))
        torch.testing.assert_close(found, expected.reshape(*lead, *expected.shape[1:]))
    torch.testing.assert_close(module(x[0]), expected[0])
    assert module(x.reshape(2, 3, *x.shape[1:])[:0]).shape == (0, 3, *expected.shape[1:])


@every
@pytest.mark.filterwarnings("ignore:.*torch.jit.*is deprecated:DeprecationWarning")
def test_torch_jit_is_refused_in_words(case) -> None:
    module, x = case.make(), case.inputs(4)
    for wrapped in (module, nn.Sequential(module)):
        with pytest.raises(InputError, match=r"torch\.jit\.trace cannot follow .*torch\.export"):
            torch.jit.trace(wrapped, (x,))
        with pytest.raises(InputError, match=r"torch\.jit\.script cannot compile .*torch\.export"):
            torch.jit.script(wrapped)


@pytest.fixture(scope="module")
def traced(project_root: Path) -> dict[str, str]:
    program = project_root / "tests" / "programs" / "traced_modules.py"
    found: dict[str, str] = json.loads(complete([sys.executable, program], env=environment(project_root)))
    return found


WAYS = ["compiled", "exported", "exported strictly", "onnx"]


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
@every
def test_traced(traced, case, way) -> None:
    if way == "onnx" and any(find_spec(name) is None for name in ("onnx", "onnxscript", "onnxruntime")):
        pytest.skip("needs the packages onnx, onnxscript and onnxruntime")
    (name,) = [name for name, known in CASES.items() if known is case]
    assert traced[f"{name}, {way}"] == "the same"


@pytest.mark.slow
@pytest.mark.parametrize("name", DROPPING)
def test_compiled_dropout(traced, name) -> None:
    assert traced[f"{name}, compiled"] == "the same"


@pytest.mark.slow
def test_an_export_as_first_use_leaves_the_native_engine_alone(traced) -> None:
    assert traced["native engine"] == "tnml.contraction.chain.native"
