"""Training on files and Datasets: the bits of arrays, resumption, places in errors, flat memory."""

import os
import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import Dataset, IterableDataset, TensorDataset

from tnml.errors import InputError
from tnml.nn import MPSLayer
from tnml.training import (
    TrainingInterrupted,
    TrainOptions,
    evaluate,
    sweep_classifier,
    train_classifier,
    train_density,
    train_regressor,
    train_replicas,
)
from tnml.training.batches import ArrayBatches
from tnml.training.rows import MappedArray
from tnml.training.samples import samples_for
from tnml.training.streams import StreamBatches, stream_for
from tnml.training.tasks import CLASSIFICATION

COUNT, SITES = 61, 9  # images of 3 x 3; odd numbers, so that blocks and batches are cut somewhere


@pytest.fixture
def images():
    random = np.random.default_rng(3)
    y = np.arange(COUNT) % 3
    x = (random.integers(0, 64, (COUNT, SITES)) + 60 * y[:, None]).astype(np.uint8)
    return x, y


def quick(**more):
    return TrainOptions(**{"epochs": 3, "lr": 0.02, "batch_size": 8, "device": "cpu", **more})


def mapped(folder, array, mode="r"):
    path = folder / f"{len(list(folder.iterdir()))}.npy"
    np.save(path, array)
    return np.load(path, mmap_mode=mode)


class Pairs(Dataset):
    """Samples one by one; some of the rows are remembered."""

    def __init__(self, *columns):
        self.columns, self.asked = columns, []

    def __len__(self):
        return len(self.columns[0])

    def __getitem__(self, index):
        self.asked.append(index)
        return tuple(column[index] for column in self.columns)


class Together(Pairs):
    """Samples many at a time only."""

    def __getitem__(self, index):
        raise AssertionError("there is a quicker way")

    def __getitems__(self, indices):
        self.asked += indices
        return [tuple(column[index] for column in self.columns) for index in indices]


def every_second(folder, x):
    return mapped(folder, np.repeat(np.repeat(x, 2, axis=0), 2, axis=1))[::2, ::2]


def raw(folder, x):
    (folder / "raw").write_bytes(b"seven b" + x.tobytes())
    return np.memmap(folder / "raw", x.dtype, "r", offset=7, shape=x.shape)


KINDS = {
    "file": lambda folder, x, y: (mapped(folder, x), y),
    "float32": lambda folder, x, y: (mapped(folder, np.float32(x / 255)), torch.tensor(y)),
    "two files": lambda folder, x, y: (mapped(folder, x), mapped(folder, y)),
    "big-endian": lambda folder, x, y: (mapped(folder, x.astype(">f8") / 255), y),
    "strided": lambda folder, x, y: (every_second(folder, x), y),
    "backwards": lambda folder, x, y: (mapped(folder, x)[::-1], y[::-1]),
    "columns": lambda folder, x, y: (mapped(folder, np.asfortranarray(x)), y),
    "part": lambda folder, x, y: (mapped(folder, np.concatenate([x, x]))[5 : 5 + COUNT], np.roll(y, -5)),
    "writable": lambda folder, x, y: (mapped(folder, x, "r+"), y),
    "copy on write": lambda folder, x, y: (mapped(folder, x, "c"), y),
    "raw": lambda folder, x, y: (raw(folder, x), y),
    "Dataset": lambda folder, x, y: (Pairs(x, y), None),
    "together": lambda folder, x, y: (Together(np.float32(x / 255), y), None),
    "tensors": lambda folder, x, y: (TensorDataset(torch.tensor(x), torch.tensor(y)), None),
}


def in_memory(x, y):
    """The same samples as arrays."""
    if isinstance(x, TensorDataset):
        return x.tensors
    if isinstance(x, Pairs):
        return x.columns
    return np.array(x), np.asarray(y)


def outcome(train, network, *data, **more):
    """The weights and the history of one training, without its times."""
    layer = network()
    result = train(layer, *data, **more)
    rows = [
        {name: value for name, value in row.items() if name not in ("seconds", "samples_per_second")}
        for row in result.history
    ]
    return [p.tolist() for p in layer.parameters()], rows, result.test, result.n_train, result.n_validation


def network():
    torch.manual_seed(1)
    return nn.Sequential(nn.Dropout(0.2), nn.Linear(SITES, 5), nn.Tanh(), nn.Linear(5, 3))


def chain():
    return MPSLayer(SITES, 3, bond_dim=3, noise=0.1, site_dropout=0.1, seed=1)


PLAIN = {}, {}
WEIGHTED = (
    {"max_shift": 1, "validation": 0.3, "average": "ema", "patience": 5, "seed": 4},
    {"sample_weight": np.random.default_rng(0).integers(0, 3, COUNT)},
)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("settings", [PLAIN, WEIGHTED], ids=["plain", "weighted"])
def test_files_and_datasets_train_to_the_bits_of_arrays(images, tmp_path, kind, settings):
    data = KINDS[kind](tmp_path, *images)
    more = {"options": quick(**settings[0]), **settings[1]}
    x, y = in_memory(*data)
    expected = outcome(train_classifier, network, x, y, x_test=x, y_test=y, **more)
    assert outcome(train_classifier, network, *data, x_test=x, y_test=y, **more) == expected
    test = {"x_test": data[0], "y_test": data[1]}
    assert outcome(train_classifier, network, *data, **test, **more) == expected
    assert outcome(train_classifier, network, x, y, **test, **more) == expected
    layer = network()
    assert evaluate(layer, *data, batch_size=10) == evaluate(layer, x, y, batch_size=10)


@pytest.mark.parametrize("kind", ["float32", "strided", "Dataset"])
def test_chains_train_to_the_bits_of_arrays(images, tmp_path, kind):
    data = KINDS[kind](tmp_path, *images)
    more = {"options": quick(**WEIGHTED[0]), **WEIGHTED[1]}
    expected = outcome(train_classifier, chain, *in_memory(*data), **more)
    assert outcome(train_classifier, chain, *data, **more) == expected


@pytest.mark.parametrize("columns", [1, 2])
def test_real_targets_are_read_from_a_file(images, tmp_path, columns):
    x = images[0] / 255
    y = x[:, :columns] if columns > 1 else x[:, 0]
    options = quick(validation=0.3, seed=2)

    def line():
        torch.manual_seed(0)
        return nn.Linear(SITES, columns)

    expected = outcome(train_regressor, line, x, y, options)
    assert expected[0] != [p.tolist() for p in line().parameters()]
    assert outcome(train_regressor, line, mapped(tmp_path, x), mapped(tmp_path, y), options) == expected
    assert outcome(train_regressor, line, Pairs(x, y), None, options) == expected


class Normal(nn.Module):
    def __init__(self):
        super().__init__()
        self.mean = nn.Parameter(torch.zeros(SITES))

    def forward(self, x):
        return torch.distributions.Normal(self.mean, 1.0).log_prob(x).sum(1, keepdim=True)


def test_densities_take_inputs_alone(images, tmp_path):
    x = np.float32(images[0] / 255)

    class Alone(Pairs):
        def __getitem__(self, index):
            return self.columns[0][index]

    expected = outcome(train_density, Normal, x, quick(), x_test=x)
    for data in (mapped(tmp_path, x), Alone(x), Pairs(x), Pairs(x, [None] * COUNT)):
        assert outcome(train_density, Normal, data, quick(), x_test=data) == expected
    with pytest.raises(InputError, match=r"a density has no targets, got y.*\(row 0, the first sample\)"):
        train_density(Normal(), Pairs(*images), quick())


def test_batches_say_which_samples_they_hold(images, tmp_path):
    x, y = images
    weight = np.arange(COUNT) % 4
    options = quick(validation=0.3)
    layer = nn.Linear(SITES, 3)
    part, held = samples_for(CLASSIFICATION, layer, x, y, sample_weight=weight).parts(0.3, options.seed)
    arrays = ArrayBatches(part.x, part.y, options, index=part.index, weight=part.weight)
    stream = stream_for(CLASSIFICATION, layer, mapped(tmp_path, x), y, sample_weight=weight)
    keep, apart = stream.parts(0.3)
    files = StreamBatches(keep, options)
    assert files.steps_per_epoch == arrays.steps_per_epoch
    assert (len(keep), len(apart)) == (len(part.x), len(held.x))
    for epoch, step in ((0, 0), (2, 3), (1, files.steps_per_epoch - 1)):
        one, two = files(epoch, step), arrays(epoch, step)
        assert torch.equal(one.x, torch.tensor(x, dtype=torch.float32)[one.index])
        for name in ("x", "y", "index", "weight"):
            assert torch.equal(getattr(one, name), getattr(two, name)), name
        assert (one.epoch, one.step) == (epoch, step)


class Noisy(Pairs):
    """Inputs with noise from torch's default generator."""

    def __getitem__(self, index):
        x, y = super().__getitem__(index)
        return torch.as_tensor(x) / 255 + 0.1 * torch.randn(SITES), y


@pytest.mark.parametrize("kind", ["file", "Dataset", "noise"])
def test_an_interrupted_run_resumes_in_the_same_bits(images, tmp_path, kind):
    def data():
        return (Noisy(*images), None) if kind == "noise" else KINDS[kind](tmp_path, *images)

    network()
    before = torch.get_rng_state()
    options = quick(validation=0.3, max_shift=1, average="ema")
    expected = outcome(train_classifier, network, *data(), options)
    steps = expected[3] // 8 + 1

    def stop_at(step):
        def stop(view):
            if (view.epoch - 1) * steps + view.step == step:
                raise KeyboardInterrupt

        return stop

    for step in (1, steps - 1, steps, steps + 3):
        folder = tmp_path / f"run {step}"
        with pytest.raises(TrainingInterrupted):
            train_classifier(network(), *data(), options, run_dir=folder, on_step=stop_at(step))
        assert (
            outcome(train_classifier, network, *data(), options, run_dir=folder, resume=True) == expected
        ), step
    assert torch.equal(torch.get_rng_state(), before), "the caller's generator is left alone"


def test_noise_of_a_dataset_is_that_of_seed_and_step(images):
    runs = [
        outcome(train_classifier, network, Noisy(*images), None, quick(validation=0.3, seed=seed))
        for seed in (0, 0, 1)
    ]
    assert runs[0] == runs[1] != runs[2]


def test_a_run_is_not_resumed_on_other_data(images, tmp_path):
    x, y = images
    folder = tmp_path / "run"
    train_classifier(network(), mapped(tmp_path, x), y, quick(), run_dir=folder)
    weight = np.ones(COUNT)
    for data, more, text in (
        ((mapped(tmp_path, x + 1), y), {}, "data checksum"),
        ((mapped(tmp_path, x), np.roll(y, 3)), {}, "data checksum"),
        ((mapped(tmp_path, x[:-9]), y[:-9]), {}, "samples: 61 in the checkpoint, 52 now"),
        ((mapped(tmp_path, np.float32(x)), y), {}, "data dtype: 'uint8' in the checkpoint, 'float32' now"),
        ((mapped(tmp_path, np.repeat(x, 2, 1))[:, ::2], y), {}, "data file bytes"),
        ((Pairs(x, y), None), {}, "data: None in the checkpoint, 'Pairs' now"),
        ((mapped(tmp_path, x), y), {"sample_weight": weight}, "weights checksum"),
    ):
        with pytest.raises(InputError, match=text):
            train_classifier(network(), *data, quick(), run_dir=folder, resume=True, **more)


def test_a_bad_row_is_named_with_its_place(images, tmp_path):
    x, y = np.float64(images[0]), images[1]
    x[40, 3] = np.nan
    order = torch.randperm(COUNT, generator=torch.Generator().manual_seed(0))  # any order: the place is found
    layer, options = nn.Linear(SITES, 3), quick()
    batches = ArrayBatches(torch.zeros(COUNT, 1), torch.zeros(COUNT), options)
    (step,) = [s for s in range(8) if 40 in batches(0, s).index.tolist()]
    assert len(order) == COUNT
    place = rf"row 40, epoch 1, step {step + 1} of 8\)"
    with pytest.raises(InputError, match=rf"x holds NaN or infinite values.*\({place}"):
        train_classifier(layer, mapped(tmp_path, x), y, options)
    with pytest.raises(InputError, match=r"y must lie in 0\.\.2, the layer's outputs, got 0\.\.9"):
        train_classifier(layer, mapped(tmp_path, images[0]), np.where(np.arange(COUNT) == 40, 9, y), options)
    labels = np.where(np.arange(COUNT) == 40, -1, y)
    with pytest.raises(InputError, match=rf"y must lie in 0\.\.2.*got -1\.\.2 \({place}"):
        train_classifier(layer, Pairs(images[0], labels), options=options)
    with pytest.raises(InputError, match=r"got -1\.\.2 \(row 40, while all labels were read\)"):
        train_classifier(layer, Pairs(images[0], labels), options=quick(validation=0.2))
    targets = np.where(np.arange(COUNT) == 40, np.inf, 0.0)[:, None] + np.zeros((1, 3))
    with pytest.raises(InputError, match=rf"y holds NaN or infinite values.*\({place}"):
        train_regressor(layer, mapped(tmp_path, images[0]), mapped(tmp_path, targets), options)
    with pytest.raises(InputError, match=r"x_test holds NaN.*\(row 40, in x_test\)"):
        train_classifier(layer, *images, options, x_test=Pairs(x, y))
    ragged = [row[: SITES - (number == 40)] for number, row in enumerate(images[0])]
    with pytest.raises(InputError, match=rf"x of several samples.*\(epoch 1, step {step + 1} of 8\)"):
        train_classifier(layer, Pairs(ragged, y), options=options)


class Endless(IterableDataset):
    def __iter__(self):
        return iter([(torch.zeros(SITES), 0)])


class Empty(Pairs):
    def __len__(self):
        return 0


class Fewer(Together):
    def __getitems__(self, indices):
        return super().__getitems__(indices)[:-1]


def test_data_that_cannot_be_used_are_refused(images, tmp_path):
    x, y = images
    file, layer, options = mapped(tmp_path, x), nn.Linear(SITES, 3), quick()
    for data, text in (
        ((Pairs(x, y), y), "a Dataset gives its targets itself; leave y out"),
        ((Pairs(x), None), r"y is missing.*\(row 0, the first sample\)"),
        ((Pairs(x, y, y), None), r"a Dataset must give \(x, y\) pairs, .* got tuple of 3"),
        (([{"x": x[0]}], None), "x must hold numbers"),
        ((Endless(), None), "give an IterableDataset as a DataLoader"),
        ((Empty(x, y), None), "has no samples"),
        ((Fewer(x, y), None), "of 1 numbers gave 0 samples"),
        ((Pairs(x, y.astype(str)), None), "y must hold numbers"),
        ((file, None), "y is missing"),
        ((x, None), "y is missing"),
        ((file, y[:-1]), r"y must have shape \[61\] as x has, got \[60\]"),
        ((file, mapped(tmp_path, y[:-1])), r"y must have shape \[61\] as x has, got \[60\]"),
        ((file, mapped(tmp_path, np.eye(3)[y[:-1]])), "y must have 61 rows as x has, got 60"),
        ((file, mapped(tmp_path, np.eye(3, dtype=int)[y])), "y must have shape"),
        ((mapped(tmp_path, x[:, :-1]), y), "shapes cannot be multiplied"),
        ((mapped(tmp_path, x.astype(complex)), y), "x must hold numbers"),
    ):
        with pytest.raises((InputError, RuntimeError), match=text):
            train_classifier(layer, *data, options)
    for more, text in (
        ({"sample_weight": np.ones(COUNT - 1)}, r"sample_weight must have shape \[61\]"),
        ({"sample_weight": np.zeros(COUNT)}, "every sample_weight is 0"),
        ({"y_test": y}, "x_test and y_test go together"),
        ({"x_test": file}, "y_test is missing"),
        ({"x_test": Pairs(x, y), "y_test": y}, "leave y_test out"),
    ):
        with pytest.raises(InputError, match=text):
            train_classifier(layer, file, y, options, **more)
        if "x_test" not in more or text.startswith("leave"):
            with pytest.raises(InputError, match=text):
                train_classifier(layer, Pairs(x, y), None, options, **more)
    with pytest.raises(InputError, match="leaves none"):
        train_regressor(nn.Linear(SITES, 1), Pairs(x[:1], [1.0]), None, quick(validation=0.5))
    with pytest.raises(InputError, match="give image_shape"):
        train_classifier(layer, file, y, quick(max_shift=1), image_shape=(3, 2))


def test_sweeps_and_replicas_want_arrays(images, tmp_path):
    x, y = images
    data, options = Pairs(x, y), TrainOptions(device="cpu", epochs=1)
    for train in (
        lambda x, y: sweep_classifier(MPSLayer(SITES, 3), x, y),
        lambda x, y: train_replicas([MPSLayer(SITES, 3)], x, y, options, task="classification"),
    ):
        with pytest.raises(InputError, match="x must be an array or a tensor here, got a Pairs"):
            train(data, y)
    (result,) = train_replicas([MPSLayer(SITES, 3)], mapped(tmp_path, x), y, options, task="classification")
    assert result.n_train == COUNT


VIEWS = {
    "all": lambda a: a,
    "rows": lambda a: a[3:20],
    "steps": lambda a: a[::3],
    "backwards": lambda a: a[::-2],
    "transposed": lambda a: a.transpose(1, 0, 2),
    "one column": lambda a: a[:, 0, 0],
    "inner": lambda a: a[:, 1:],
    "bytes": lambda a: a.view(np.uint8),
    "one row": lambda a: a[7:8],
}


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("positions", [True, False], ids=["pread", "mapping"])
def test_rows_are_those_of_the_array(tmp_path, monkeypatch, view, positions):
    if not positions:
        monkeypatch.delattr("os.preadv")
    array = np.random.default_rng(0).random((23, 5, 3))
    found = VIEWS[view](mapped(tmp_path, array))
    rows, expected = MappedArray("x", found), np.array(found)
    assert len(rows) == len(expected)
    assert np.array_equal(rows.whole(), expected)
    for index in ([0], range(len(expected)), range(0, len(expected), 2), [0, len(expected) - 1]):
        chosen = np.unique(np.array(index))
        rows.hint(chosen)
        assert np.array_equal(rows.rows(chosen), expected[chosen])


def test_a_removed_file_is_read_through_its_mapping(images, tmp_path):
    file = mapped(tmp_path, images[0])
    (tmp_path / "0.npy").unlink()
    assert np.array_equal(MappedArray("x", file).rows(np.array([2, 5])), images[0][[2, 5]])
    changed = mapped(tmp_path, images[0], "c")
    changed[2] = 9
    assert (MappedArray("x", changed).rows(np.array([2])) == 9).all()
    assert (np.load(tmp_path / "0.npy")[2] == images[0][2]).all()


def test_a_file_that_changes_under_way_is_noticed(images, tmp_path):
    rows = MappedArray("x", mapped(tmp_path, images[0]))
    path, other, index = tmp_path / "0.npy", tmp_path / "other.npy", np.array([0, COUNT - 1])
    sent = pickle.dumps(rows)
    assert len(sent) < 1000, "not the numbers"
    assert np.array_equal(pickle.loads(sent).rows(index), images[0][index])
    path.rename(other)
    assert np.array_equal(rows.rows(index), images[0][index]), "the file stays open"
    with pytest.raises(InputError, match="x is mapped from a file that cannot be opened"):
        pickle.loads(sent).rows(index)
    np.save(path, images[0])
    with pytest.raises(InputError, match="which is another file by now"):
        pickle.loads(sent).rows(index)
    os.truncate(other, other.stat().st_size - 5)
    assert np.array_equal(rows.rows(index[:1]), images[0][:1])
    for read in (lambda: rows.rows(index), rows.whole):
        with pytest.raises(InputError, match="which has become shorter"):
            read()


MEMORY = """
import sys
import numpy as np, torch
from torch import nn
from tnml.training import TrainOptions, train_classifier

def peak():
    lines = open("/proc/self/status").read().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024

x = np.memmap(sys.argv[1], np.uint8, "w+", shape=(300 * 2**20 // 784, 784))
y = np.zeros(len(x), np.int64)
options = TrainOptions(epochs=1, batch_size=1000, device="cpu", validation=0.1)
train_classifier(nn.Linear(784, 2), np.random.rand(200, 784), y[:200] + np.arange(200) % 2, options)
y[1::2] = 1
before = peak()
result = train_classifier(nn.Linear(784, 2), x, y, options, x_test=x, y_test=y, run_dir=sys.argv[2])
assert result.n_train > 300_000
print(before, peak())
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the system does not tell peak memory")
def test_memory_stays_flat(tmp_path):
    program = [sys.executable, "-c", MEMORY, str(tmp_path / "x"), str(tmp_path / "run")]
    done = subprocess.run(program, capture_output=True, text=True, check=True, timeout=250)
    before, after = map(float, done.stdout.split())
    assert 0 < before < after + 1, "the peak is that of this process"
    # 35 MB are labels, order, split and blocks of samples; the file has 300
    assert after - before < 80


@pytest.mark.slow
def test_two_processes_read_one_file(images, tmp_path):
    x, y = images
    options = {"epochs": 2, "validation": 0.3, "max_shift": 1}
    expected = outcome(train_classifier, chain, x, y, quick(**options))
    for data in ((mapped(tmp_path, x), y), (TensorDataset(torch.tensor(x), torch.tensor(y)), None)):
        found = outcome(train_classifier, chain, *data, quick(**options, devices=2))
        assert found[3:] == expected[3:]
        for one, two in zip(found[0], expected[0], strict=True):
            assert torch.tensor(one).allclose(torch.tensor(two), rtol=1e-4, atol=1e-5)
