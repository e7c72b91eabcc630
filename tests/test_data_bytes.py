"""Bytes (uint8) that are pixels, and bytes that are not: what they hold and the training part decide."""

import numpy as np
import pytest

from tnml.cli import main
from tnml.cli.goals import Labels
from tnml.data import from_arrays, from_idx, from_npz
from tnml.data.dataset import PIXELS
from tnml.errors import InputError

GREY = np.array([[0, 200], [100, 255]], np.uint8)
BITS = np.array([[0, 1], [1, 1]], np.uint8)
SIXTEEN = np.array([[0, 16], [3, 8]], np.uint8)
DARK = np.array([[0, 40], [90, 100]], np.uint8)
Y = [0, 1]


@pytest.mark.parametrize("dtype", [np.uint8, bool, np.int64, np.float32])
def test_zeros_and_ones_are_the_same_whatever_their_dtype(dtype):
    made = from_arrays(BITS.astype(dtype), Y)
    assert np.array_equal(made.x, BITS)
    assert PIXELS not in made.provenance


def test_bytes_of_images_are_pixels():
    made = from_arrays(GREY, Y)
    assert np.array_equal(made.x, (GREY / 255.0).astype(np.float32))
    assert PIXELS in made.provenance
    assert np.array_equal(from_arrays(GREY, Y, scale=(0, 255)).x, made.x)


@pytest.mark.parametrize("x", [SIXTEEN, DARK], ids=["sixteen", "dark"])
def test_doubtful_bytes_are_refused_like_larger_integers(x):
    with pytest.raises(InputError) as of_integers:
        from_arrays(x.astype(np.int16), Y)
    with pytest.raises(InputError) as of_bytes:
        from_arrays(x, Y)
    assert str(of_bytes.value) == str(of_integers.value)
    assert np.array_equal(from_arrays(x, Y, scale="pixels").x, (x / 255.0).astype(np.float32))


def test_where_pixels_are_expected_zeros_and_ones_are_doubtful():
    with pytest.raises(InputError, match="only 0 and 1"):
        from_arrays(BITS, Y, scale="pixels")
    assert from_arrays(0 * BITS, Y, scale="pixels").x.max() == 0, "black is black on every scale"
    assert np.array_equal(from_arrays(BITS / 2, Y, scale="pixels").x, BITS / 2), "floats are no bytes"


def parts(folder, train, test):
    np.savez(folder / "a.npz", x_train=train, y_train=Y, x_test=test, y_test=Y)
    return folder / "a.npz"


@pytest.mark.parametrize(
    ("train", "test", "expected"),
    [
        (GREY, DARK, DARK / 255.0),
        (GREY, 0 * DARK, 0 * DARK),
        (BITS, BITS, BITS),
        (BITS, 0 * BITS, 0 * BITS),
        (BITS > 0, BITS, BITS),
        (GREY, BITS / 2, BITS / 2),
    ],
    ids=["dark", "black", "bits", "no bits", "truth values", "floats"],
)
def test_the_training_part_says_what_bytes_are(tmp_path, train, test, expected):
    path = parts(tmp_path, train, test)
    assert np.array_equal(from_npz(path, "test").x, np.float32(expected))
    assert np.array_equal(from_npz(path, "all").x[2:], np.float32(expected))


@pytest.mark.parametrize(("train", "test"), [(BITS, GREY), (BITS, DARK), (GREY, BITS), (SIXTEEN, GREY)])
def test_a_test_part_on_another_scale_is_refused(tmp_path, train, test):
    path = parts(tmp_path, train, test)
    for split in ("test", "all"):
        with pytest.raises(InputError, match=r"x must lie in|only 0 and 1"):
            from_npz(path, split)


def idx(path, array):
    path.write_bytes(bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes() + array.tobytes())


def test_idx_files_follow_their_training_part(tmp_path):
    for part, x in (("train", GREY), ("t10k", DARK)):
        idx(tmp_path / f"{part}-images-idx2-ubyte", x)
        idx(tmp_path / f"{part}-labels-idx1-ubyte", np.array(Y, np.uint8))
    assert np.array_equal(from_idx(tmp_path, "test").x, (DARK / 255.0).astype(np.float32))


def test_images_with_one_channel():
    images = np.linspace(0, 1, 2 * 3 * 4).reshape(2, 3, 4)
    for x in (images[:, None], images[..., None]):
        made = from_arrays(x, Y)
        assert made.image_shape == (3, 4)
        assert np.array_equal(made.x, np.float32(images.reshape(2, -1)))
    with pytest.raises(InputError, match="one channel"):  # 1 x 4 or 4 x 1?
        from_arrays(images[:, None, :1, :].transpose(0, 1, 3, 2), Y)


def test_a_column_of_labels(tmp_path):
    assert from_arrays(BITS, [["a"], ["b"]]).y.tolist() == ["a", "b"]
    np.savez(tmp_path / "a.npz", x=np.tile(BITS, (4, 1)), y=np.tile([[0], [1]], (4, 1)))
    assert from_npz(tmp_path / "a.npz", "train").y.shape == (6,)


@pytest.mark.slow
def test_the_command_line_takes_bytes_as_the_model_was_trained(tmp_path, monkeypatch, capsys):
    """As in the report: 0/1 as bytes trained to chance, and models of truth values saw nothing in bytes."""
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(0)
    y = np.arange(200) % 2
    bits = random.random((200, 9)) < np.where(y, 0.8, 0.2)[:, None]
    grey = np.uint8(255 * (0.2 + 0.8 * random.random((200, 9))) * bits)
    dark = grey // 4
    given = {"bits": bits, "bytes": np.uint8(bits), "grey": grey, "dark": dark, "numbers": dark / 255}
    for name, x in given.items():
        np.savez(f"{name}.npz", x=x, y=y)

    def accuracy(*words):
        assert main([*words]) == 0, capsys.readouterr().err
        found = [line.split()[-1] for line in capsys.readouterr().out.splitlines() if "accuracy:" in line]
        return float(found[0])

    quick = ["--train.epochs", "5", "--train.lr", "0.05", "--model.bond_dim", "2"]
    for name in ("bits", "bytes", "grey"):
        assert accuracy("train", f"{name}.npz", *quick, "--out", name) > 0.8
    assert accuracy("evaluate", "bits", "bytes.npz") == accuracy("evaluate", "bits", "bits.npz")
    as_pixels = accuracy("evaluate", "grey", "dark.npz")
    assert as_pixels == accuracy("evaluate", "grey", "numbers.npz"), "dark pixels are pixels"
    assert main(["evaluate", "bits", "dark.npz"]) == 2
    assert "--scale [0,255]" in capsys.readouterr().err
    assert main(["evaluate", "grey", "bytes.npz"]) == 2
    assert "--scale [0,255]" in capsys.readouterr().err
    np.save("one.npy", np.uint8(bits)[:1])
    assert main(["predict", "bits", "one.npy"]) == 0


def test_floats_are_labels_where_there_is_no_doubt():
    y = np.tile([2.0, 5.0], 20)
    goal = Labels.of_data(from_arrays(np.zeros((40, 2)), y))
    assert goal.classes.tolist() == [2, 5]
    assert goal.classes.dtype == np.int64
    assert goal.targets(from_arrays(np.zeros((40, 2)), y)).tolist() == [0, 1] * 20
    for doubtful in (y + 0.5, np.arange(40.0), np.where(y == 2, 2.0, 1e9 + 0.5)):
        with pytest.raises(InputError, match="choose --task regression"):
            Labels.of_data(from_arrays(np.zeros((40, 2)), doubtful))
