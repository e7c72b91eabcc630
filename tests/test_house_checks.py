"""The tests really check the shapes in signatures, and only where they should."""

import importlib.util
import os
import sys
from pathlib import Path

import pytest
import torch
from jaxtyping import TypeCheckError

from tnml.errors import InputError
from tnml.features import feature_map, site_order

switched_off = pytest.mark.skipif(
    os.environ.get("TNML_TYPECHECK", "1") == "0", reason="TNML_TYPECHECK=0 switches the check of shapes off"
)


@switched_off
def test_a_wrong_type_is_noticed() -> None:
    with pytest.raises(TypeCheckError):
        site_order(3.5, None, 4)  # type: ignore[arg-type]


@pytest.mark.usefixtures("unchecked")
def test_unchecked_tests_meet_the_error_of_tnml() -> None:
    with pytest.raises(InputError):
        feature_map(3.5)  # type: ignore[call-overload]


@switched_off
def test_an_int_may_stand_for_a_float() -> None:
    values = feature_map("fourier", dim=3, period=2)(torch.zeros(1))
    assert torch.allclose(values, torch.tensor([[1.0, 2**0.5, 0.0]]))


@switched_off
def test_modules_with_numba_are_left_alone() -> None:
    (hook,) = [finder for finder in sys.meta_path if type(finder).__module__.startswith("jaxtyping")]
    assert {"tnml.features.orders", "tnml.shapes"} <= set(hook.modules)  # type: ignore[attr-defined]
    for name in hook.modules:  # type: ignore[attr-defined]
        module = importlib.util.find_spec(name)
        assert module is not None
        assert module.origin is not None
        lines = Path(module.origin).read_text(encoding="utf-8").splitlines()
        assert not [line for line in lines if line.startswith(("@njit", "@numba", "@intrinsic"))], name


def test_the_generator_is_the_same_in_every_test(generator: torch.Generator) -> None:
    assert torch.randint(1000, (3,), generator=generator).tolist() == SEEN


SEEN = torch.randint(1000, (3,), generator=torch.Generator().manual_seed(20240229)).tolist()
