"""The tests really check the shapes in signatures, and only where they should."""

import importlib.util
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

import pytest
import torch
from beartype.roar import BeartypeCallHintViolation
from conftest import shapes_checked
from jaxtyping import Float
from torch import Tensor

from tnml.features import site_order

switched_off = pytest.mark.skipif(
    os.environ.get("TNML_TYPECHECK", "1") == "0", reason="TNML_TYPECHECK=0 switches the check of shapes off"
)


def product(
    left: Float[Tensor, "b l"], core: Float[Tensor, "l r"] | None, scale: float = 1
) -> Float[Tensor, "b r"]:
    return left if core is None else scale * (left @ core)


@pytest.fixture
def checked_product() -> Callable[..., Tensor]:
    return shapes_checked(product)


@switched_off
def test_wrong_shapes_are_noticed(checked_product: Callable[..., Tensor]) -> None:
    left = torch.ones(5, 3)
    assert checked_product(left, torch.ones(3, 2)).shape == (5, 2)
    assert checked_product(left, None).shape == (5, 3)
    with pytest.raises(BeartypeCallHintViolation, match="parameter core="):
        checked_product(left, torch.ones(4, 2))
    with pytest.raises(BeartypeCallHintViolation, match="parameter left="):
        checked_product(torch.ones(5, 3, 1), None)
    with pytest.raises(BeartypeCallHintViolation, match="parameter left="):
        checked_product(left.int(), None)


@pytest.mark.usefixtures("unchecked")
def test_unchecked_tests_reach_the_function(checked_product: Callable[..., Tensor]) -> None:
    with pytest.raises(RuntimeError, match="cannot be multiplied"):
        checked_product(torch.ones(5, 3), torch.ones(4, 2))


def test_plain_types_are_left_to_mypy(checked_product: Callable[..., Tensor]) -> None:
    class Box:
        @shapes_checked
        @contextmanager
        def opened(self) -> Iterator[Self]:
            yield self

    with Box().opened() as box:
        assert isinstance(box, Box)
    assert checked_product(torch.ones(1, 1), torch.ones(1, 1), torch.tensor(2.0)).item() == 2.0


@switched_off
def test_the_package_is_checked() -> None:
    assert hasattr(site_order, "__wrapped__")
    (hook,) = [finder for finder in sys.meta_path if type(finder).__module__.startswith("jaxtyping")]
    assert {"tnml.features.orders", "tnml.shapes"} <= set(hook.modules)  # type: ignore[attr-defined]


@switched_off
def test_modules_with_numba_are_left_alone() -> None:
    (hook,) = [finder for finder in sys.meta_path if type(finder).__module__.startswith("jaxtyping")]
    for name in hook.modules:  # type: ignore[attr-defined]
        module = importlib.util.find_spec(name)
        assert module is not None
        assert module.origin is not None
        lines = Path(module.origin).read_text(encoding="utf-8").splitlines()
        assert not [line for line in lines if line.startswith(("@njit", "@numba", "@intrinsic"))], name


def test_the_generator_is_the_same_in_every_test(generator: torch.Generator) -> None:
    again = torch.Generator().manual_seed(generator.initial_seed())
    assert torch.equal(torch.rand(3, generator=generator), torch.rand(3, generator=again))
