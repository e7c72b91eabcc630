"""IDX files built byte by byte: every number type, every kind of damage, and the names of a folder."""

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest

from tnml.data import from_idx
from tnml.data.idx import find_part, read_idx
from tnml.errors import InputError

# code of the type, struct letter, values at the edges of the type, NumPy's name
TYPES = [
    (0x08, "B", [0, 1, 127, 128, 255, 7], "uint8"),
    (0x09, "b", [0, 1, -1, 127, -128, 7], "int8"),
    (0x0B, "h", [0, 1, -2, 32767, -32768, 258], "int16"),
    (0x0C, "i", [0, 1, -2, 2**31 - 1, -(2**31), 16909060], "int32"),
    (0x0D, "f", [0.0, 1.0, -2.5, 0.15625, 1e30, -1e-30], "float32"),
    (0x0E, "d", [0.0, 1.0, -2.5, 0.1, 1e300, -1e-300], "float64"),
]


def idx_bytes(code: int, letter: str, shape: tuple[int, ...], values: list[float]) -> bytes:
    header = bytes([0, 0, code, len(shape)]) + b"".join(struct.pack(">I", length) for length in shape)
    return header + struct.pack(f">{len(values)}{letter}", *values)


def images(*rows: list[int], shape: tuple[int, int] = (2, 3)) -> bytes:
    return idx_bytes(8, "B", (len(rows), *shape), [pixel for row in rows for pixel in row])


def labels(*values: int) -> bytes:
    return idx_bytes(8, "B", (len(values),), list(values))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two train images, packed, and one test image, plain."""
    first, second = [0, 51, 102, 153, 204, 255], [255, 0, 0, 0, 0, 255]
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(images(first, second)))
    (tmp_path / "train-labels-idx1-ubyte.gz").write_bytes(gzip.compress(labels(3, 9)))
    (tmp_path / "t10k-images.idx3-ubyte").write_bytes(images(second))
    (tmp_path / "t10k-labels.idx1-ubyte").write_bytes(labels(1))
    return tmp_path


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(("code", "letter", "values", "name"), TYPES)
def test_every_number_type(
    tmp_path: Path, code: int, letter: str, values: list[float], name: str, packed: bool
) -> None:
    content = idx_bytes(code, letter, (2, 3), values)
    path = tmp_path / "any-name"
    path.write_bytes(gzip.compress(content) if packed else content)
    array = read_idx(path)
    assert array.dtype == np.dtype(name)
    assert array.dtype.isnative
    assert array.flags.writeable
    expected = [struct.unpack(letter, struct.pack(letter, value))[0] for value in values]
    assert array.tolist() == [expected[:3], expected[3:]]


def test_axes_are_row_major(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(idx_bytes(8, "B", (2, 2, 3), list(range(12))))
    assert read_idx(path)[1, 0].tolist() == [6, 7, 8]


def test_every_truncation_is_refused(tmp_path: Path) -> None:
    whole = idx_bytes(0x0B, "h", (2, 3), [1, 2, 3, 4, 5, 6])
    path = tmp_path / "cut"
    for content in (whole, gzip.compress(whole, mtime=0)):
        for length in range(len(content)):
            path.write_bytes(content[:length])
            with pytest.raises(InputError, match="cut"):
                read_idx(path)
        path.write_bytes(content)
        assert read_idx(path).tolist() == [[1, 2, 3], [4, 5, 6]]


def test_flipped_bytes_never_escape_as_other_errors(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    path = tmp_path / "flipped"
    refused = 0
    for packed in (False, True):
        whole = idx_bytes(0x0D, "f", (4, 3, 2), list(range(24)))
        whole = gzip.compress(whole, mtime=0) if packed else whole
        for _ in range(300):
            content = bytearray(whole)
            content[rng.integers(len(content))] ^= int(rng.integers(1, 256))
            path.write_bytes(content)
            try:
                read_idx(path)
            except InputError as error:
                refused += str(path) in str(error)
    assert refused > 250


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "not an IDX file"),
        (b"\x89PNG\r\n\x1a\n....", "not an IDX file.*89 50 4e 47"),
        (b"\0\0\x07\x01\0\0\0\x01\x05", "unknown IDX number type 07"),
        (b"\0\0\x08\x00\x05", "claims 0 axes"),
        (b"\0\0\x08\xff" + b"\0" * 2000, "claims 255 axes"),
        (b"\0\0\x08\x03\0\0\0\x02", "ends inside its header"),
        (b"\0\0\x08\x01\0\0\0\x03\x01\x02\x03\x04", "promises 3 bytes .* but holds more"),
        (b"\0\0\x08\x01\0\0\0\x03\x01\x02", "promises 3 bytes .* but holds only 2"),
        (b"\0\0\x0e\x04" + b"\xff" * 16 + b"\x01", "but holds only 1"),
        (b"\x1f\x8b broken gzip", "cannot be read"),
    ],
)
def test_damage_is_named(tmp_path: Path, content: bytes, says: str) -> None:
    path = tmp_path / "bad-images"
    path.write_bytes(content)
    with pytest.raises(InputError, match=says) as caught:
        read_idx(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_bomb_is_not_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "bomb.gz"
    path.write_bytes(gzip.compress(labels(1, 2) + bytes(100_000_000), compresslevel=1))
    with pytest.raises(InputError, match=r"promises 2 bytes .* holds more"):
        read_idx(path)


def test_missing_file() -> None:
    with pytest.raises(InputError, match="no IDX file at nowhere"):
        read_idx("nowhere")


def test_folder_gives_scaled_pixels(folder: Path) -> None:
    train, test = from_idx(folder), from_idx(folder, "test")
    assert train.x.dtype == np.float32
    np.testing.assert_allclose(train.x[0], [0, 0.2, 0.4, 0.6, 0.8, 1], rtol=1e-6)
    assert train.y.tolist() == [3, 9]
    assert train.y.dtype == np.int64
    assert (train.image_shape, train.split, train.name) == ((2, 3), "train", folder.name)
    assert test.x.tolist() == [[1, 0, 0, 0, 0, 1]]
    assert "pixels / 255" in test.provenance


def test_all_joins_train_and_test(folder: Path) -> None:
    both = from_idx(folder, "all")
    assert both.y.tolist() == [3, 9, 1]
    assert both.x[2].tolist() == [1, 0, 0, 0, 0, 1]
    assert both.split == "all"


def test_own_scale(folder: Path) -> None:
    assert from_idx(folder, scale=(0, 510)).x.max() == 0.5


@pytest.mark.parametrize(
    "stem", ["emnist-letters-train", "train", "my_train"], ids=["prefix with dashes", "bare", "underscore"]
)
def test_names_with_prefixes(tmp_path: Path, stem: str) -> None:
    (tmp_path / f"{stem}-images-idx3-ubyte").write_bytes(images([1] * 6))
    (tmp_path / f"{stem}-labels-idx1-ubyte").write_bytes(labels(1))
    assert len(from_idx(tmp_path)) == 1
    with pytest.raises(InputError, match="has no test part, only train"):
        from_idx(tmp_path, "test")
    assert len(from_idx(tmp_path, "all")) == 1


def test_flat_rows_have_no_image_shape(tmp_path: Path) -> None:
    (tmp_path / "train-images-idx2-ubyte").write_bytes(idx_bytes(8, "B", (2, 3), [0] * 6))
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(labels(1, 2))
    assert from_idx(tmp_path).image_shape is None


def test_plain_goes_before_packed(folder: Path) -> None:
    (folder / "train-labels-idx1-ubyte").write_bytes(labels(5, 6))
    assert from_idx(folder).y.tolist() == [5, 6]


def test_several_sets_in_a_folder(folder: Path) -> None:
    (folder / "old-train-images-idx3-ubyte").write_bytes(images([1] * 6))
    assert find_part(folder, "train") is not None, "half a set is none"
    (folder / "old-train-labels-idx1-ubyte").write_bytes(labels(1))
    with pytest.raises(InputError, match="several train sets"):
        from_idx(folder)


def test_bad_folders(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(InputError, match="no folder at"):
        from_idx(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no pair of IDX files; expected train-images"):
        from_idx(tmp_path / "empty")
    with pytest.raises(InputError, match="unknown split 'trian'; did you mean 'train'"):
        from_idx(folder, "trian")


@pytest.mark.parametrize(
    ("image_file", "label_file", "says"),
    [
        (images([0] * 6), labels(1, 2), "holds 1 samples but .* holds 2"),
        (labels(1), labels(1), "train-images.* has 1 axes.*is it a label file"),
        (images([0] * 6), images([0] * 6), "train-labels.* has 3 axes.*is it an image file"),
        (idx_bytes(8, "B", (1, 1, 2, 3), [0] * 6), labels(1), "has 4 axes"),
        (idx_bytes(8, "B", (0, 2, 3), []), idx_bytes(8, "B", (0,), []), "x is empty"),
        (idx_bytes(0x0B, "h", (1, 2, 3), [0, 300, 0, 0, 0, 0]), labels(1), "values from 0 to 300"),
        (idx_bytes(0x0D, "f", (1, 1, 2), [float("nan"), 0.0]), labels(1), "1 NaN or infinite values"),
    ],
)
def test_files_that_do_not_fit(tmp_path: Path, image_file: bytes, label_file: bytes, says: str) -> None:
    (tmp_path / "train-images-idx3-ubyte").write_bytes(image_file)
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(label_file)
    with pytest.raises(InputError, match=says):
        from_idx(tmp_path)
