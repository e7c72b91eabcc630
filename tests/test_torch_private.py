"""What tnml uses of torch's private names: all in one module, still there, and doing what it is used for."""

import ast
from collections.abc import Iterator
from functools import reduce
from pathlib import Path

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from tnml.torch_private import constant_in_graphs

ONE_PLACE = Path(__file__).parent.parent / "tnml" / "torch_private.py"
OF_MODULES = {"_buffers", "_modules", "_forward_hooks", "_forward_pre_hooks"}


def private_names(source: str) -> Iterator[str]:
    """Dotted names of torch with a private part, and private attributes of modules."""
    nodes = list(ast.walk(ast.parse(source)))
    roots = {}  # what a name in this source means
    for node in nodes:
        if isinstance(node, ast.Import):
            names = [(a.asname, a.name) for a in node.names if is_torch(a.name)]
            roots |= {short or "torch": full if short else "torch" for short, full in names}
        elif isinstance(node, ast.ImportFrom) and node.module and is_torch(node.module):
            roots |= {a.asname or a.name: f"{node.module}.{a.name}" for a in node.names}
    yield from filter(is_private, roots.values())
    for node in nodes:
        if isinstance(node, ast.Attribute):
            head, _, rest = ast.unparse(node).partition(".")
            if head in roots and rest.replace(".", "").isidentifier() and is_private(rest):
                yield f"{roots[head]}.{rest}"
            elif node.attr in OF_MODULES and head != "self":
                yield f"torch.nn.Module().{node.attr}"


def is_torch(name: str) -> bool:
    return name.partition(".")[0] == "torch"


def is_private(name: str) -> bool:
    return any(part.startswith("_") and not part.startswith("__") for part in name.split("."))


USED = sorted(set(private_names(ONE_PLACE.read_text(encoding="utf-8"))))


@pytest.mark.parametrize("name", USED)
def test_the_name_is_still_there(name: str) -> None:
    module, _, path = name.rpartition("().")
    start = nn.Identity() if module else torch
    thing = reduce(
        lambda found, part: getattr(found, part, None), path.removeprefix("torch.").split("."), start
    )
    assert thing is not None, (
        f"torch {torch.__version__} has no {name}; find what took its place in {ONE_PLACE.name}"
    )


def test_the_names_are_found() -> None:
    assert len(USED) >= 8
    assert "torch._C._functorch.peek_interpreter_stack" in USED
    assert "torch.nn.Module()._buffers" in USED


@pytest.mark.parametrize(
    "source",
    [
        "import torch\ntorch._C.x",
        "from torch import nn\nnn.modules.dropout._DropoutNd",
        "import torch.nn.functional as F\nF._x",
        "from torch._dynamo import config",
        "from torch import _foreach_lerp_",
        "layer._forward_hooks",
    ],
)
def test_private_names_are_noticed(source: str) -> None:
    assert list(private_names(source))


def test_no_other_module_uses_any(project_root: Path) -> None:
    sources = {
        path.relative_to(project_root).as_posix(): path.read_text(encoding="utf-8")
        for path in sorted((project_root / "tnml").rglob("*.py"))
        if path != ONE_PLACE
    }
    found = {path: names for path, text in sources.items() if (names := list(private_names(text)))}
    assert not found, "these belong into tnml/torch_private.py"


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")
def test_what_surrounds_a_call_is_noticed() -> None:
    from tnml import torch_private

    x = torch.ones(3)
    seen = []

    def watched(x: torch.Tensor) -> torch.Tensor:
        seen.append(torch_private.function_transform_at_work())
        return x.sum()

    watched(x)
    torch.func.vmap(watched)(x[None])
    torch.func.grad(watched)(x)
    torch.func.jvp(watched, (x,), (x,))
    assert seen == [False, True, True, True]

    class Square(torch.autograd.Function):
        @staticmethod
        def forward(ctx: torch.autograd.function.FunctionCtx, x: torch.Tensor) -> torch.Tensor:
            return x**2

        @staticmethod
        def backward(ctx: torch.autograd.function.FunctionCtx, gradient: torch.Tensor) -> torch.Tensor:
            seen.append(torch_private.batched_by_autograd(gradient))
            return gradient

    seen.clear()
    leaf = torch.ones(3, requires_grad=True)
    torch.autograd.grad(Square.apply(leaf), leaf, torch.ones(3))
    torch.autograd.grad(Square.apply(leaf), leaf, torch.eye(3), is_grads_batched=True)
    assert seen == [False, True]

    assert not torch_private.forward_mode_at_work()
    with torch.autograd.forward_ad.dual_level():
        assert torch_private.forward_mode_at_work()
    with FakeTensorMode():
        assert torch_private.dispatch_mode_at_work()
    assert not torch_private.dispatch_mode_at_work()


def test_modules_and_tensors() -> None:
    from tnml import torch_private

    generator = torch.Generator().manual_seed(3)
    values = [torch.randn(4, generator=generator) for _ in range(3)]
    targets = [torch.randn(4, generator=generator) for _ in range(3)]
    expected = [v + 0.3 * (t - v) for v, t in zip(values, targets, strict=True)]
    torch_private.lerp_all_(values, targets, 0.3)
    torch.testing.assert_close(values, expected, rtol=1e-6, atol=1e-6)

    for add in ("register_forward_hook", "register_forward_pre_hook"):
        layer = nn.Linear(2, 2)
        handle = getattr(layer, add)(lambda *_: None)
        assert torch_private.has_forward_hooks(layer)
        handle.remove()
        assert not torch_private.has_forward_hooks(layer)

    norm = nn.BatchNorm1d(2)
    norm.register_buffer("own", torch.zeros(1), persistent=False)
    saved = list(norm.state_dict())
    buffer = torch.ones(1)
    torch_private.put_buffer(norm, "own", buffer)
    assert norm.get_buffer("own") is buffer
    assert list(norm.state_dict()) == saved

    norms = [nn.BatchNorm1d(2), nn.BatchNorm2d(2), nn.BatchNorm3d(2), nn.SyncBatchNorm(2)]
    dropouts = [nn.Dropout(), nn.Dropout1d(), nn.Dropout2d(), nn.Dropout3d(), nn.AlphaDropout()]
    others = [nn.Identity(), nn.LayerNorm(2), nn.GroupNorm(1, 2)]
    for module in [*norms, *dropouts, *others]:
        assert torch_private.is_batch_norm(module) == (module in norms)
        assert torch_private.is_dropout(module) == (module in dropouts)


def test_marked_as_constant_as_torch_does() -> None:
    def ours() -> int:
        return 1

    def theirs() -> int:
        return 1

    assert vars(constant_in_graphs(ours)) == vars(torch.compiler.assume_constant_result(theirs)) != {}
