"""`load` by name, folder and file; the digits; and the real MNIST and Fashion-MNIST of TNML_DATA."""

from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_digits

from tnml.data import available, fetch, load
from tnml.errors import InputError

# labels 0-9 as counted in the original files
MNIST_COUNTS = {
    "train": [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949],
    "test": [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009],
}


def test_digits_are_those_of_scikit_learn() -> None:
    original = load_digits()
    everything = load("digits", split="all")
    assert np.array_equal(everything.x, (original.data / 16).astype(np.float32))
    assert np.array_equal(everything.y, original.target)
    assert everything.y.dtype == np.int64
    assert everything.image_shape == (8, 8)


def test_digits_hold_a_stratified_quarter_out() -> None:
    train, test = load("digits"), load("digits", split="test")
    assert (len(train), len(test)) == (1346, 451)
    total = np.bincount(load_digits().target)
    assert np.bincount(test.y).tolist() == [int(count * 0.25 + 0.5) for count in total]
    rows = {row.tobytes() for row in train.x}
    assert not [row for row in test.x if row.tobytes() in rows], "no image in both parts"
    assert np.array_equal(load("digits", split="test").x, test.x), "the same quarter every time"
    assert "quarter held out" in test.provenance


def test_pool_and_resize() -> None:
    full, pooled = load("digits", split="test"), load("digits", split="test", pool=2)
    assert pooled.image_shape == (4, 4)
    expected = full.x.reshape(-1, 4, 2, 4, 2).mean(axis=(2, 4)).reshape(-1, 16)
    np.testing.assert_allclose(pooled.x, expected, rtol=1e-6)
    assert pooled.provenance.endswith("mean over 2x2 blocks")
    resized = load("digits", split="test", pool=2, resize=(3, 5))
    assert (resized.image_shape, resized.x.shape[1]) == ((3, 5), 15)
    assert resized.provenance.endswith("mean over 2x2 blocks; resized to 3x5")
    assert np.array_equal(resized.y, full.y)


def test_available_counts_what_load_gives() -> None:
    records = available()
    assert [record.name for record in records] == ["digits", "mnist", "fashion-mnist"]
    digits = records[0]
    assert digits.present
    assert (digits.n_train, digits.n_test) == (len(load("digits")), len(load("digits", split="test")))


def test_folders_and_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.savez(tmp_path / "toy.npz", x=np.zeros((8, 4, 4), np.uint8), y=np.arange(8) % 2)
    assert load(tmp_path / "toy.npz", pool=2).image_shape == (2, 2)
    assert len(load(str(tmp_path / "toy.npz"), split="all")) == 8
    np.savez(tmp_path / "columns.npz", x=np.arange(8.0).reshape(8, 1), y=np.arange(8) % 2)
    assert load(tmp_path / "columns.npz", split="all", scale="minmax").x.max() == 1
    (tmp_path / "mnist").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="no pair of IDX files"):
        load("./mnist")


def test_bad_requests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TNML_DATA", raising=False)
    (tmp_path / "table.txt").write_text("1,2")
    np.savez(tmp_path / "columns.npz", x=np.zeros((8, 3)), y=np.arange(8) % 2)
    cases: list[tuple[str, dict[str, object], str]] = [
        ("digit", {}, "unknown data set 'digit'; did you mean 'digits'"),
        ("MNIST", {}, "unknown data set 'MNIST'"),
        ("nowhere/data.npz", {}, r"no \.npz file at"),
        ("nowhere/data", {}, "no file or folder at"),
        ("table.txt", {}, r"neither a \.npz file nor a folder"),
        ("digits", {"split": "valid"}, "unknown split 'valid'"),
        ("digits", {"pool": 3}, "pool must divide 8 and 8, got 3"),
        ("digits", {"pool": 0}, "pool must divide"),
        ("digits", {"resize": (0, 8)}, "resize must be"),
        ("digits", {"scale": "minmax"}, "already in"),
        ("columns.npz", {"pool": 2}, "pool needs images, but columns has plain columns"),
        ("columns.npz", {"resize": (2, 2)}, "resize needs images"),
        ("columns.npz", {"target": "y"}, "target and drop name columns of a table, .* columns.npz is none"),
        ("digits", {"drop": ["a"]}, "target and drop name columns of a table, .* digits is none"),
        ("mnist", {"cache": tmp_path, "download": False}, "mnist is neither in .*`tnml data fetch mnist`"),
    ]
    for name, options, says in cases:
        with pytest.raises(InputError, match=says) as caught:
            load(name, **options)  # type: ignore[arg-type]
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("split", ["train", "test"])
def test_real_mnist(data_dir: Path, split: str) -> None:
    dataset = load("mnist", split=split, download=False)
    assert np.bincount(dataset.y).tolist() == MNIST_COUNTS[split]
    assert dataset.x.shape == (sum(MNIST_COUNTS[split]), 784)
    levels = dataset.x * 255
    np.testing.assert_allclose(levels[:100], levels[:100].round(), atol=1e-4)
    assert (dataset.x.min(), dataset.x.max()) == (0, 1)
    assert str(data_dir) not in dataset.provenance


@pytest.mark.parametrize(
    ("name", "mean", "deviation"), [("mnist", 0.1307, 0.3081), ("fashion-mnist", 0.2860, 0.3530)]
)
def test_real_moments(data_dir: Path, name: str, mean: float, deviation: float) -> None:
    """The mean and deviation of the training pixels which tutorials quote for normalising."""
    x = load(name, download=False).x
    assert x.mean(dtype=np.float64) == pytest.approx(mean, abs=5e-5)
    assert x.std(dtype=np.float64) == pytest.approx(deviation, abs=5e-5)


@pytest.mark.parametrize("split", ["train", "test"])
def test_real_fashion_mnist(data_dir: Path, split: str) -> None:
    dataset = load("fashion-mnist", split=split, pool=2, download=False)
    assert np.bincount(dataset.y).tolist() == [len(dataset) // 10] * 10
    assert len(dataset) == {"train": 60000, "test": 10000}[split]
    assert dataset.image_shape == (14, 14)


def test_real_files_have_the_recorded_sums(data_dir: Path) -> None:
    for name in ("mnist", "fashion-mnist"):
        assert fetch(name, verify=True) == data_dir / name
