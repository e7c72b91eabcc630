"""Inputs with a length scale: their covariance by definition, element by element, and what is refused."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from tnml.data.synthetic import gp_match, nlgp, nlgp_covariance, nlgp_mixture
from tnml.errors import InputError


def covariance_by_definition(length: int, xi: float, gain: float, periodic: bool) -> np.ndarray:
    """Element by element, with numpy's eigenvalues; the field's covariance is made positive first."""
    field = np.zeros((length, length))
    for i in range(length):
        for j in range(length):
            distance = min(abs(i - j), length - abs(i - j)) if periodic else abs(i - j)
            field[i, j] = math.exp(-(distance**2) / xi**2) + (1e-3 if i == j else 0.0)
    found, vectors = np.linalg.eigh(field)
    field = (vectors * np.clip(found, 0, None)) @ vectors.T
    gamma = 2 / math.pi * math.asin(gain**2 / (1 + gain**2))
    result = np.zeros_like(field)
    for i in range(length):
        for j in range(length):
            size = math.sqrt((1 + gain**2 * field[i, i]) * (1 + gain**2 * field[j, j]))
            result[i, j] = 2 / math.pi / gamma * math.asin(gain**2 * field[i, j] / size)
    return result


@pytest.mark.parametrize(("xi", "periodic"), [(2.0, True), (8.0, True), (3.0, False)])
def test_nlgp_and_its_control_have_the_covariance_of_the_formula(xi: float, periodic: bool) -> None:
    expected = covariance_by_definition(20, xi, 3.0, periodic)
    assert np.allclose(nlgp_covariance(20, xi, 3.0, periodic=periodic).numpy(), expected, atol=1e-10)
    n = 40_000
    for make in (nlgp, gp_match):
        x = make(n, 20, xi, 3.0, 1, periodic=periodic).numpy()
        found = x.T @ x / n
        assert np.linalg.norm(found - expected) < 0.02 * np.linalg.norm(expected)
        fourth = (x**4).mean() / (x**2).mean() ** 2
        assert (fourth < 2.0) if make is nlgp else (2.8 < fourth < 3.2)


def test_nlgp_in_two_dimensions() -> None:
    x = nlgp(40_000, 4, 1.5, 3.0, 2, dim=2).numpy()
    line = covariance_by_definition(4, 1.5, 1e-6, True)  # a tiny gain shows the field's correlations
    field = np.kron(line, line)
    angle = 9 * field / (1 + 9 * field[0, 0])
    expected = np.arcsin(angle) / math.asin(0.9)
    assert np.allclose(nlgp_covariance(4, 1.5, 3.0, dim=2).numpy(), expected, atol=1e-6)
    assert np.linalg.norm(x.T @ x / len(x) - expected) < 0.02 * np.linalg.norm(expected)


def test_nlgp_samples_in_parts_and_mixtures() -> None:
    whole = nlgp_mixture(600, 10, (1.0, 4.0), 3.0, 5)
    parts = [nlgp_mixture(300, 10, (1.0, 4.0), 3.0, 5, first=first) for first in (0, 300)]
    assert torch.allclose(torch.cat([part.x for part in parts]), whole.x, atol=1e-12)
    assert torch.equal(torch.cat([part.labels for part in parts]), whole.labels)
    assert 240 < int(whole.labels.sum()) < 360
    for label, xi in enumerate((1.0, 4.0)):
        mine = whole.labels == label
        assert torch.allclose(whole.x[mine], nlgp(600, 10, xi, 3.0, 5)[mine])
    gaussian = nlgp_mixture(600, 10, (1.0, 4.0), 3.0, 5, gaussian=True)
    assert torch.equal(gaussian.labels, whole.labels)
    assert float(gaussian.x.abs().max()) > float(whole.x.abs().max())


BAD: dict[str, tuple[Callable[[], Any], str]] = {
    "xi": (lambda: nlgp(3, 8, 0.0, 3.0, seed=0), "xi must be"),
    "nlgp gain": (lambda: gp_match(3, 8, 1.0, math.inf, seed=0), "gain must be"),
    "length": (lambda: nlgp(3, 0, 1.0, 3.0, seed=0), "length must be"),
    "area": (lambda: nlgp_covariance(100, 1.0, 3.0, dim=2), "more than 4096"),
    "count": (lambda: nlgp(-1, 8, 1.0, 3.0, seed=0), "n must be"),
    "dim": (lambda: nlgp(3, 8, 1.0, 3.0, seed=0, dim=0), "dim must be"),
}


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("case", BAD)
def test_bad_input_says_what_to_do(case: str) -> None:
    attempt, text = BAD[case]
    with pytest.raises(InputError, match=text):
        attempt()
