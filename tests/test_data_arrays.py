"""Arrays and .npz files: what is accepted, how it is scaled, and one clear error for everything else."""

import io
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tnml.data import Dataset, from_arrays, from_npz
from tnml.errors import InputError

X = np.array([[0.0, 0.25], [0.5, 1.0], [0.75, 0.125]])
Y = np.array([0, 1, 1])


def test_values_in_range_are_kept() -> None:
    dataset = from_arrays(X, Y)
    assert dataset.x.dtype == np.float32
    assert np.array_equal(dataset.x, X)
    assert len(dataset) == 3
    assert (dataset.name, dataset.split, dataset.image_shape) == ("arrays", "all", None)


def test_the_copy_is_independent() -> None:
    x = X.astype(np.float32)
    dataset = from_arrays(x, Y)
    x[:] = 0
    assert np.array_equal(dataset.x, X)


def test_pixels_are_divided_by_255() -> None:
    x = np.arange(256, dtype=np.uint8).reshape(2, 128)
    scaled = from_arrays(x, [0, 1]).x
    expected = np.arange(256, dtype=np.float64) / 255
    assert np.array_equal(scaled.ravel(), expected.astype(np.float32)), "correctly rounded quotients"


def test_images_are_flattened_row_by_row() -> None:
    x = np.arange(12).reshape(2, 2, 3) / 12
    dataset = from_arrays(x, [0, 1])
    assert dataset.image_shape == (2, 3)
    np.testing.assert_allclose(dataset.x[1], np.arange(6, 12) / 12, rtol=1e-6)


def test_minmax_uses_one_range_for_all() -> None:
    x = np.array([[-3.0, 1.0], [5.0, 0.0]])
    dataset = from_arrays(x, [0, 1], scale="minmax")
    np.testing.assert_allclose(dataset.x, (x + 3) / 8, rtol=1e-7)
    assert dataset.provenance == "arrays; values -3..5 scaled to 0..1"


@pytest.mark.parametrize("seed", range(20))
def test_scaled_values_never_leave_the_interval(seed: int) -> None:
    rng = np.random.default_rng(seed)
    x = 10.0 ** rng.integers(-30, 30) * (rng.normal(size=(50, 3)) + rng.normal())
    scaled = from_arrays(x, np.zeros(50), scale="minmax").x
    assert scaled.min() == 0
    assert scaled.max() == 1
    order = np.argsort(x, axis=None)
    assert (np.diff(scaled.ravel()[order]) >= 0).all(), "the map is monotone"


@pytest.mark.parametrize(
    ("y", "kind"),
    [
        ([0, 1, 2], "int64"),
        (np.array([0, 1, 2], np.uint8), "int64"),
        (np.array([-1, 5, 2], np.int32), "int64"),
        ([True, False, True], "bool"),
        (["cat", "dog", "cat"], "<U3"),
        (np.array(["cat", "dog", "cat"], dtype=object), "<U3"),
        ([0.5, 1.5, -2.0], "float64"),
        (torch.tensor([2, 1, 0]), "int64"),
    ],
)
def test_label_types(y: Any, kind: str) -> None:
    dataset = from_arrays(X, y)
    assert dataset.y.dtype == np.dtype(kind)
    assert dataset.y.tolist() == list(y)


def test_tensors_are_taken() -> None:
    x = torch.rand(3, 4, generator=torch.Generator().manual_seed(0), requires_grad=True)
    assert np.array_equal(from_arrays(x, Y).x, x.detach().numpy())


def test_subset() -> None:
    dataset = from_arrays(X, ["a", "b", "c"], image_shape=(1, 2))
    part = dataset.subset([2, 0])
    assert part.y.tolist() == ["c", "a"]
    assert np.array_equal(part.x, X[[2, 0]])
    assert part.image_shape == (1, 2)
    assert dataset.subset(np.array([False, True, False])).y.tolist() == ["b"]
    assert "2 of 3" in part.provenance


@pytest.mark.parametrize("indices", [[], [3], [-4], [0.5], [[0]], [True, False]])
def test_bad_subsets(indices: list[Any]) -> None:
    with pytest.raises(InputError):
        from_arrays(X, Y).subset(indices)


BAD_ARRAYS: dict[str, tuple[Any, Any, dict[str, Any], str]] = {
    "NaN": ([[0.0, np.nan]], [0], {}, "1 NaN or infinite values, the first in sample 0"),
    "infinity": ([[0.0], [np.inf], [-np.inf]], [0, 1, 1], {}, "2 NaN .* first in sample 1"),
    "too large": ([[0.0, 17.0]], [0], {}, "values from 0 to 17; scale it first.*minmax"),
    "negative": ([[-0.5, 1.0]], [0], {}, "values from -0.5 to 1"),
    "integers like pixels": (np.array([[0, 255]]), [0], {}, "values from 0 to 255"),
    "no samples": (np.zeros((0, 4)), [], {}, "x is empty"),
    "no sites": (np.zeros((4, 0)), [0] * 4, {}, "x is empty"),
    "one axis": ([0.0, 1.0], [0, 1], {}, r"got shape \[2\]"),
    "colour": (np.zeros((2, 4, 4, 3)), [0, 1], {}, "one channel"),
    "ragged": ([[0.0, 1.0], [0.0]], [0, 1], {}, "not a regular array"),
    "objects": (np.array([[object()]]), [0], {}, "must hold real numbers, got dtype object"),
    "text": ([["a", "b"]], [0], {}, "must hold real numbers"),
    "complex": ([[1j]], [0], {}, "must hold real numbers, got dtype complex128"),
    "fewer labels": (X, [0, 1], {}, "x has 3 samples but y has 2"),
    "more labels": (X, [0, 1, 2, 3], {}, "x has 3 samples but y has 4"),
    "columns of labels": (X, [[0, 1], [1, 1], [2, 0]], {}, r"y\.ravel"),
    "scalar label": (X, np.array(3), {}, r"shape \[n\], got \[\]"),
    "label objects": (X, np.array([object()] * 3), {}, "y must hold numbers or text"),
    "mixed labels": (X, np.array([1, "a", None], dtype=object), {}, "y must hold numbers or text"),
    "NaN label": (X, [0.0, np.nan, 1.0], {}, "y holds 1 NaN"),
    "wrong image shape": (X, Y, {"image_shape": (2, 2)}, r"image_shape \(2, 2\) does not fit 2 sites"),
    "other image shape": (np.zeros((3, 2, 2)), Y, {"image_shape": (1, 4)}, "contradicts the images"),
    "constant": (np.full((3, 2), 7.0), Y, {"scale": "minmax"}, "every value of x is 7"),
    "unknown scale": (X, Y, {"scale": "minimax"}, "unknown scale 'minimax'; did you mean 'minmax'"),
    "empty range": (X, Y, {"scale": (1, 1)}, "low < high"),
    "outside the range": (X, Y, {"scale": (0.2, 1)}, r"must lie in \[0\.2, 1\]"),
}


@pytest.mark.parametrize("case", BAD_ARRAYS)
def test_bad_arrays(case: str) -> None:
    x, y, options, says = BAD_ARRAYS[case]
    with pytest.raises(InputError, match=says) as caught:
        from_arrays(x, y, "mine", **options)
    assert "\n" not in str(caught.value) or case == "ragged"


def test_the_record_checks_itself() -> None:
    good = np.zeros((3, 4), np.float32)
    for x, y, shape, says in [
        (good[:0], Y[:0], None, "non-empty"),
        (good, Y[:2], None, r"y must have shape \[3\], got \[2\]"),
        (good, Y, (3, 3), "does not fit 4 sites"),
        (good + 2, Y, None, r"must lie in \[0, 1\]"),
        (good * np.float32("nan"), Y, None, r"must lie in \[0, 1\]"),
    ]:
        with pytest.raises(InputError, match=says):
            Dataset(x, y, "mine", "all", shape, "here")


@pytest.fixture
def four(tmp_path: Path) -> Path:
    path = tmp_path / "four.npz"
    x_test = np.array([[0.0, 20.0]])
    np.savez_compressed(path, x_train=X * 8 + 2, y_train=Y, x_test=x_test, y_test=[1])
    return path


def test_npz_with_train_and_test(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x_train=X, y_train=Y, x_test=X[:1], y_test=Y[:1])
    assert np.array_equal(from_npz(tmp_path / "a.npz").x, X)
    assert len(from_npz(tmp_path / "a.npz", "test")) == 1
    assert from_npz(tmp_path / "a.npz", "all").y.tolist() == [0, 1, 1, 0]
    assert from_npz(tmp_path / "a.npz").name == "a"


def test_npz_minmax_uses_the_train_range(four: Path) -> None:
    assert np.array_equal(from_npz(four, scale="minmax").x, X)
    with pytest.warns(UserWarning, match=r"in the test part 100\.0 % of the values"):
        assert from_npz(four, "test", scale="minmax").x.tolist() == [[0.0, 1.0]], "clipped to the train range"
    with pytest.warns(UserWarning, match="cut off"):
        assert len(from_npz(four, "all", scale="minmax")) == 4
    with pytest.raises(InputError, match="values from 2 to 10"):
        from_npz(four)


def test_npz_with_x_and_y_holds_a_quarter_out(tmp_path: Path) -> None:
    x, y = np.arange(40).reshape(40, 1) / 40, np.repeat(["a", "b"], 20)
    np.savez(tmp_path / "a.npz", x=x, y=y)
    parts = [from_npz(tmp_path / "a.npz", split) for split in ("train", "test", "all")]
    assert [len(part) for part in parts] == [30, 10, 40]
    assert sorted(np.concatenate([parts[0].x, parts[1].x])) == sorted(parts[2].x)
    assert (parts[1].y == "a").sum() == 5
    assert np.array_equal(parts[2].x, x.astype(np.float32)), "all keeps the file's order"
    assert "quarter held out" in parts[0].provenance


def test_npz_with_real_targets_holds_a_plain_quarter_out(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.zeros((40, 2)), y=np.linspace(0, 1, 40))
    assert len(from_npz(tmp_path / "a.npz", "test")) == 10
    np.savez(tmp_path / "one.npz", x=np.zeros((1, 2)), y=[0.5])
    with pytest.raises(InputError, match="a quarter cannot be held out of one sample"):
        from_npz(tmp_path / "one.npz")


def test_npz_images_and_text_labels(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x_train=np.zeros((2, 3, 4), np.uint8), y_train=["no", "yes"])
    dataset = from_npz(tmp_path / "a.npz")
    assert dataset.image_shape == (3, 4)
    assert dataset.y.tolist() == ["no", "yes"]


BAD_NPZ: dict[str, tuple[dict[str, Any], str, str]] = {
    "no arrays": ({}, "train", r"holds the arrays \(none\); expected x and y"),
    "other names": ({"data": X}, "train", "holds the arrays data; expected x and y"),
    "x alone": ({"x": X}, "train", "expected x and y"),
    "half a test part": ({"x_train": X, "y_train": Y, "x_test": X}, "train", "expected x and y"),
    "no test part": ({"x_train": X, "y_train": Y}, "test", "has no test part, only train"),
    "object labels": ({"x": X, "y": np.array([1, "a", None], object)}, "all", "y in .* Python objects"),
    "object values": ({"x": np.array([[{}]]), "y": [0]}, "all", "x in .* holds Python objects"),
    "other widths": (
        {"x_train": X, "y_train": Y, "x_test": X[:, :1], "y_test": Y},
        "all",
        "the parts differ in width",
    ),
    "lengths": ({"x": X, "y": Y[:2]}, "train", "one label for each sample"),
    "empty": ({"x": np.zeros((0, 2)), "y": np.zeros(0, int)}, "train", "x is empty"),
    "NaN": ({"x": X * np.nan, "y": Y}, "all", "6 NaN"),
    "lone class": ({"x": X, "y": Y}, "train", "class 0 has one member"),
    "unknown split": ({"x": X, "y": Y}, "validation", "unknown split 'validation'"),
}


@pytest.mark.parametrize("case", BAD_NPZ)
def test_bad_npz(tmp_path: Path, case: str) -> None:
    arrays, split, says = BAD_NPZ[case]
    np.savez(tmp_path / "bad.npz", **arrays)
    with pytest.raises(InputError, match=says) as caught:
        from_npz(tmp_path / "bad.npz", split)
    assert "\n" not in str(caught.value)


def test_nothing_is_unpickled(tmp_path: Path) -> None:
    """An object that leaves a mark when it is unpickled leaves none."""
    mark = tmp_path / "mark"

    class Hostile:
        def __reduce__(self) -> tuple[Any, tuple[str]]:
            return (Path.touch, (mark,))  # type: ignore[return-value]

    np.savez(tmp_path / "a.npz", x=X, y=np.array([Hostile()] * 3, dtype=object))
    (tmp_path / "b.npz").write_bytes(pickle.dumps(Hostile()))
    for name in ("a.npz", "b.npz"):
        with pytest.raises(InputError):
            from_npz(tmp_path / name, "all")
    assert not mark.exists()
    pickle.loads((tmp_path / "b.npz").read_bytes())
    assert mark.exists(), "the trap works"


def npy(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


@pytest.mark.parametrize("content", [b"", b"not a zip", b"PK\x03\x04 broken", npy(X)])
def test_files_that_are_no_archive(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "bad.npz").write_bytes(content)
    with pytest.raises(InputError, match=r"bad\.npz"):
        from_npz(tmp_path / "bad.npz")


def test_members_that_are_no_arrays(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "bad.npz", "w") as archive:
        archive.writestr("x.npy", npy(X))
        archive.writestr("y.npy", "0,1,1")
    with pytest.raises(InputError, match=r"y in .* is not an array"):
        from_npz(tmp_path / "bad.npz")


def test_missing_npz(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no \.npz file at"):
        from_npz(tmp_path / "nowhere.npz")


@pytest.mark.slow
def test_damaged_archives_never_escape_as_other_errors(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    path = tmp_path / "a.npz"
    refused = 0
    for save in (np.savez, np.savez_compressed):
        save(path, x=rng.random((40, 3)), y=np.arange(40) % 2)
        whole = path.read_bytes()
        cuts = [whole[:length] for length in range(0, len(whole), 7)]
        flips = []
        for _ in range(300):
            content = bytearray(whole)
            content[rng.integers(len(content))] ^= int(rng.integers(1, 256))
            flips.append(bytes(content))
        for content in cuts + flips:
            path.write_bytes(content)
            try:
                from_npz(path)
            except InputError:
                refused += 1
    assert refused > 400
