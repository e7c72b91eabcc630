"""Training on arrays: what it reaches, what it holds out, and what it refuses."""

import numpy as np
import pytest
import torch
from torch import nn

from tnml.errors import InputError
from tnml.nn import MPSLayer
from tnml.training import TrainingInterrupted, TrainOptions, evaluate, train_classifier, train_regressor
from tnml.training.batches import ArrayBatches
from tnml.training.identity import model_identity
from tnml.training.losses import CrossEntropy, LabelSquaredError, measure
from tnml.training.samples import samples_for
from tnml.training.tasks import CLASSIFICATION


@pytest.fixture
def blobs():
    """Three well separated clouds on 4 sites, in [0, 1]; float32 arrays, int64 labels."""
    random = np.random.default_rng(5)
    y = np.repeat(np.arange(3), [50, 40, 30])
    centres = np.array([[0.2, 0.2, 0.8, 0.5], [0.8, 0.2, 0.2, 0.5], [0.5, 0.8, 0.5, 0.1]])
    x = np.clip(centres[y] + 0.05 * random.normal(size=(120, 4)), 0, 1)
    return x.astype(np.float32), y.astype(np.int64)


def quick(**more):
    return TrainOptions(**{"epochs": 15, "lr": 0.05, "batch_size": 16, "device": "cpu", **more})


@pytest.mark.parametrize("loss", ["cross-entropy", "mse"])
def test_a_layer_learns_separated_clouds(blobs, loss):
    x, y = blobs
    layer = MPSLayer(4, 3, bond_dim=4)
    result = train_classifier(layer, x, y, quick(loss=loss), x_test=x, y_test=y)
    assert result.history[-1]["accuracy"] >= 0.98
    assert result.test["accuracy"] >= 0.98
    assert result.history[-1]["loss"] < 0.3 * result.history[0]["loss"]
    assert (result.n_train, result.n_validation) == (120, 0)
    assert evaluate(layer, x, y, loss=loss) == result.test


def test_the_held_out_part_is_stratified_and_never_trained_on(blobs):
    x, y = blobs
    seen = []

    class Spy(nn.Linear):
        def forward(self, inputs):
            if self.training:
                seen.append(inputs.clone())
            return super().forward(inputs)

    result = train_classifier(Spy(4, 3), x, y, quick(epochs=2, validation=0.2))
    assert (result.n_train, result.n_validation) == (96, 24)
    trained = {tuple(row) for row in torch.cat(seen).tolist()}
    held = {tuple(row) for row in x.tolist()} - trained
    assert len(trained) == 96
    assert len(held) == 24
    labels = [int(y[i]) for i, row in enumerate(x.tolist()) if tuple(row) in held]
    assert np.bincount(labels).tolist() == [10, 8, 6]
    assert {"val_loss", "val_accuracy"} <= result.history[0].keys()


def test_patience_ends_a_hopeless_run(blobs):
    x, y = blobs
    options = quick(
        epochs=60, lr=1e-12, validation=0.2, patience=3, monitor="val_accuracy", schedule="constant"
    )
    result = train_classifier(nn.Linear(4, 3), x, y, options)
    assert (len(result.history), result.best_epoch, result.stopped_early) == (4, 1, True)


def test_batches_shuffle_every_epoch_and_cover_every_sample():
    x, y = torch.arange(23.0)[:, None], torch.arange(23)
    batches = ArrayBatches(x, y, TrainOptions(batch_size=5))
    orders = [torch.cat([batches(epoch, s).y for s in range(batches.steps_per_epoch)]) for epoch in (0, 1, 0)]
    assert [len(batches(0, s).x) for s in range(batches.steps_per_epoch)] == [5, 5, 5, 5, 3]
    assert sorted(orders[0].tolist()) == sorted(orders[1].tolist()) == list(range(23))
    assert orders[0].tolist() != orders[1].tolist()
    assert orders[0].tolist() == orders[2].tolist()
    assert torch.equal(batches(0, 1).x[:, 0], batches(0, 1).y.float())
    other = ArrayBatches(x, y, TrainOptions(batch_size=5, seed=1))
    assert other(0, 0).y.tolist() != batches(0, 0).y.tolist()


def test_shifts_move_the_images_and_repeat_exactly():
    x = torch.zeros(6, 25)
    x[:, 12] = 1.0  # the middle pixel of 5 x 5
    options = TrainOptions(batch_size=6, max_shift=1)
    moved = [ArrayBatches(x, torch.arange(6), options, (5, 5))(epoch, 0).x for epoch in (0, 1, 0)]
    assert torch.equal(moved[0], moved[2])
    assert not torch.equal(moved[0], moved[1])
    places = torch.stack(moved).argmax(-1).flatten()
    assert torch.stack(moved).sum(-1).eq(1).all()
    assert (places // 5 - 2).abs().max() == 1
    assert len(set(places.tolist())) > 3


def test_losses_agree_with_formulas():
    generator = torch.Generator().manual_seed(0)
    logits, y = (
        torch.randn(7, 3, generator=generator, dtype=torch.float64),
        torch.tensor([0, 1, 2, 2, 1, 0, 1]),
    )
    log_p = logits - logits.exp().sum(1, keepdim=True).log()
    target = 0.8 * torch.eye(3, dtype=torch.float64)[y] + 0.2 / 3
    smooth, metrics = CrossEntropy(0.2)(nn.Identity(), logits, y)
    assert smooth.item() == pytest.approx(-(target * log_p).sum(1).mean().item(), rel=1e-12)
    assert metrics["accuracy"].tolist() == (logits.argmax(1) == y).tolist()
    squares, _ = LabelSquaredError()(nn.Identity(), logits, y)
    assert squares.item() == pytest.approx((logits - torch.eye(3)[y]).square().mean().item(), rel=1e-12)
    parts = measure(nn.Identity(), CrossEntropy(), logits, y, batch_size=3)
    assert parts["loss"] == pytest.approx(-log_p[torch.arange(7), y].mean().item(), rel=1e-12)


def test_validation_and_test_losses_are_not_smoothed(blobs):
    x, y = blobs
    layer = nn.Linear(4, 3)
    result = train_classifier(layer, x, y, quick(label_smoothing=0.3), x_test=x, y_test=y)
    assert result.test["loss"] == pytest.approx(evaluate(layer, x, y)["loss"])
    assert result.history[-1]["loss"] > result.test["loss"]


def test_a_regressor_finds_the_line_and_measures_what_it_did_not_see():
    x = torch.rand(200, 2, generator=torch.Generator().manual_seed(1))
    y = (x @ torch.tensor([1.0, -2.0]) + 0.5).numpy()
    net = nn.Linear(2, 1)
    options = quick(epochs=60, lr=0.05, validation=0.25, loss="mse")
    result = train_regressor(net, x, y, options)
    assert net.weight.detach().flatten().tolist() == pytest.approx([1.0, -2.0], abs=0.02)
    assert (result.n_train, result.n_validation) == (150, 50)
    assert result.history[-1]["val_loss"] < 1e-3
    assert "accuracy" not in result.history[-1]


def test_resume_of_classification_checks_the_data(blobs, tmp_path):
    x, y = blobs
    whole, broken = nn.Linear(4, 3), nn.Linear(4, 3)
    broken.load_state_dict(whole.state_dict())
    options = quick(epochs=3, validation=0.2, average="ema")
    train_classifier(whole, x, y, options)

    def stop(view):
        if (view.epoch, view.step) == (2, 3):
            raise KeyboardInterrupt

    with pytest.raises(TrainingInterrupted):
        train_classifier(broken, x, y, options, run_dir=tmp_path, on_step=stop)
    with pytest.raises(InputError, match="data checksum"):
        train_classifier(broken, x + 0.01, y, options, run_dir=tmp_path, resume=True)
    with pytest.raises(InputError, match=r"batch_size: 16 in the checkpoint, 17 now"):
        train_classifier(
            broken,
            x,
            y,
            quick(epochs=3, validation=0.2, average="ema", batch_size=17),
            run_dir=tmp_path,
            resume=True,
        )
    train_classifier(broken, x, y, options, run_dir=tmp_path, resume=True)
    assert torch.equal(whole.weight, broken.weight)


def own_map(x):
    return torch.stack([1 - x, x], dim=-1)


@pytest.mark.parametrize(
    ("first", "then", "says"),
    [
        (
            {},
            {"features": "trigonometric"},
            r"model\.features: '.*linear.*' in the checkpoint, '.*trig.*' now",
        ),
        ({"order": [0, 1, 3, 2]}, {"order": "snake"}, r"model\.order: '\[0, 1, 3, 2\]' in .*, 'snake' now"),
        ({}, {"site_dropout": 0.5}, r"model\.site_dropout: '0\.0' in the checkpoint, '0\.5' now"),
        ({"features": own_map}, {}, r"model\.features: 'own_map with 2 components' in "),
    ],
    ids=["features", "order", "dropout", "own"],
)
def test_a_run_is_not_resumed_with_another_model(blobs, tmp_path, first, then, says):
    options = quick(epochs=1, precision="64")
    train_classifier(MPSLayer(4, 3, 2, **first), *blobs, options, run_dir=tmp_path)
    with pytest.raises(InputError, match=says) as caught:
        train_classifier(MPSLayer(4, 3, 2, **then), *blobs, options, run_dir=tmp_path, resume=True)
    assert len(str(caught.value)) < 700
    again = MPSLayer(4, 3, 2, engine="reference", **first).double()  # neither changes the model
    train_classifier(again, *blobs, options, run_dir=tmp_path, resume=True)


def test_long_arguments_are_named_and_not_printed():
    long, other = (MPSLayer(784, 10, 20, order=order) for order in (range(784), range(783, -1, -1)))
    texts = [model_identity(nn.Sequential(layer), TrainOptions()) for layer in (long, other)]
    assert {key for key in texts[0] if texts[0][key] != texts[1][key]} == {"model.0.order", "buffer 0.order"}
    assert max(map(len, texts[0].values())) <= 80


def test_a_wrong_monitor_takes_no_folder(blobs, tmp_path):
    options = quick(validation=0.2, patience=2, monitor="val_acuracy")
    with pytest.raises(InputError, match=r"val_acuracy.*choose from val_loss, val_accuracy"):
        train_classifier(nn.Linear(4, 3), *blobs, options, run_dir=tmp_path / "run")
    targets = quick(validation=0.2, patience=2, monitor="val_accuracy", loss="mse")
    with pytest.raises(InputError, match="choose from val_loss, loss"):
        train_regressor(nn.Linear(4, 1), blobs[0], blobs[0][:, 0], targets, run_dir=tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


def test_inputs_are_not_changed_and_may_be_read_only(blobs):
    x, y = blobs
    before = x.copy()
    x.flags.writeable = y.flags.writeable = False
    train_classifier(nn.Linear(4, 3), x, y, quick(epochs=1))
    train_classifier(nn.Linear(4, 3).double(), x, torch.tensor(y).to(torch.uint8), quick(epochs=1))
    assert (x == before).all()


@pytest.mark.parametrize(
    "change",
    [
        lambda a: np.flip(np.flip(a).copy()),
        lambda a: a.astype(a.dtype.newbyteorder()),
        lambda a: a.astype(np.longdouble if a.dtype.kind == "f" else np.uint64),
        lambda a: a.tolist(),
    ],
)
def test_arrays_that_torch_does_not_share_are_copied(blobs, change):
    x, y = blobs
    expected = samples_for(CLASSIFICATION, nn.Linear(4, 3), x, y)
    found = samples_for(CLASSIFICATION, nn.Linear(4, 3), change(x), change(y))
    assert torch.equal(found.x, expected.x)
    assert torch.equal(found.y, expected.y)


BAD_DATA = {
    "NaN": (lambda x, y: (np.where(x > 0.5, np.nan, x), y), "x holds NaN"),
    "infinite": (lambda x, y: (np.where(x > 0.5, np.inf, x), y), "x holds NaN or inf"),
    "objects": (lambda x, y: (x.astype(object), y), "array of object"),
    "complex": (lambda x, y: (x.astype(complex), y), "x must hold numbers"),
    "complex tensor": (lambda x, y: (torch.tensor(x, dtype=torch.complex64), y), "x must be real"),
    "empty": (lambda x, y: (x[:0], y[:0]), "at least one"),
    "a number": (lambda x, y: (np.float32(1.0), y), "one row per sample"),
    "lengths": (lambda x, y: (x, y[:-1]), r"y must have shape \[120\].*got \[119\]"),
    "one-hot": (lambda x, y: (x, np.eye(3, dtype=int)[y]), "y must have shape"),
    "negative": (lambda x, y: (x, y - 1), r"0\.\.2, the layer's outputs, got -1\.\.1"),
    "too many": (lambda x, y: (x, y + 1), r"got 1\.\.3"),
    "float labels": (lambda x, y: (x, y + 0.5), "MPSClassifier takes any labels"),
    "words": (lambda x, y: (x, y.astype(str)), "y must hold numbers.*MPSClassifier takes any labels"),
    "ragged": (lambda x, y: ([[1.0, 2.0], [3.0]], y), "x must be an array of numbers"),
    "unsigned": (lambda x, y: (x, (y - 1).astype(np.uint64)), r"0\.\.2, the layer's outputs"),
}


@pytest.mark.parametrize("name", BAD_DATA)
def test_bad_data_is_refused(blobs, name):
    change, text = BAD_DATA[name]
    with pytest.raises(InputError, match=text):
        train_classifier(nn.Linear(4, 3), *change(*blobs), quick())


def test_other_bad_input_is_refused(blobs):
    x, y = blobs
    with pytest.raises(InputError, match="x_test and y_test go together"):
        train_classifier(nn.Linear(4, 3), x, y, quick(), x_test=x)
    with pytest.raises(InputError, match="y_test must lie in"):
        train_classifier(nn.Linear(4, 3), x, y, quick(), x_test=x, y_test=y + 5)
    with pytest.raises(InputError, match="expected inputs"):
        train_classifier(MPSLayer(5, 3), x, y, quick())
    with pytest.raises(InputError, match="below the smaller side of 2 x 2"):
        train_classifier(nn.Linear(4, 3), x, y, quick(max_shift=2))
    with pytest.raises(InputError, match="give image_shape"):
        train_classifier(nn.Linear(4, 3), x, y, quick(max_shift=1), image_shape=(3, 2))
    with pytest.raises(InputError, match="real outputs"):
        train_classifier(MPSLayer(4, 3, dtype="complex64"), x, y, quick())
    with pytest.raises(InputError, match=r"y must be \[120, 3\]"):
        train_regressor(nn.Linear(4, 3), x, y.astype(float))
    with pytest.raises(InputError, match="for classifiers"):
        train_regressor(nn.Linear(4, 1), x, y, quick(max_shift=1))
    with pytest.raises(InputError, match="leaves none"):
        train_regressor(nn.Linear(4, 1), x[:1], y[:1], quick(validation=0.5))


@pytest.mark.gpu
def test_a_batch_on_cuda_needs_no_copy_from_the_host(blobs):
    x, y = (torch.as_tensor(a) for a in blobs)
    batches = ArrayBatches(x, y, TrainOptions(batch_size=16))
    batches.to(torch.device("cuda"))
    batch = batches(0, 0)
    assert all(t.device.type == "cuda" for t in (batch.x, batch.y, batch.index))
    layer = MPSLayer(4, 3, bond_dim=4)
    result = train_classifier(layer, x, y, quick(device="cuda", validation=0.2), x_test=x, y_test=y)
    assert result.test["accuracy"] >= 0.98
