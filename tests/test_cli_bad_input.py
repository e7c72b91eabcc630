"""Bad input to the command line: exit code 2, one line that says what is wrong, and no file left behind."""

import gzip
import io
import json
import os
import pickle
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pooch
import pytest
import torch
from safetensors.torch import save_file

import tnml
from tnml.cli import main
from tnml.nn import MPSLayer
from tnml.training import TrainOptions, train_classifier

X = np.linspace(0, 1, 48).reshape(12, 4)
Y = np.arange(12) % 3


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


class Hostile:
    """Unpickling one of these would run a command."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("broken-into",)


def cut(path: Path, keep: float = 0.6) -> None:
    path.write_bytes(path.read_bytes()[: int(keep * path.stat().st_size)])


def idx(*shape: int, content: bytes) -> bytes:
    return bytes([0, 0, 8, len(shape)]) + b"".join(n.to_bytes(4, "big") for n in shape) + content


def write_toy(name: str = "toy.npz", **arrays: Any) -> None:
    np.savez(name, **({"x": X, "y": Y} | arrays))


def write_object_labels() -> None:
    np.savez("toy.npz", x=X, y=np.array([{"a": 1}] * 12, dtype=object), allow_pickle=True)


def write_cut_npz() -> None:
    write_toy()
    cut(Path("toy.npz"))


def write_idx(count: int = 12, keep: float = 1.0, magic: int = 0, packed: bool = False) -> None:
    Path("set").mkdir()
    for part in ("train", "t10k"):
        images = idx(count, 2, 2, content=bytes(range(4 * count)))
        images = bytes([magic]) + images[1:]
        images = gzip.compress(images) if packed else images
        Path(f"set/{part}-images-idx3-ubyte").write_bytes(images[: int(keep * len(images))])
        Path(f"set/{part}-labels-idx1-ubyte").write_bytes(idx(12, content=bytes([0, 1, 2] * 4)))


def write_model(name: str = "model.safetensors") -> None:
    tnml.MPSClassifier(bond_dim=2, epochs=1, random_state=0).fit(X, Y).save(name)


def write_cut_model() -> None:
    write_model()
    cut(Path("model.safetensors"))


def write_foreign_model() -> None:
    save_file({"weight": torch.zeros(3)}, "model.safetensors")


def write_pickled_model() -> None:
    Path("model.safetensors").write_bytes(pickle.dumps(Hostile()))


def write_future_model() -> None:
    save_file({"weight": torch.zeros(3)}, "model.safetensors", metadata={"tnml": json.dumps({"format": 99})})


def write_lying_model() -> None:
    about = {"format": 1, "kind": "classifier", "config": {"n_sites": "four"}, "parameters": {}}
    save_file({"weight": torch.zeros(3)}, "model.safetensors", metadata={"tnml": json.dumps(about)})


def write_run(checkpoint_bytes: Callable[[], bytes]) -> None:
    """A run that was stopped, with another checkpoint."""
    write_toy()
    Path("run").mkdir()
    Path("run/options.yaml").write_text("dataset: toy.npz\ntrain: {epochs: 2}\nmodel: {bond_dim: 2}\n")
    Path("run/checkpoint.pt").write_bytes(checkpoint_bytes())


def hostile_checkpoint() -> bytes:
    stream = io.BytesIO()
    torch.save({"format": 1, "state": {"epoch": Hostile()}}, stream)
    return stream.getvalue()


def other_checkpoint() -> bytes:
    layer = MPSLayer(4, 3, 2)
    train_classifier(layer, X, Y, TrainOptions(epochs=1, device="cpu"), run_dir="other")
    content = Path("other/checkpoint.pt").read_bytes()
    for path in Path("other").iterdir():
        path.unlink()
    Path("other").rmdir()
    return content


def cut_checkpoint() -> bytes:
    return other_checkpoint()[:700]


def yaml_file(text: str) -> Callable[[], None]:
    def write() -> None:
        Path("options.yaml").write_text(text)

    return write


def no_preparation() -> None:
    pass


CONFIG = ["train", "--config", "options.yaml"]
INSPECT = ["inspect", "model.safetensors"]
QUICK = ["--train.epochs", "1", "--device", "cpu"]

# Command lines: what lies in the folder, the words, what the one line has to say.
COMMAND_LINE: dict[str, tuple[Callable[[], None], list[str], str]] = {
    "command": (no_preparation, ["trian"], r"unknown command 'trian'; did you mean 'train'\?"),
    "option": (
        no_preparation,
        ["train", "--trian.epochs", "3"],
        r"unknown option .*did you mean --train\.epochs\?",
    ),
    "abbreviation": (no_preparation, ["train", "--see", "3"], r"unknown option --see; did you mean --seed\?"),
    "extra word": (no_preparation, ["train", "digits", "mnist"], r"unexpected word 'mnist'"),
    "no value": (no_preparation, ["train", "--train.epochs"], r"--train\.epochs: expected one argument"),
    "wrong type": (
        no_preparation,
        ["train", "--train.epochs", "many"],
        r"--train\.epochs: expected int, got many",
    ),
    "wrong value": (no_preparation, ["train", "--train.epochs", "0"], r"epochs must be .* at least 1, got 0"),
    "wrong pair": (no_preparation, ["train", "--data.resize", "14"], r"--data\.resize: expected .* got 14"),
    "device": (no_preparation, ["train", "--device", "cuda:99"], r"needs CUDA device 99, .* use 'cpu'"),
    "preset": (
        no_preparation,
        ["train", "--preset", "acurate"],
        r"unknown preset .*did you mean 'accurate'\?",
    ),
    "order": (no_preparation, ["train", "--model.order", "hilbrt"], r"'hilbrt'; did you mean 'hilbert'\?"),
    "bond_dim": (
        no_preparation,
        ["train", "--model.bond_dim", "0"],
        r"bond_dim must be .* at least 1, got 0",
    ),
    "label site": (
        no_preparation,
        ["train", "--model.label_site", "65"],
        r"label_site .* 0 to 64, got 65",
    ),
    "scale": (
        no_preparation,
        ["train", "--data.scale", "minmx"],
        r"scale must be .* got 'minmx'; .*--data\.scale",
    ),
    "data set": (no_preparation, ["train", "mnits"], r"unknown data set 'mnits'; did you mean 'mnist'"),
    "no data file": (no_preparation, ["train", "a/b.npz"], r"no \.npz file at a/b\.npz; check the path"),
    "no config": (no_preparation, CONFIG, r"cannot read the config file options\.yaml: No such file"),
    "config: not YAML": (yaml_file("train: [1,\n a: }"), CONFIG, r"options\.yaml is not valid YAML"),
    "config: a list": (yaml_file("- 3"), CONFIG, r"options\.yaml must hold options .* got \[3\]"),
    "config: empty": (yaml_file(""), CONFIG, r"options\.yaml must hold options .* got None"),
    "config: a group": (yaml_file("train: 3"), CONFIG, r"train must hold options .* got 3"),
    "config: a name": (yaml_file("train: {epoch: 3}"), CONFIG, r"train\.epoch; did you mean train\.epochs\?"),
    "config: a type": (yaml_file("train: {epochs: x}"), CONFIG, r"train\.epochs: expected int, got x"),
    "npz: damaged": (write_cut_npz, ["train", "toy.npz"], r"toy\.npz .*(not a readable|cannot be read)"),
    "npz: objects": (write_object_labels, ["train", "toy.npz"], r"Python objects, which are never unpickled"),
    "npz: one class": (
        lambda: write_toy(y=Y * 0),
        ["train", "toy.npz"],
        r"expected two classes or more, got only 0",
    ),
    "npz: real labels": (
        lambda: write_toy(y=Y / 2),
        ["train", "toy.npz"],
        r"expected class labels .*MPSRegressor",
    ),
    "npz: NaN": (
        lambda: write_toy(x=np.where(X > 0.9, np.nan, X)),
        ["train", "toy.npz"],
        r"NaN or infinite values",
    ),
    "npz: no y": (lambda: np.savez("toy.npz", x=X), ["train", "toy.npz"], r"expected x and y"),
    "npz: wide values": (
        lambda: write_toy(x=16 * X),
        ["train", "toy.npz"],
        r"must lie in .*--data\.scale \[",
    ),
    "npz: strange test label": (
        lambda: np.savez("toy.npz", x_train=X, y_train=Y, x_test=X, y_test=Y + 1),
        ["train", "toy.npz"],
        r"the label .*3.*, which no training sample has",
    ),
    "idx: truncated": (
        lambda: write_idx(keep=0.7),
        ["train", "set"],
        r"promises 48 bytes .* only 28; get it again",
    ),
    "idx: packed and cut": (
        lambda: write_idx(keep=0.7, packed=True),
        ["train", "set"],
        r"damaged or truncated",
    ),
    "idx: not IDX": (lambda: write_idx(magic=7), ["train", "set"], r"not an IDX file: expected bytes 00 00"),
    "idx: other count": (lambda: write_idx(count=11), ["train", "set"], r"holds 11 samples but .* holds 12"),
    "model: none": (no_preparation, ["evaluate", "model.safetensors", "digits"], r"no model file at"),
    "model: cut": (write_cut_model, ["inspect", "model.safetensors"], r"model\.safetensors .*damaged"),
    "model: foreign": (write_foreign_model, ["inspect", "model.safetensors"], r"holds no tnml metadata"),
    "model: a pickle": (
        write_pickled_model,
        ["inspect", "model.safetensors"],
        r"not a readable safetensors file",
    ),
    "model: newer": (
        write_future_model,
        ["inspect", "model.safetensors"],
        r"has format 99, this tnml reads up to",
    ),
    "model: lying": (
        write_lying_model,
        ["inspect", "model.safetensors"],
        r"does not hold what a classifier needs",
    ),
    "model and data": (write_model, ["evaluate", "model.safetensors", "digits"], r"64 values .* has 4 sites"),
    "figure": (
        write_model,
        ["inspect", "model.safetensors", "--figure", "a.jpeg"],
        r"unknown figure format 'jpeg'",
    ),
    "seed": (no_preparation, ["train", "--seed", "9" * 23], r"--seed must be .* 0 to 4294967295, got 9"),
    "seed: negative": (no_preparation, ["train", "--seed", "-1"], r"--seed must be .* 0 to .*, got -1"),
    "seed: too large by one": (no_preparation, ["train", "--seed", str(2**32)], r"got 4294967296"),
    "inspect: seed": (write_model, [*INSPECT, "--seed", "9" * 23], r"--seed must be .* 0 to 4294967295"),
    "inspect: no samples": (write_model, [*INSPECT, "--samples", "0"], r"--samples must be .* 1 to .*got 0"),
    "inspect: samples": (write_model, [*INSPECT, "--samples", "-5"], r"--samples must be .*got -5"),
    "resume: nothing": (
        no_preparation,
        ["train", "--resume", "run"],
        r"cannot read the run to resume run/options",
    ),
    "resume: hostile": (
        lambda: write_run(hostile_checkpoint),
        ["train", "--resume", "run"],
        r"holds something other than tensors, numbers and texts, and was not loaded",
    ),
    "resume: cut": (
        lambda: write_run(cut_checkpoint),
        ["train", "--resume", "run"],
        r"not a readable checkpoint",
    ),
    "resume: another run": (
        lambda: write_run(other_checkpoint),
        ["train", "--resume", "run", *QUICK],
        r"belongs to another run: .* in the checkpoint, .* now",
    ),
    "out is a file": (
        write_toy,
        ["train", "toy.npz", "--out", "toy.npz/run", *QUICK],
        r"cannot .*toy\.npz/run",
    ),
    "out is not ours": (write_toy, ["train", "toy.npz", "--out", "/proc/run", *QUICK], r"cannot .*/proc/run"),
    "fetch what": (no_preparation, ["data", "fetch"], r"needs a name; choose from: digits, mnist"),
    "fetch: name": (
        no_preparation,
        ["data", "fetch", "mnits"],
        r"unknown data set 'mnits'; did you mean 'mnist'",
    ),
}


def prepare_predict(kind: str) -> str:
    write_model()
    bad = {
        "missing": None,
        "wide.csv": b"1,0,0,1,0\n",
        "ragged.csv": b"1,0,0,1\n0,1\n",
        "words.csv": b"0,0,0,0\n0,red,0,0\n",
        "empty.csv": b"a,b,c,d\n",
        "image.idx": b"\x89PNG....",
        "cut.npy": b"\x93NUMPY\x01\x00v\x00{'descr'",
        "pickled.npy": pickle.dumps(Hostile()),
    }[kind]
    if bad is not None:
        Path(kind).write_bytes(bad)
    return kind


PREDICT = {
    "missing": r"no file at missing; give samples as",
    "wide.csv": r"expected 4 values in each sample, .* got 5",
    "ragged.csv": r"line 2: expected 4 numbers as in the first line, got 2",
    "words.csv": r"line 2: could not convert string to float: 'red'; expected numbers only",
    "empty.csv": r"holds no samples; expected one line of numbers for each",
    "image.idx": r"not an IDX file: expected bytes 00 00",
    "cut.npy": r"cut\.npy cannot be read",
    "pickled.npy": r"cannot be read .*(pickle|Python objects)",
}


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(p.relative_to(folder)): p.read_bytes() if p.is_file() else b"" for p in sorted(folder.rglob("*"))
    }


def assert_one_error(words: list[str], pattern: str, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert main(words) == 2
    errors = capsys.readouterr().err
    assert re.fullmatch(r"error: [^\n]+\n", errors), errors
    assert re.search(pattern, errors), errors
    assert len(errors) < 900


@pytest.mark.parametrize("name", COMMAND_LINE)
def test_command_line(name: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    prepare, words, pattern = COMMAND_LINE[name]
    prepare()
    before = contents(here)
    assert_one_error(words, pattern, capsys)
    assert contents(here) == before, "a file was left behind or changed"


@pytest.mark.parametrize("kind", PREDICT)
def test_predict(kind: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["predict", "model.safetensors", prepare_predict(kind), "--out", "labels.csv"]
    before = contents(here)
    assert_one_error(words, PREDICT[kind], capsys)
    assert contents(here) == before


def test_a_run_folder_is_not_used_twice(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_toy()
    assert main(["train", "toy.npz", "--out", "run", *QUICK]) == 0
    before = contents(here)
    assert_one_error(
        ["train", "toy.npz", "--out", "run", *QUICK], r"run already holds a run; .*--resume run", capsys
    )
    assert contents(here) == before


def test_truncated_download(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every mirror sends only the beginning of each file."""
    monkeypatch.delenv("TNML_DATA", raising=False)

    def send_a_part(self: object, url: str, target: str, pooch: object) -> None:
        Path(target).write_bytes(b"\x1f\x8b only the beginning")

    monkeypatch.setattr(pooch.HTTPDownloader, "__call__", send_a_part)
    words = ["data", "fetch", "mnist", "--cache", "cache"]
    assert_one_error(words, r"could not be downloaded; tried .* 21 bytes instead of 9912422", capsys)
    assert not [p for p in here.rglob("*") if p.is_file()]


def test_hostile_files_run_nothing(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The pickles of these tests really would do harm, and none of the readers lets them."""
    pickle.loads(pickle.dumps(Hostile()))
    assert Path("broken-into").is_dir()
    Path("broken-into").rmdir()
    write_run(hostile_checkpoint)
    write_pickled_model()
    with zipfile.ZipFile("set.npz", "w") as archive:
        for key in ("x.npy", "y.npy"):
            archive.writestr(key, pickle.dumps(Hostile()))
    for words in (["train", "--resume", "run"], ["inspect", "model.safetensors"], ["train", "set.npz"]):
        assert main(words) == 2
    assert not Path("broken-into").exists()
    assert len(capsys.readouterr().err.splitlines()) == 3


def test_there_are_at_least_forty() -> None:
    assert len(COMMAND_LINE) + len(PREDICT) >= 40
