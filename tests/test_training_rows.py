"""Rows of files and Datasets: read as of an array, and what is said where they cannot be used."""

import os
import pickle

import numpy as np
import pytest
import torch
from stream_cases import COUNT, SITES, Pairs, Together, mapped, quick, some_images
from torch import nn
from torch.utils.data import IterableDataset

from tnml.errors import InputError
from tnml.nn import MPSLayer
from tnml.training import TrainOptions, sweep_classifier, train_classifier, train_regressor, train_replicas
from tnml.training.batches import ArrayBatches
from tnml.training.rows import MappedArray


@pytest.fixture
def images():
    return some_images()


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


def test_a_bad_row_is_named_with_its_place(images, tmp_path):
    x, y = np.float64(images[0]), images[1]
    x[40, 3] = np.nan
    layer, options = nn.Linear(SITES, 3), quick()
    batches = ArrayBatches(torch.zeros(COUNT, 1), torch.zeros(COUNT), options)
    (step,) = [s for s in range(8) if 40 in batches(0, s).index.tolist()]
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
    scaled = mapped(tmp_path, (x / 255).astype(np.float32))
    (result,) = train_replicas([MPSLayer(SITES, 3)], scaled, y, options, task="classification")
    assert result.n_train == COUNT
