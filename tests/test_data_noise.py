"""Label noise: the matrices by definition, the rates of what is drawn, and what is refused."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from tnml.data.noise import LabelResampler, asymmetric, corrupt, pair, symmetric
from tnml.errors import InputError

N = 60_000
MATRICES = {
    "symmetric": symmetric(5, 0.3),
    "symmetric-all": symmetric(4, 0.4, exclude_true=False),
    "pair": pair(3, 0.45),
    "mnist": asymmetric("mnist", 0.4),
    "cifar-10": asymmetric("cifar-10", 0.2),
    "cifar-100": asymmetric("cifar-100", 0.3),
}


@pytest.mark.parametrize("name", MATRICES)
def test_rows_are_probabilities(name: str) -> None:
    matrix = MATRICES[name]
    assert matrix.dtype == torch.float64
    assert matrix.shape[0] == matrix.shape[1]
    assert bool((matrix >= 0).all())
    assert torch.allclose(matrix.sum(1), torch.ones(len(matrix), dtype=torch.float64))


def test_symmetric_by_definition() -> None:
    for c in (2, 5):
        for exclude in (True, False):
            matrix = symmetric(c, 0.3, exclude_true=exclude).numpy()
            for i in range(c):
                for j in range(c):
                    off = 0.3 / (c - 1) if exclude else 0.3 / c
                    on = 0.7 if exclude else 0.7 + 0.3 / c
                    assert matrix[i, j] == pytest.approx(on if i == j else off)


def test_pair_by_definition() -> None:
    matrix = pair(4, 0.2).numpy()
    expected = np.zeros((4, 4))
    for i in range(4):
        expected[i, i], expected[i, (i + 1) % 4] = 0.8, 0.2
    assert np.allclose(matrix, expected)


@pytest.mark.parametrize(
    ("name", "mistakes"),
    [
        ("mnist", {7: 1, 2: 7, 5: 6, 6: 5, 3: 8}),
        ("cifar-10", {9: 1, 2: 0, 3: 5, 5: 3, 4: 7}),
    ],
)
def test_asymmetric_mistakes(name: str, mistakes: dict[int, int]) -> None:
    matrix = asymmetric(name, 1.0)
    assert {i: int(row.argmax()) for i, row in enumerate(matrix) if row[i] == 0} == mistakes
    assert torch.equal(asymmetric(name, 0.0), torch.eye(10, dtype=torch.float64))


def test_super_classes_of_cifar_100() -> None:
    matrix = asymmetric("cifar-100", 1.0)
    follows = matrix.argmax(1).tolist()
    assert sorted(follows) == list(range(100)), "every class is hit once"
    for start in range(100):
        chain = [start]
        while len(chain) < 5:
            chain.append(follows[chain[-1]])
        assert len(set(chain)) == 5
        assert follows[chain[-1]] == start
    # apple, mushroom, orange, pear, sweet pepper; maple, oak, palm, pine, willow
    assert [follows[label] for label in (0, 51, 53, 57, 83)] == [51, 53, 57, 83, 0]
    assert [follows[label] for label in (47, 52, 56, 59, 96)] == [52, 56, 59, 96, 47]


@pytest.mark.parametrize("name", MATRICES)
def test_labels_are_drawn_at_the_rates_of_the_matrix(name: str) -> None:
    matrix = MATRICES[name].numpy()
    c = len(matrix)
    y = torch.arange(N) % c
    labels, flipped = corrupt(y, MATRICES[name], seed=3)
    assert labels.dtype == torch.int64
    assert torch.equal(flipped, labels != y)
    counts = np.zeros((c, c))
    np.add.at(counts, (y.numpy(), labels.numpy()), 1)
    per_class = N / c
    error = np.sqrt(matrix * (1 - matrix) / per_class)
    assert (counts[matrix == 0] == 0).all()
    assert (np.abs(counts / per_class - matrix) <= 5 * error + 1e-12).all()
    wrong = 1 - np.trace(matrix) / c
    assert float(flipped.double().mean()) == pytest.approx(wrong, abs=3 * math.sqrt(wrong * (1 - wrong) / N))


def test_a_label_depends_on_seed_index_and_true_class_only() -> None:
    y, matrix = torch.arange(1000) % 5, symmetric(5, 0.5)
    whole = corrupt(y, matrix, seed=1)
    parts = [corrupt(y[a:b], matrix, seed=1, first=a).labels for a, b in ((0, 300), (300, 1000))]
    assert torch.equal(torch.cat(parts), whole.labels)
    assert not torch.equal(corrupt(y, matrix, seed=2).labels, whole.labels)
    changed = y.clone()
    changed[0] = 4
    assert torch.equal(corrupt(changed, matrix, seed=1).labels[1:], whole.labels[1:])
    assert torch.equal(y, torch.arange(1000) % 5), "the true labels stay"


def test_the_ends_of_the_range() -> None:
    y = torch.arange(2000) % 3
    assert not bool(corrupt(y, symmetric(3, 0.0), seed=0).flipped.any())
    assert bool(corrupt(y, symmetric(3, 1.0), seed=0).flipped.all())
    assert torch.equal(corrupt(y, pair(3, 1.0), seed=0).labels, (y + 1) % 3)
    assert corrupt(y[:0], pair(3, 0.5), seed=0).labels.shape == (0,)


@pytest.mark.parametrize("p", [0.0, 0.3, 1.0])
def test_resampler_replaces_its_share(p: float) -> None:
    resample = LabelResampler(p, 4, seed=1)
    y = torch.arange(N) % 4
    drawn = resample(y, 0)
    rate = float((drawn != y).double().mean())
    expected = p * 3 / 4  # the true class is among those drawn
    assert rate == pytest.approx(expected, abs=3 * math.sqrt(expected * (1 - expected) / N) + 1e-12)
    shares = torch.bincount(drawn[y == 2], minlength=4).double() / (N / 4)
    wanted = [p / 4, p / 4, 1 - p * 3 / 4, p / 4]
    assert np.allclose(shares.numpy(), wanted, atol=0.015)


def test_resampler_draws_anew_at_every_step_and_repeats_a_step() -> None:
    y = torch.arange(500) % 4
    first, second = LabelResampler(0.5, 4, seed=1), LabelResampler(0.5, 4, seed=1)
    state = torch.get_rng_state()
    a, b = first(y, 10), first(y, 11)
    assert torch.equal(second(y, 11), b), "the order of the calls plays no part"
    assert torch.equal(second(y, 10), a)
    assert not torch.equal(a, b)
    assert not torch.equal(LabelResampler(0.5, 4, seed=2)(y, 10), a)
    same = ((a != y) & (b != y)).double().mean()
    assert float(same) == pytest.approx(0.375**2, abs=0.06), "steps are independent"
    assert torch.equal(torch.get_rng_state(), state), "the generators of torch stay"
    assert torch.equal(y, torch.arange(500) % 4)


Y = torch.tensor([0, 1])
BAD: dict[str, tuple[Callable[[], Any], str]] = {
    "rho": (lambda: symmetric(3, 1.2), "rho must be a number, at least 0 and at most 1, got 1.2"),
    "nan": (lambda: pair(3, math.nan), "rho must be"),
    "classes": (lambda: symmetric(1, 0.2), "classes must be a whole number, at least 2"),
    "name": (lambda: asymmetric("minst", 0.2), "did you mean 'mnist'"),
    "label": (lambda: corrupt(torch.tensor([0, 3]), pair(3, 0.1), seed=0), "labels must be 0 to 2, got 3"),
    "negative": (lambda: corrupt(torch.tensor([-1]), pair(3, 0.1), seed=0), "got -1"),
    "floats": (lambda: corrupt(torch.tensor([0.0]), pair(3, 0.1), seed=0), "int64"),
    "shape": (lambda: corrupt(Y[None], pair(3, 0.1), seed=0), "int64 tensor"),
    "list": (lambda: corrupt([0, 1], pair(3, 0.1), seed=0), "torch.as_tensor"),  # type: ignore[arg-type]
    "seed": (lambda: corrupt(Y, pair(3, 0.1), seed=-1), "seed must be"),
    "rows": (lambda: corrupt(Y, torch.full((2, 2), 0.6), seed=0), "add up to 1"),
    "signs": (lambda: corrupt(Y, torch.tensor([[1.5, -0.5], [0.0, 1.0]]), seed=0), "smallest entry of -0.5"),
    "square": (lambda: corrupt(Y, torch.ones(2, 1), seed=0), r"\[classes, classes\]"),
    "p": (lambda: LabelResampler(-0.1, 3), "p must be a number, at least 0 and at most 1, got -0.1"),
    "step": (lambda: LabelResampler(0.1, 3)(Y, -1), "step must be"),
    "resampled": (lambda: LabelResampler(0.1, 2)(torch.tensor([2]), 0), "labels must be 0 to 1"),
}


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("case", BAD)
def test_bad_input_says_what_to_do(case: str) -> None:
    attempt, text = BAD[case]
    with pytest.raises(InputError, match=text):
        attempt()
