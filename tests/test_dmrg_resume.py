"""Training by sweeps, interrupted and resumed, ends in the same bits: at every bond and after kill -9."""

import csv
import json
import random
import signal
import time
from pathlib import Path

import pytest
import torch
from children import finish, wait_until
from forks import complete, fork

from tnml.errors import InputError
from tnml.nn import MPSLayer
from tnml.training import (
    SweepOptions,
    TrainingInterrupted,
    TrainOptions,
    sweep_classifier,
    sweep_regressor,
    train_classifier,
)

PROGRAM = Path(__file__).parent / "programs" / "sweep_job.py"
SITES, SWEEPS = 6, 2
BONDS = 2 * SITES * SWEEPS  # the label core is a site too
FILES = ["bonds.csv", "checkpoint.pt", "metrics.csv"]

RUNS = {
    "two-site": {"max_bond": 4},
    "one-site": {"sites": 1, "metric": "frobenius", "solver": "cg"},
    "everything": {
        "max_bond": [2, 5],
        "proximal": [1.0, 0.1],
        "batch_size": 30,
        "max_shift": 1,
        "noise": 0.01,
        "validation": 0.2,
        "label_smoothing": 0.1,
    },
    "als": {"solver": "als", "loss": "mse", "max_bond": 3},
    "travels": {"label": "travels", "solver": "lbfgs", "max_bond": 3, "batch_size": 30},
}


def data(seed=0):
    x = torch.rand(50, SITES, generator=torch.Generator().manual_seed(seed))
    return x, (x[:, 0] > x[:, 5]).long()


class StopAt:
    """Ctrl-C after a number of bonds."""

    def __init__(self, bonds):
        self.left = bonds

    def __call__(self, row):
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt


def start_layer(**more):
    return MPSLayer(SITES, 2, **{"bond_dim": 3, "seed": 1, **more})


def train(name, folder=None, layer=None, **more):
    layer = start_layer() if layer is None else layer
    options = SweepOptions(sweeps=SWEEPS, device="cpu", **RUNS[name])
    return sweep_classifier(layer, *data(), options, image_shape=(2, 3), run_dir=folder, **more)


def assert_same_tensors(found, expected):
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor), name


def without_times(history):
    return [{k: v for k, v in row.items() if k != "seconds"} for row in history]


def assert_same_result(result, expected):
    assert_same_tensors(result.state, expected.state)
    assert result.bonds == expected.bonds
    assert without_times(result.history) == without_times(expected.history)


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNS)
def test_resume_at_every_bond_ends_in_the_same_bits(name, tmp_path):
    whole = train(name)
    count = len(whole.bonds)
    assert count == (BONDS if name != "travels" else BONDS - 2 * SWEEPS)
    for stop in range(1, count + 1) if name == "everything" else (1, 6, count // 2, count // 2 + 1, count):
        folder = tmp_path / str(stop)
        with pytest.raises(TrainingInterrupted, match=str(folder)) as caught:
            train(name, folder, on_bond=StopAt(stop))
        assert caught.value.run_dir == folder
        assert sorted(path.name for path in folder.iterdir()) == FILES
        assert_same_result(train(name, folder, resume=True), whole)


def test_interrupting_every_single_bond(tmp_path):
    whole = train("everything")
    tmp_path.joinpath("run").mkdir()
    layer = start_layer()  # the same one all along, its bonds changing with every finished sweep
    for _ in range(BONDS):
        with pytest.raises(TrainingInterrupted):
            train("everything", tmp_path / "run", layer, resume=True, on_bond=StopAt(1))
    result = train("everything", tmp_path / "run", layer, resume=True)
    assert_same_result(result, whole)
    assert_same_tensors(layer.state_dict(), whole.state)
    assert result.seconds >= sum(row["seconds"] for row in result.history) - 1e-9


def test_resuming_a_finished_run_gives_its_result_again(tmp_path):
    whole = train("two-site", tmp_path)
    result = train("two-site", tmp_path, resume=True)
    assert_same_result(result, whole)
    assert result.history == whole.history


def test_more_sweeps_and_other_memory_when_resumed(tmp_path):
    options = {"max_bond": 3, "device": "cpu", "sites": 1}
    expected = sweep_classifier(start_layer(), *data(), SweepOptions(sweeps=3, **options))
    sweep_classifier(start_layer(), *data(), SweepOptions(sweeps=1, **options), run_dir=tmp_path)
    more = SweepOptions(sweeps=3, memory_gb=1.0, checkpoint_seconds=None, **options)
    other = start_layer(bond_dim=1, label_site=5)  # bonds and label site are those of the checkpoint
    found = sweep_classifier(other, *data(), more, run_dir=tmp_path, resume=True)
    assert_same_result(found, expected)


def test_a_run_that_ends_by_itself_does_so_when_resumed(tmp_path):
    """Also with another tolerance: what has been done is the same, and only the end moves."""
    options = {"max_bond": 3, "device": "cpu", "sweeps": 9}
    free = sweep_classifier(start_layer(), *data(), SweepOptions(**options))
    ending = SweepOptions(tolerance=0.1, **options)
    whole = sweep_classifier(start_layer(), *data(), ending)
    bonds = len(whole.bonds)
    assert bonds < len(free.bonds)
    with pytest.raises(TrainingInterrupted):
        sweep_classifier(start_layer(), *data(), ending, run_dir=tmp_path, on_bond=StopAt(bonds - 3))
    for _ in range(2):  # the second time it is over
        again = sweep_classifier(start_layer(), *data(), ending, run_dir=tmp_path, resume=True)
        assert_same_result(again, whole)
    found = sweep_classifier(start_layer(), *data(), SweepOptions(**options), run_dir=tmp_path, resume=True)
    assert_same_result(found, free)


def test_the_files_hold_what_the_result_holds(tmp_path):
    result = train("everything", tmp_path)
    for name, rows in (("metrics.csv", result.history), ("bonds.csv", result.bonds)):
        with (tmp_path / name).open() as file:
            stored = list(csv.DictReader(file))
        assert [{k: float(v) for k, v in row.items()} for row in stored] == rows
    assert sorted(path.name for path in tmp_path.iterdir()) == FILES


def test_a_run_is_not_resumed_as_another(tmp_path):
    train("two-site", tmp_path)
    base = {"sweeps": SWEEPS, "device": "cpu", "max_bond": 4}

    def resume(layer=None, x=None, **changed):
        layer = start_layer() if layer is None else layer
        inputs, y = data()
        options = SweepOptions(**{**base, **changed})
        return sweep_classifier(layer, inputs if x is None else x, y, options, run_dir=tmp_path, resume=True)

    with pytest.raises(InputError, match=r"max_bond: 4 in the checkpoint, 5 now; .*seed: 0 in .*, 1 now"):
        resume(max_bond=5, seed=1)
    with pytest.raises(InputError, match=r"proximal: 1\.0 in the checkpoint, .* now; use the same"):
        resume(proximal=(1.0, 0.5))
    with pytest.raises(InputError, match="data checksum"):
        resume(x=data(seed=1)[0])
    with pytest.raises(InputError, match=r"model\.features: .*linear.* in the checkpoint, .*legendre.* now"):
        resume(layer=start_layer(features="legendre"))
    with pytest.raises(InputError, match=r"model\.order: 'raster' in the checkpoint"):
        resume(layer=start_layer(order=[5, 4, 3, 2, 1, 0]))
    with pytest.raises(InputError, match="already holds a run"):
        train("two-site", tmp_path)
    assert len(resume().bonds) == BONDS


def test_gradients_and_sweeps_do_not_resume_one_another(tmp_path):
    options = TrainOptions(epochs=1, device="cpu")
    train_classifier(start_layer(), *data(), options, run_dir=tmp_path / "gradients")
    train("two-site", tmp_path / "sweeps")
    with pytest.raises(InputError, match=r"training with gradients, not by sweeps; resume that one, or"):
        train("two-site", tmp_path / "gradients", resume=True)
    with pytest.raises(InputError, match=r"training by sweeps, not with gradients; resume that one, or"):
        train_classifier(start_layer(), *data(), options, run_dir=tmp_path / "sweeps", resume=True)


@pytest.mark.parametrize(
    "damage",
    [
        lambda s: s.pop("center"),
        lambda s: s.update(identity=3),
        lambda s: s.update(sweep="two"),
        lambda s: s.update(history=[1.0]),
        lambda s: s.update(bonds=[1.0]),
        lambda s: s.update(cores=5),
        lambda s: s["cores"].__setitem__(2, 5),
        lambda s: s.pop("options"),
    ],
    ids=["key", "identity", "sweep", "history", "bonds", "cores", "core", "options"],
)
def test_a_checkpoint_of_another_making_is_one_clear_error(tmp_path, damage):
    train("two-site", tmp_path)
    stored = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    damage(stored["state"])
    torch.save(stored, tmp_path / "checkpoint.pt")
    with pytest.raises(InputError, match="is not the checkpoint of this run"):
        train("two-site", tmp_path, resume=True)


def test_folders_that_hold_no_run(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="needs run_dir"):
        train("two-site", resume=True)
    with pytest.raises(InputError, match="no run to resume"):
        train("two-site", tmp_path / "absent", resume=True)
    with pytest.raises(InputError, match="is a file"):
        train("two-site", tmp_path / "file")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "checkpoint.pt").write_bytes(b"PK nonsense")
    with pytest.raises(InputError, match="not a readable checkpoint"):
        train("two-site", tmp_path / "run", resume=True)


def test_an_interrupt_without_a_folder_leaves_the_last_sweep():
    """The layer holds what it had, or the sweep that was finished last."""
    layer = start_layer()
    before = {name: tensor.clone() for name, tensor in layer.state_dict().items()}
    with pytest.raises(TrainingInterrupted, match="no run folder"):
        train("two-site", layer=layer, on_bond=StopAt(3))
    assert_same_tensors(layer.state_dict(), before)


def test_a_reporter_may_stop_the_run(tmp_path):
    """A KeyboardInterrupt in a reporter is a Ctrl-C; the reporter itself is stopped once."""

    class Reporter:
        calls: list[str]

        def __init__(self):
            self.calls = []

        def start(self):
            self.calls.append("start")

        def step(self, view):
            assert (view.epochs, view.steps_per_epoch) == (SWEEPS, BONDS // SWEEPS)
            self.calls.append(f"{view.epoch}.{view.step}")
            if len(self.calls) == 15:
                raise KeyboardInterrupt

        def epoch(self, row, epochs):
            self.calls.append(f"sweep {row['sweep']}/{epochs}")

        def stop(self):
            self.calls.append("stop")

    reporter = Reporter()
    with pytest.raises(TrainingInterrupted):
        train("two-site", tmp_path, progress=reporter)
    first = ["start", *(f"1.{step}" for step in range(1, 13)), "sweep 1/2", "2.1", "stop"]
    assert reporter.calls == first
    assert_same_result(train("two-site", tmp_path, resume=True), train("two-site"))


def test_time_writes_a_checkpoint_inside_a_sweep(tmp_path):
    saved = []

    def look(row):
        time.sleep(0.002)
        state = torch.load(tmp_path / "checkpoint.pt", weights_only=True)["state"]
        saved.append((state["sweep"], state["index"]))

    options = SweepOptions(sweeps=1, checkpoint_seconds=0.001, max_bond=2, device="cpu")
    sweep_classifier(start_layer(), *data(), options, run_dir=tmp_path, on_bond=look)
    assert saved == [(0, index) for index in range(2 * SITES)]


def test_a_regressor_is_resumed_too(tmp_path):
    x, y = data()[0].double(), data()[0][:, :2].double()

    def fit(folder=None, **more):
        layer = MPSLayer(SITES, 2, bond_dim=1, dtype="float64")
        options = SweepOptions(sweeps=SWEEPS, loss="mse", solver="als", max_bond=3, device="cpu")
        return sweep_regressor(layer, x, y, options, run_dir=folder, **more)

    with pytest.raises(TrainingInterrupted):
        fit(tmp_path, on_bond=StopAt(7))
    assert_same_result(fit(tmp_path, resume=True), fit())


def test_fewer_sweeps_than_were_begun_end_with_the_one_begun(tmp_path):
    x, y = data()
    options = {"max_bond": 3, "checkpoint_seconds": 1e-9, "device": "cpu"}
    stop, three = StopAt(2 * SITES + 4), SweepOptions(sweeps=3, **options)  # in the second sweep
    with pytest.raises(TrainingInterrupted):
        sweep_classifier(start_layer(), x, y, three, run_dir=tmp_path, on_bond=stop)
    found = sweep_classifier(
        start_layer(), x, y, SweepOptions(sweeps=1, **options), run_dir=tmp_path, resume=True
    )
    expected = sweep_classifier(start_layer(), x, y, SweepOptions(sweeps=2, **options))
    assert len(found.history) == 2
    assert all(torch.equal(found.state[name], expected.state[name]) for name in expected.state)


JOBS = {
    "plain": {"sweeps": 3, "max_bond": 4, "checkpoint_seconds": 0.005},
    "random": {
        "sweeps": 3,
        "max_bond": 4,
        "checkpoint_seconds": 0.005,
        "batch_size": 40,
        "max_shift": 1,
        "noise": 0.01,
    },
}


def program(job, folder, weights, *more):
    return [PROGRAM, folder, weights, "--options", json.dumps(JOBS[job]), *more]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """For each job a folder with a run that nobody stopped and its weights; made when first asked for."""
    made = {}

    def make(job):
        if job not in made:
            folder = tmp_path_factory.mktemp(job)
            complete(program(job, folder / "run", folder / "weights"))
            made[job] = folder
        return made[job]

    return make


def table(path):
    with path.open() as file:
        return [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(file)]


def assert_same_run(job, tmp_path, uninterrupted):
    whole = uninterrupted(job)
    assert_same_tensors(torch.load(tmp_path / "weights"), torch.load(whole / "weights"))
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == FILES
    assert (tmp_path / "run" / "bonds.csv").read_bytes() == (whole / "run" / "bonds.csv").read_bytes()
    assert table(tmp_path / "run" / "metrics.csv") == table(whole / "run" / "metrics.csv")


def kill(job, tmp_path, wait, *more):
    folder = tmp_path / "run"
    paused = ["--pause", "0.01", "--hold", tmp_path / "never"]
    with fork(program(job, folder, tmp_path / "weights", *paused, *more)) as process:
        wait_until((folder / "checkpoint.pt").exists, process)
        time.sleep(wait)
        process.kill()
        finish(process, -signal.SIGKILL)
    torch.load(folder / "checkpoint.pt", weights_only=True)
    assert {p.name for p in folder.iterdir() if not p.name.startswith(".")} <= set(FILES)
    for name in FILES:  # a kill inside a write leaves such a file
        (folder / f".{name}.abc123.tmp").write_bytes(b"the beginning")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("job", "seed"), [("random", 1), *((job, seed) for job in JOBS for seed in range(2, 6))]
)
def test_kill_at_a_random_moment_ends_in_the_same_bits(job, seed, tmp_path, uninterrupted):
    """54 bonds with a pause of 10 ms each: the kill comes in the middle of a sweep."""
    kill(job, tmp_path, random.Random(seed).uniform(0.0, 0.45))
    state = torch.load(tmp_path / "run" / "checkpoint.pt", weights_only=True)["state"]
    assert len(state["bonds"]) == state["sweep"] * 18 + state["index"] < 54
    complete(program(job, tmp_path / "run", tmp_path / "weights", "--resume"))
    assert_same_run(job, tmp_path, uninterrupted)


@pytest.mark.slow
def test_killed_again_and_again(tmp_path, uninterrupted):
    kill("random", tmp_path, 0.1)
    for _ in range(2):
        kill("random", tmp_path, 0.1, "--resume")
    complete(program("random", tmp_path / "run", tmp_path / "weights", "--resume"))
    assert_same_run("random", tmp_path, uninterrupted)


def test_a_real_ctrl_c_saves_and_says_where(tmp_path, uninterrupted):
    folder = tmp_path / "run"
    go = tmp_path / "go"
    with fork(program("random", folder, tmp_path / "weights", "--pause", "0.02", "--hold", go)) as process:
        wait_until((folder / "checkpoint.pt").exists, process)
        time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        go.touch()  # the last bonds waited for it
        output, errors = process.communicate()
    assert (process.returncode, output, errors) == (130, f"interrupted: {folder}\n", "")
    assert sorted(path.name for path in folder.iterdir()) == FILES
    complete(program("random", folder, tmp_path / "weights", "--resume"))
    assert_same_run("random", tmp_path, uninterrupted)
