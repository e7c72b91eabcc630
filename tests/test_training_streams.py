"""Training on files and Datasets: the bits of arrays, resumption, flat memory."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from stream_cases import COUNT, SITES, Pairs, Together, chain, mapped, network, outcome, quick, some_images
from torch import nn
from torch.utils.data import TensorDataset

from tnml.errors import InputError
from tnml.training import (
    TrainingInterrupted,
    evaluate,
    train_classifier,
    train_density,
    train_regressor,
)
from tnml.training.batches import ArrayBatches
from tnml.training.samples import samples_for
from tnml.training.streams import StreamBatches, stream_for
from tnml.training.tasks import CLASSIFICATION


@pytest.fixture
def images():
    return some_images()


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


MEMORY = """
import sys
import numpy as np
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
    found = outcome(train_classifier, chain, mapped(tmp_path, x), y, quick(**options, devices=2))
    assert found[3:] == expected[3:]
    for one, two in zip(found[0], expected[0], strict=True):
        assert torch.tensor(one).allclose(torch.tensor(two), rtol=1e-4, atol=1e-5)
