"""`partial_fit` on data that do not fit in memory: every sample once, in chunks as in calls of their own."""

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset, TensorDataset

from tnml import MPSClassifier, MPSRegressor
from tnml.errors import InputError
from tnml.estimators import chunks as room
from tnml.estimators.chunks import chunks

COUNT, SITES = 230, 5


@pytest.fixture
def table(monkeypatch):
    monkeypatch.setattr(room, "ROWS", 60)
    monkeypatch.setattr(room, "_BLOCK", 25)
    random = np.random.default_rng(1)
    names = np.array(["ant", "bee", "cat"])
    x = random.random((COUNT, SITES)).astype(np.float32)
    return x, names[np.argmax(x[:, :3], axis=1)]


def mapped(tmp_path, array):
    path = tmp_path / f"{len(list(tmp_path.iterdir()))}.npy"
    np.save(path, array)
    return np.load(path, mmap_mode="r")


class Pairs(Dataset):
    def __init__(self, x, y):
        self.x, self.y = x, y

    def __len__(self):
        return len(self.x)

    def __getitem__(self, index):
        return self.x[index], self.y[index]


def weights(model):
    return model.layer_.weight.detach().tolist()


def classifier():
    return MPSClassifier(bond_dim=3, random_state=0, feature_range=(0, 1))


@pytest.mark.parametrize("kind", ["file", "Dataset", "DataLoader"])
def test_a_pass_is_one_call_for_each_chunk(table, tmp_path, kind):
    x, y = table
    data = {
        "file": (mapped(tmp_path, x), y),
        "Dataset": (Pairs(x, y), None),
        "DataLoader": (DataLoader(Pairs(x, y), batch_size=25), None),
    }[kind]
    classes = np.unique(y)
    expected = classifier()
    for cut in (slice(0, 75), slice(75, 150), slice(150, 230)):
        expected.partial_fit(x[cut], y[cut], classes=classes)
    found = classifier().partial_fit(*data, classes=classes)
    assert weights(found) == weights(expected)
    assert found.n_iter_ == 3
    assert found.predict(x[:3]).tolist() == expected.predict(x[:3]).tolist()


def test_little_data_are_one_chunk_as_arrays_are(table, tmp_path):
    x, y = table[0][:40], table[0][:40, 0] - table[0][:40, 1]
    expected = MPSRegressor(bond_dim=2, random_state=0).partial_fit(x, y)
    for data in ((mapped(tmp_path, x), mapped(tmp_path, y)), (TensorDataset(*map(torch.tensor, (x, y))),)):
        assert weights(MPSRegressor(bond_dim=2, random_state=0).partial_fit(*data)) == weights(expected)


def test_weights_stay_beside_their_samples(table, tmp_path):
    x, y = table
    weight = np.arange(COUNT) % 3 * 1.0
    weight[40:110] = 0.0
    parts = list(chunks(mapped(tmp_path, x), y, weight))
    assert [len(part) for part, _, _ in parts] == [69, 37]
    counts = weight > 0
    for number, column in enumerate((x, y, weight)):
        assert np.array_equal(np.concatenate([part[number] for part in parts]), column[counts])
    found = MPSClassifier(bond_dim=2).partial_fit(
        Pairs(x, y), classes=["ant", "bee", "cat"], sample_weight=weight
    )
    assert found.n_iter_ == 2


@pytest.mark.parametrize(("count", "sizes"), [(60, [60]), (104, [104]), (105, [75, 30])])
def test_no_chunk_is_small(table, tmp_path, count, sizes):
    x, y = table
    assert [len(part) for part, _, _ in chunks(mapped(tmp_path, x[:count]), y[:count])] == sizes


def test_large_rows_make_chunks_of_fewer(table, tmp_path, monkeypatch):
    monkeypatch.setattr(room, "BYTES", 30 * SITES * 4)
    x, y = table
    assert [len(part) for part, _, _ in chunks(mapped(tmp_path, x), y)] == [50, 50, 50, 50, 30]


def test_what_cannot_be_read_is_refused(table, tmp_path):
    x, y = table
    data, loader = Pairs(x, y), DataLoader(Pairs(x, y))
    file = mapped(tmp_path, x)
    for given, text in (
        ((data, y), "a Pairs gives its targets itself; leave y out"),
        ((loader, y), "a DataLoader gives its targets itself"),
        ((loader, None, np.ones(COUNT)), "give the Dataset, not its DataLoader"),
        ((file, y[1:]), r"y must have 230 rows as X has, got shape \[229\]"),
        ((data, None, np.ones(3)), "sample_weight must have 230 rows"),
        ((file, y, np.zeros(COUNT)), "none with a weight above 0"),
        ((DataLoader([{"x": 1.0}]), None), "got dict"),
    ):
        with pytest.raises(InputError, match=text):
            list(chunks(*given))
    with pytest.raises(ValueError, match="requires y"):
        classifier().partial_fit(file, classes=["ant", "bee", "cat"])
    with pytest.raises(ValueError, match="NaN"):
        classifier().partial_fit(mapped(tmp_path, np.where(x > 0.99, np.nan, x)), y, classes=np.unique(y))
