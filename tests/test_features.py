"""Feature maps against numpy formulas, finite differences, autograd and quadrature; and what they refuse."""

import copy
import inspect
import json
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from forks import complete
from numpy.polynomial import legendre
from scipy.special import binom
from torch import Tensor

from tnml.errors import InputError
from tnml.features import FEATURE_NAMES, FeatureMap, feature_map

unchecked_feature_map: Any = inspect.unwrap(feature_map)  # as a user has it, without the tests' type checker


def legendre_oracle(x: np.ndarray, d: int) -> np.ndarray:
    return legendre.legvander(2 * x - 1, d - 1) * np.sqrt(2 * np.arange(d) + 1)


def fourier_oracle(x: np.ndarray, d: int, period: float) -> np.ndarray:
    k = np.arange(1, d // 2 + 1)
    waves = np.exp(2j * np.pi * np.multiply.outer(x, k) / period) * np.sqrt(2)
    pairs = np.stack([waves.real, waves.imag], -1).reshape(len(x), -1)
    return np.concatenate([np.ones((len(x), 1)), pairs], 1)


def trigonometric_oracle(x: np.ndarray, d: int) -> np.ndarray:
    k, angle = np.arange(d), np.pi / 2 * x[:, None]
    return np.sqrt(binom(d - 1, k)) * np.cos(angle) ** (d - 1 - k) * np.sin(angle) ** k


def rbf_oracle(x: np.ndarray, d: int, width: float, normalise: bool) -> np.ndarray:
    bumps = np.exp(-((x[:, None] - np.linspace(0, 1, d)) ** 2) / (2 * width**2))
    return bumps / bumps.sum(1, keepdims=True) if normalise else bumps


def one_hot_oracle(x: np.ndarray, d: int) -> np.ndarray:
    return np.eye(d)[np.abs(x[:, None] - np.linspace(0, 1, d)).argmin(1)]


def hat_oracle(x: np.ndarray, d: int) -> np.ndarray:
    return np.stack([np.interp(x, np.linspace(0, 1, d), row) for row in np.eye(d)], 1)


Oracle = Callable[[np.ndarray], np.ndarray]
CASES: dict[str, tuple[str, dict[str, Any], Oracle]] = {
    "linear": ("linear", {}, lambda x: np.stack([1 - x, x], 1)),
    "affine": ("affine", {}, lambda x: np.stack([np.ones_like(x), x], 1)),
    "polynomial-2": ("polynomial", {"dim": 2}, lambda x: x[:, None] ** np.arange(2)),
    "polynomial-6": ("polynomial", {"dim": 6}, lambda x: x[:, None] ** np.arange(6)),
    "legendre-2": ("legendre", {}, lambda x: legendre_oracle(x, 2)),
    "legendre-7": ("legendre", {"dim": 7}, lambda x: legendre_oracle(x, 7)),
    "fourier-3": ("fourier", {}, lambda x: fourier_oracle(x, 3, 1.0)),
    "fourier-7": ("fourier", {"dim": 7, "period": 0.5}, lambda x: fourier_oracle(x, 7, 0.5)),
    "fourier-wide": ("fourier", {"dim": 5, "period": 2}, lambda x: fourier_oracle(x, 5, 2.0)),
    "trigonometric-2": ("trigonometric", {}, lambda x: trigonometric_oracle(x, 2)),
    "trigonometric-3": ("trigonometric", {"dim": 3}, lambda x: trigonometric_oracle(x, 3)),
    "trigonometric-4": ("trigonometric", {"dim": 4}, lambda x: trigonometric_oracle(x, 4)),
    "trigonometric-7": ("trigonometric", {"dim": 7}, lambda x: trigonometric_oracle(x, 7)),
    "one-hot-2": ("one-hot", {}, lambda x: one_hot_oracle(x, 2)),
    "one-hot-5": ("one-hot", {"dim": 5}, lambda x: one_hot_oracle(x, 5)),
    "hat-2": ("hat", {"dim": 2}, lambda x: hat_oracle(x, 2)),
    "hat-6": ("hat", {"dim": 6}, lambda x: hat_oracle(x, 6)),
    "rbf-3": ("rbf", {}, lambda x: rbf_oracle(x, 3, 0.5, True)),
    "rbf-5": ("rbf", {"dim": 5, "width": 0.1}, lambda x: rbf_oracle(x, 5, 0.1, True)),
    "rbf-plain": ("rbf", {"dim": 4, "normalise": False}, lambda x: rbf_oracle(x, 4, 1 / 3, False)),
}
WITHOUT_IDENTITY = {"trigonometric-2", "trigonometric-4", "rbf-plain"}
SMOOTH = [case for case in CASES if not case.startswith(("one-hot", "hat"))]
GRID = torch.linspace(-0.2, 1.2, 84, dtype=torch.float64)  # beyond [0, 1] too, and on no tie of a one-hot map


def build(case: str) -> FeatureMap:
    name, options, _ = CASES[case]
    return feature_map(name, **options)


def test_the_cases_hold_every_name() -> None:
    assert {name for name, _, _ in CASES.values()} == set(FEATURE_NAMES)


@pytest.mark.parametrize("case", CASES)
def test_values_are_those_of_the_formula(case: str) -> None:
    fmap = build(case)
    values = fmap(GRID).numpy()
    assert values.shape == (len(GRID), fmap.dim)
    np.testing.assert_allclose(values, CASES[case][2](GRID.numpy()), rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("case", CASES)
def test_derivative_is_that_of_central_differences_and_of_autograd(case: str) -> None:
    fmap, h = build(case), 1e-5
    slope = fmap.derivative(GRID)
    differences = (fmap(GRID + h) - fmap(GRID - h)) / (2 * h)
    torch.testing.assert_close(slope, differences, rtol=1e-6, atol=1e-6)
    x = GRID.clone().requires_grad_()
    columns = [torch.autograd.grad(column.sum(), x, retain_graph=True)[0] for column in fmap(x).unbind(-1)]
    torch.testing.assert_close(slope, torch.stack(columns, -1), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("case", SMOOTH)
def test_gradients_of_first_and_second_order_flow(case: str, generator: torch.Generator) -> None:
    fmap = build(case)
    x = torch.rand(2, 3, dtype=torch.float64, generator=generator)
    x[0, 0] = 0.0  # where a power with a negative exponent would show
    x.requires_grad_()
    assert torch.autograd.gradcheck(fmap, (x,))
    assert torch.autograd.gradgradcheck(fmap, (x,))
    assert torch.autograd.gradcheck(fmap.derivative, (x,))


@pytest.mark.parametrize("case", CASES)
def test_normalisation_is_the_one_it_names(case: str) -> None:
    fmap = build(case)
    nodes, weights = np.polynomial.legendre.leggauss(60)
    phi = fmap(torch.from_numpy((nodes + 1) / 2))
    gram = torch.einsum("xi,xj,x->ij", phi, phi, torch.from_numpy(weights / 2))
    holds = {
        "sum": torch.allclose(fmap(GRID).sum(-1), torch.ones_like(GRID), rtol=0, atol=1e-13),
        "norm": torch.allclose(fmap(GRID).norm(dim=-1), torch.ones_like(GRID), rtol=0, atol=1e-13),
        "orthonormal": torch.allclose(gram, torch.eye(fmap.dim, dtype=torch.float64), rtol=0, atol=1e-12),
    }
    if fmap.normalisation == "none":
        assert not any(holds.values())
    else:
        assert holds[fmap.normalisation]


@pytest.mark.parametrize("case", CASES)
def test_identity_weights_make_one_for_every_pixel(case: str) -> None:
    fmap = build(case)
    assert (fmap.identity is None) == (case in WITHOUT_IDENTITY)
    phi = fmap(GRID)
    if fmap.identity is None:
        fitted = torch.linalg.lstsq(phi, torch.ones(len(GRID), 1, dtype=torch.float64)).solution
        assert float((phi @ fitted - 1).abs().max()) > 1e-3, "there are weights after all"
    else:
        total = phi @ torch.tensor(fmap.identity, dtype=torch.float64)
        torch.testing.assert_close(total, torch.ones_like(total), rtol=0, atol=2e-14)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("case", CASES)
def test_every_float_dtype_keeps_its_dtype(case: str, dtype: torch.dtype, generator: torch.Generator) -> None:
    fmap = build(case)
    x = (torch.randint(0, 17, (4, 9), generator=generator) / 16).to(dtype)  # exact in every dtype
    values, exact = fmap(x), fmap(x.double())
    assert values.dtype == fmap.derivative(x).dtype == dtype
    tolerance = 40 * torch.finfo(dtype).eps * float(exact.abs().max())
    torch.testing.assert_close(values.double(), exact, rtol=0, atol=tolerance)


@pytest.mark.parametrize("case", CASES)
def test_any_shape_and_memory_layout_is_taken(case: str, generator: torch.Generator) -> None:
    fmap = build(case)
    x = torch.rand(6, 5, generator=generator)
    before = x.clone()
    for given in (
        x,
        x.T,
        x[:, torch.tensor([4, 0, 1, 3, 2])],
        x[::2, 1:],
        x[0, 0],
        x[0],
        x.view(2, 3, 5),
        x[:0],
    ):
        values = fmap(given)
        assert values.shape == fmap.derivative(given).shape == (*given.shape, fmap.dim)
        one_by_one = [fmap(pixel) for pixel in given.flatten()]
        expected = torch.stack(one_by_one) if one_by_one else torch.empty(0, fmap.dim)
        torch.testing.assert_close(values.reshape(-1, fmap.dim), expected, rtol=1e-5, atol=1e-6)
    assert torch.equal(x, before)


@pytest.mark.filterwarnings(
    "ignore:.torch.jit.script. is deprecated:DeprecationWarning"
)  # torch's own, in jacfwd
@pytest.mark.parametrize("case", CASES)
def test_function_transforms_agree_with_the_derivative(case: str) -> None:
    fmap = build(case)
    x = GRID[10:20]
    for transform in (torch.func.jacrev, torch.func.jacfwd):
        torch.testing.assert_close(
            torch.func.vmap(transform(fmap))(x), fmap.derivative(x), rtol=1e-10, atol=1e-10
        )


@pytest.mark.slow
def test_maps_compile_without_a_graph_break() -> None:
    """In its own process, where no type checker wraps the functions."""
    code = (
        "import torch\n"
        "from tnml.features import FEATURE_NAMES, feature_map\n"
        "x = torch.rand(4, 6)\n"
        "maps = [feature_map(name) for name in FEATURE_NAMES]\n"
        "maps.append(feature_map(lambda x: torch.stack((1 - x, x), -1)))\n"
        "everything = torch.compile(lambda x: [f(x) for f in maps], backend='eager', fullgraph=True)\n"
        "assert all(map(torch.equal, everything(x), [f(x) for f in maps]))\n"
    )
    complete(["-c", code])


@pytest.mark.gpu
@pytest.mark.parametrize("case", CASES)
def test_maps_follow_their_input_to_the_gpu(case: str, generator: torch.Generator) -> None:
    fmap = build(case)
    x = torch.rand(4, 9, generator=generator)
    torch.testing.assert_close(fmap(x.cuda()).cpu(), fmap(x), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(fmap.derivative(x.cuda()).cpu(), fmap.derivative(x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("case", CASES)
def test_spec_survives_json_and_the_map_survives_pickle(case: str) -> None:
    fmap = build(case)
    again = feature_map(json.loads(json.dumps(fmap.spec)))
    assert (again.spec, again.identity, again.normalisation) == (fmap.spec, fmap.identity, fmap.normalisation)
    for twin in (again, pickle.loads(pickle.dumps(fmap)), copy.deepcopy(fmap)):
        assert torch.equal(twin(GRID), fmap(GRID))
        assert torch.equal(twin.derivative(GRID), fmap.derivative(GRID))
    assert feature_map(fmap) is fmap


def test_options_add_to_a_description() -> None:
    assert feature_map({"name": "polynomial"}, dim=4).dim == 4
    assert feature_map({"name": "polynomial", "dim": 3}, dim=4).dim == 4
    assert feature_map("rbf", dim=5).spec == {"name": "rbf", "dim": 5, "width": 0.25, "normalise": True}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("levels", [2, 3, 8, 17])
def test_one_hot_is_exact_at_its_levels(levels: int, dtype: torch.dtype) -> None:
    fmap = feature_map("one-hot", dim=levels)
    x = torch.linspace(0, 1, levels, dtype=torch.float64).to(dtype)
    assert torch.equal(fmap(x), torch.eye(levels, dtype=dtype))


def test_one_hot_takes_the_nearest_level() -> None:
    fmap = feature_map("one-hot", dim=3)
    levels = fmap(torch.tensor([-9.0, 0.24, 0.26, 0.74, 0.76, 9.0, torch.inf, 0.25, 0.75])).argmax(-1)
    assert levels.tolist() == [0, 0, 1, 1, 2, 2, 2, 0, 2], "ties go to the even level"
    assert bool(fmap(torch.tensor(torch.nan)).isnan().all()), "a NaN must not turn into an empty feature"


def test_one_hot_passes_a_zero_gradient() -> None:
    x = torch.rand(3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).requires_grad_()
    feature_map("one-hot", dim=4)(x).square().sum().backward()
    assert torch.equal(x.grad, torch.zeros(3, 4, dtype=torch.float64))


def test_fourier_of_period_one_cannot_tell_black_from_white_and_period_two_can() -> None:
    ends = torch.tensor([0.0, 1.0], dtype=torch.float64)
    black, white = feature_map("fourier", dim=5)(ends)
    torch.testing.assert_close(black, white)
    black, white = feature_map("fourier", dim=5, period=2.0)(ends)
    assert float((black - white).abs().max()) > 2


def test_normalised_rbf_stays_a_partition_of_unity_far_away() -> None:
    fmap = feature_map("rbf", dim=6, width=0.01)
    x = torch.tensor([-50.0, -1.0, 0.5, 2.0, 50.0])
    assert bool(fmap(x).isfinite().all())
    torch.testing.assert_close(fmap(x).sum(-1), torch.ones(5))
    assert bool(fmap.derivative(x).isfinite().all())


def own_linear(x: Tensor) -> Tensor:
    return torch.stack((1 - x, x), -1)


@pytest.mark.parametrize(
    ("spec", "options", "says"),
    [
        ("trigonometrik", {}, "unknown feature map 'trigonometrik'; did you mean 'trigonometric'"),
        ("", {}, "Choose from: linear, affine"),
        ("rbf", {"widht": 1}, "unknown option of feature map 'rbf' 'widht'; did you mean 'width'"),
        ("linear", {"width": 1}, "unknown option of feature map 'linear'"),
        ("linear", {"dim": 3}, "'linear' has dim 2, got 3; for more components take 'rbf'"),
        ("affine", {"dim": 1}, "for more components take 'polynomial'"),
        ("polynomial", {"dim": 1}, "whole number, at least 2, got 1"),
        ("polynomial", {"dim": 2.0}, "whole number, at least 2, got 2.0"),
        ("polynomial", {"dim": "3"}, "got '3'"),
        ("legendre", {"dim": True}, "got True"),
        ("legendre", {"dim": 0}, "at least 2, got 0"),
        ("fourier", {"dim": 4}, "must be odd .* got 4; take 5"),
        ("fourier", {"dim": 1}, "at least 3, got 1"),
        ("fourier", {"period": 0}, "period must be a number, above 0, got 0"),
        ("fourier", {"period": float("nan")}, "period must be a number, above 0, got nan"),
        ("trigonometric", {"dim": 1}, "at least 2, got 1"),
        ("one-hot", {"dim": 1}, "the number of levels"),
        ("rbf", {"dim": -3}, "the number of centres"),
        ("rbf", {"width": -1.0}, "width must be a number, above 0"),
        ("rbf", {"width": "wide"}, "got 'wide'"),
        ("rbf", {"normalise": 1}, "normalise must be true or false"),
        ({"dim": 3}, {}, "needs a 'name'"),
        ({"name": 3}, {}, "needs a 'name'"),
        ({"name": "legendre", "degree": 2}, {}, "unknown option of feature map 'legendre' 'degree'"),
        (3, {}, "a name, a mapping with a 'name' or a function, got 3"),
        (None, {}, "got None"),
        (own_linear, {"dim": 3}, "dim=3 was asked for, but .*own_linear returns 2"),
        (own_linear, {"width": 3}, "unknown option of your own feature map 'width'"),
        (feature_map("linear"), {"dim": 2}, "takes no options, got dim"),
    ],
)
def test_bad_descriptions_are_refused(spec: Any, options: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says):
        unchecked_feature_map(spec, **options)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64, torch.bool, torch.complex64], ids=str)
def test_only_floating_point_pixels_are_taken(dtype: torch.dtype) -> None:
    with pytest.raises(InputError, match=r"floating-point tensor, got torch\.\w+; convert pixels"):
        feature_map("linear")(torch.ones(2, 3).to(dtype))


def test_a_map_built_by_hand_is_checked() -> None:
    good = FeatureMap("mine", 2, own_linear, own_linear, identity=(1.0, 1.0))
    assert good(GRID).shape == (84, 2)
    assert good.spec == {"name": "mine", "dim": 2}
    with pytest.raises(InputError, match="expected 2 identity weights, one per component, got 1"):
        FeatureMap("mine", 2, own_linear, own_linear, identity=(1.0,))
    with pytest.raises(InputError, match="did you mean 'orthonormal'"):
        FeatureMap("mine", 2, own_linear, own_linear, normalisation="orthnormal")
    with pytest.raises(InputError, match="dim must be a whole number, at least 1"):
        FeatureMap("mine", 0, own_linear, own_linear)
