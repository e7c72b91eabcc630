"""The study of wrong labels: every method runs, and knows what it should."""

from pathlib import Path

import pytest
import torch
from sklearn.metrics import roc_auc_score

from tnml.study import wrong_labels
from tnml.study.wrong_labels import METHODS, run

CLUSTERS = {
    "data": "clusters",
    "pool": 1,
    "n_train": 100,
    "n_test": 100,
    "noise": 0.4,
    "kind": "symmetric",
    "network": "dense",
    "size": 4,
    "seed": 0,
    "epochs": 2,
    "lr": 0.01,
    "batch_size": 20,
}


@pytest.mark.parametrize("network", ["mps", "tnn", "dense"])
def test_every_method_runs(network: str) -> None:
    keys = set()
    for method in METHODS:
        found = run({**CLUSTERS, "method": method, "network": network}, Path())
        keys |= found.keys()
        assert all(0 <= found[name] <= 1 for name in ("train_error", "test_error", "memorised"))
    assert {"transition_error", "suspicion_auc"} <= keys


def test_images_and_another_kind_of_noise() -> None:
    images = {"data": "digits", "pool": 2, "n_train": 200, "network": "mps", "kind": "asymmetric"}
    found = run({**CLUSTERS, **images, "method": "small", "size": 8}, Path())
    large = run({**CLUSTERS, **images, "method": "gce", "size": 8}, Path())
    assert found["n_parameters"] < large["n_parameters"]


def test_the_area_is_that_of_scikit_learn() -> None:
    flipped = torch.rand(50, generator=torch.Generator().manual_seed(0)) < 0.4
    score = (torch.rand(50, generator=torch.Generator().manual_seed(1)) + 0.3 * flipped).round(decimals=1)
    assert wrong_labels._area(score, flipped) == pytest.approx(roc_auc_score(flipped, score))
