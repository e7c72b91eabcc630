"""What users of PyTorch hand to the training functions: bytes, low precision, an odd last sample."""

import copy

import numpy as np
import pytest
import torch
from stream_cases import Pairs, mapped, outcome
from torch import nn
from torch.utils.data import BatchSampler, DataLoader, IterableDataset, SequentialSampler, TensorDataset

from tnml.errors import InputError
from tnml.nn import MPSLayer
from tnml.training import (
    SweepOptions,
    TrainOptions,
    evaluate,
    sweep_classifier,
    sweep_regressor,
    train_classifier,
    train_regressor,
    truncate_layer,
)
from tnml.training.batches import batch_count, batch_slice
from tnml.training.replicas.train import train_replicas

COUNT, SITES = 17, 4  # with batches of 8 or 4 one sample is left over
RANDOM = np.random.default_rng(0)
BYTES = RANDOM.integers(0, 256, (COUNT, SITES), np.uint8)
BITS = np.uint8(BYTES > 100)
X, Y = np.float32(BYTES / 255), np.arange(COUNT) % 2
ONE_SWEEP = SweepOptions(sweeps=1, device="cpu")


def quick(**more):
    return TrainOptions(**{"epochs": 2, "lr": 0.02, "batch_size": 8, "device": "cpu", **more})


def layer(**more):
    return MPSLayer(SITES, 2, **{"bond_dim": 2, "noise": 0.1, **more})


# raw bytes -----------------------------------------------------------------------------------------------

WAYS = {
    "train": lambda x, tmp: train_classifier(layer(), x, Y, quick()),
    "test part": lambda x, tmp: train_classifier(layer(), X, Y, quick(), x_test=x, y_test=Y),
    "file": lambda x, tmp: train_classifier(layer(), mapped(tmp, x), Y, quick()),
    "Dataset": lambda x, tmp: train_classifier(layer(), Pairs(x, Y), options=quick()),
    "DataLoader": lambda x, tmp: train_classifier(
        layer(), DataLoader(Pairs(x, Y), batch_size=8), options=quick(batch_size=8)
    ),
    "evaluate": lambda x, tmp: evaluate(layer(), x, Y),
    "sweeps": lambda x, tmp: sweep_classifier(layer(), x, Y, ONE_SWEEP),
    "regression": lambda x, tmp: train_regressor(MPSLayer(SITES, 1), x, Y, quick()),
    "swept regression": lambda x, tmp: sweep_regressor(MPSLayer(SITES, 1), x, Y),
    "replicas": lambda x, tmp: train_replicas([layer(), layer(seed=1)], x, Y, quick(), task="classification"),
    "truncate": lambda x, tmp: truncate_layer(layer(), x, max_bond=1),
}


@pytest.mark.parametrize("way", WAYS)
def test_raw_bytes_are_refused_in_the_words_of_the_layer(way, tmp_path):
    with pytest.raises(InputError) as of_layer:
        layer()(torch.from_numpy(BYTES))
    with pytest.raises(InputError) as caught:
        WAYS[way](BYTES, tmp_path)
    assert str(of_layer.value) in str(caught.value)
    assert "whole numbers from" in str(caught.value)
    with pytest.raises(InputError, match=r"torch\.int64; convert"):
        WAYS[way](BYTES.astype(np.int64), tmp_path)


@pytest.mark.parametrize("way", WAYS)
def test_zeros_and_ones_may_be_bytes(way, tmp_path):
    """And mean what they mean as numbers."""
    found, expected = (WAYS[way](x, tmp_path) for x in (BITS, np.float32(BITS)))
    assert told(found) == told(expected)


def told(found):
    """Losses, measurements, or weights: what one way gives, without the seconds that it took."""
    if isinstance(found, list):
        return [told(each) for each in found]
    if isinstance(found, tuple):  # a smaller layer and its error
        return [tensor.tolist() for tensor in found[0].state_dict().values()]
    rows = found.history if hasattr(found, "history") else [found]
    return [{name: value for name, value in row.items() if "second" not in name} for row in rows]


def test_a_later_byte_is_found_with_its_row(tmp_path):
    x = BITS.copy()
    x[11, 2] = 7
    with pytest.raises(InputError, match=r"\(row 11, epoch 1"):
        train_classifier(layer(), mapped(tmp_path, x), Y, quick())


def test_modules_that_take_bytes_get_them_as_floats():
    expected = outcome(train_classifier, linear, np.float32(BYTES), Y, quick())
    assert outcome(train_classifier, linear, BYTES, Y, quick()) == expected


def linear():
    torch.manual_seed(0)
    return nn.Linear(SITES, 2)


# the last sample -----------------------------------------------------------------------------------------


def test_batches_cover_every_sample_once():
    for samples in range(1, 40):
        for size in range(1, 12):
            steps = batch_count(samples, size)
            cuts = [range(samples)[batch_slice(samples, size, step)] for step in range(steps)]
            assert [place for cut in cuts for place in cut] == list(range(samples))
            assert all(len(cut) > 1 for cut in cuts) or min(samples, size) == 1
            assert steps == -(-samples // size) - (samples % size == 1 and samples > size > 1)


class Normed(nn.Sequential):
    """As a network with batch normalisation, which refuses a batch of one."""

    def __init__(self):
        torch.manual_seed(0)
        super().__init__(nn.Linear(SITES, 3), nn.BatchNorm1d(3), nn.Linear(3, 2))


class Stream(IterableDataset):
    """Samples without numbers; with a length."""

    def __len__(self):
        return COUNT

    def __iter__(self):
        return iter([(X[n], Y[n]) for n in range(COUNT)])


SOURCES = {
    "arrays": lambda tmp: (X, Y),
    "file": lambda tmp: (mapped(tmp, X), Y),
    "Dataset": lambda tmp: (Pairs(X, Y), None),
    "DataLoader": lambda tmp: (DataLoader(Pairs(X, Y), batch_size=8), None),
    "sampler": lambda tmp: (
        DataLoader(Pairs(X, Y), batch_sampler=BatchSampler(SequentialSampler(X), 8, drop_last=False)),
        None,
    ),
    "IterableDataset": lambda tmp: (DataLoader(Stream(), batch_size=8), None),
}


def options_for(source):
    return quick(batch_size=100) if source == "sampler" else quick()  # where it means nothing


@pytest.mark.parametrize("source", SOURCES)
def test_a_last_single_sample_joins_the_batch_before(source, tmp_path):
    seen = []
    result = train_classifier(
        Normed(),
        *SOURCES[source](tmp_path),
        options_for(source),
        on_step=lambda view: seen.append(view.samples),
    )
    assert seen == [8, 17, 8, 17]
    assert result.n_train == COUNT
    assert np.isfinite(result.history[-1]["loss"])


def test_other_loaders_stay_as_they_are():
    dropped = DataLoader(Pairs(X, Y), batch_size=8, drop_last=True)
    assert train_classifier(Normed(), dropped, options=quick()).n_train == 16
    own = DataLoader(Pairs(X, Y), batch_sampler=[range(16), range(16, 17)])
    assert train_classifier(linear(), own, options=options_for("sampler")).n_train == COUNT
    assert evaluate(linear(), DataLoader(TensorDataset(torch.ones(1, 4), torch.ones(1).long())))["loss"] > 0


def test_replicas_cut_their_batches_alike():
    apart = [layer(dtype="float64", seed=seed) for seed in range(2)]
    together = copy.deepcopy(apart)
    train_replicas(together, X, Y, quick(), task="classification")
    for one, other in zip(apart, together, strict=True):
        train_classifier(one, X, Y, quick())
        torch.testing.assert_close(other.weight, one.weight, rtol=1e-9, atol=1e-9)


# modules and targets -------------------------------------------------------------------------------------


class Pair(nn.Linear):
    """Returns more than its outputs."""

    def forward(self, x):
        return super().forward(x), x


@pytest.mark.parametrize("source", SOURCES)
def test_a_module_that_returns_a_tuple(source, tmp_path):
    with pytest.raises(InputError, match=r"one tensor of outputs \[b, c\], got a tuple; wrap it"):
        train_classifier(Pair(SITES, 2), *SOURCES[source](tmp_path), options_for(source))
    with pytest.raises(InputError, match="got a tuple"):
        evaluate(Pair(SITES, 2), X, Y)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("make", [linear, layer], ids=["linear", "chain"])
@pytest.mark.parametrize("source", ["arrays", "file"])
def test_modules_of_low_precision_are_trained(dtype, make, source, tmp_path):
    module = make().to(dtype)
    (tmp_path / "data").mkdir()
    data = SOURCES[source](tmp_path / "data")
    more = {"run_dir": tmp_path / "run", "x_test": X, "y_test": Y}
    options = quick(epochs=1, validation=0.3, average="ema", clip_norm=1.0)
    train_classifier(module, *data, options, **more)
    train_classifier(module, *data, options, **more, resume=True)
    assert all(p.dtype == dtype and torch.isfinite(p).all() for p in module.parameters())


def test_sweeps_need_singular_values_and_free_cores():
    for sweep, network in ((sweep_classifier, layer()), (sweep_regressor, MPSLayer(SITES, 1))):
        for dtype in (torch.bfloat16, torch.float16):
            with pytest.raises(InputError, match=r"train layer\.float\(\)"):
                sweep(copy.deepcopy(network).to(dtype), X, Y)
        network.label.requires_grad_(False)
        before = copy.deepcopy(network.state_dict())
        with pytest.raises(InputError, match="label of the layer are frozen"):
            sweep(network, X, Y)
        assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert truncate_layer(layer().half(), X, max_bond=1)[0].weight.dtype == torch.float16


@pytest.mark.parametrize(
    "change", [lambda y: y[:, None], lambda y: y * 1.0, lambda y: np.float32(y[:, None])]
)
@pytest.mark.parametrize("source", ["arrays", "file", "Dataset", "DataLoader"])
def test_labels_in_a_column_or_as_floats(change, source, tmp_path):
    data = {
        "arrays": lambda y: (X, y),
        "file": lambda y: (mapped(tmp_path, X), y),
        "Dataset": lambda y: (Pairs(X, y), None),
        "DataLoader": lambda y: (DataLoader(Pairs(X, y), batch_size=8), None),
    }[source]
    expected = outcome(train_classifier, linear, *data(Y), quick())
    assert outcome(train_classifier, linear, *data(change(Y)), quick()) == expected


@pytest.mark.parametrize("y", [Y + 0.5, np.where(Y, np.nan, 0.0), np.where(Y, np.inf, 0.0), np.eye(2)[Y]])
def test_other_labels_are_refused(y):
    with pytest.raises(InputError, match="y must"):
        train_classifier(linear(), X, y, quick())
