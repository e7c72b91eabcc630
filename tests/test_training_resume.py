"""An interrupted run, resumed, ends in the same bits; at every step boundary and after kill -9."""

import random
import signal
import time
from pathlib import Path

import pytest
import torch
from children import finish, wait_until
from forks import complete, fork
from programs.training_job import Batches, Net, losses
from torch import nn

from tnml.errors import InputError
from tnml.training import LoopOptions, TrainingInterrupted, run

PROGRAM = Path(__file__).parent / "programs" / "training_job.py"
EPOCHS, STEPS = 3, 6

RUNS = {
    "adam": ({"lr": 0.05}, 0.0),
    "adamw-clip": ({"optimizer": "adamw", "lr": 0.05, "weight_decay": 0.1, "clip_norm": 0.1}, 0.0),
    "sgd-step": ({"optimizer": "sgd", "lr": 0.1, "schedule": "step", "decay_every": 1}, 0.0),
    "lbfgs": ({"optimizer": "lbfgs", "lr": 1.0, "lbfgs_iterations": 3, "schedule": "constant"}, 0.0),
    "ema-dropout": ({"lr": 0.05, "average": "ema", "ema_decay": 0.9}, 0.5),
    "patience": ({"lr": 0.3, "average": "ema", "patience": 1, "monitor": "val_loss"}, 0.2),
}


class StopAt:
    """Ctrl-C after a number of steps, counted over the run."""

    def __init__(self, steps):
        self.left = steps

    def __call__(self, view):
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt


def held_out(module):
    x, y = Batches()(0, 0)
    return {"val_loss": nn.functional.cross_entropy(module(x), y).item()}


def train(name, folder=None, **more):
    options, dropout = RUNS[name]
    net = Net(dropout)
    settings = LoopOptions(epochs=EPOCHS, device="cpu", **options)
    result = run(net, losses, Batches(), settings, run_dir=folder, evaluate=held_out, **more)
    return net, result


def assert_same_bits(net, twin):
    for name, tensor in net.state_dict().items():
        assert torch.equal(tensor, twin.state_dict()[name]), name


def without_times(history):
    return [{k: v for k, v in row.items() if k not in ("seconds", "samples_per_second")} for row in history]


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNS)
def test_resume_at_every_step_ends_in_the_same_bits(name, tmp_path):
    whole, expected = train(name)
    for stop in range(1, len(expected.history) * STEPS + 1):
        folder = tmp_path / str(stop)
        with pytest.raises(TrainingInterrupted, match=str(folder)) as caught:
            train(name, folder, on_step=StopAt(stop))
        assert caught.value.run_dir == folder
        net, result = train(name, folder, resume=True)
        assert_same_bits(net, whole)
        assert without_times(result.history) == without_times(expected.history)
        assert (result.best_epoch, result.stopped_early) == (expected.best_epoch, expected.stopped_early)


def test_interrupting_every_single_step(tmp_path):
    whole, _ = train("ema-dropout")
    tmp_path.joinpath("run").mkdir()
    for _ in range(EPOCHS * STEPS):
        with pytest.raises(TrainingInterrupted):
            train("ema-dropout", tmp_path / "run", resume=True, on_step=StopAt(1))
    net, result = train("ema-dropout", tmp_path / "run", resume=True)
    assert_same_bits(net, whole)
    lines = (tmp_path / "run" / "metrics.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in lines] == ["epoch", "1", "2", "3"]
    assert result.seconds >= sum(row["seconds"] for row in result.history)


def test_resuming_a_finished_run_gives_its_result_again(tmp_path):
    whole, expected = train("patience", tmp_path)
    net, result = train("patience", tmp_path, resume=True)
    assert_same_bits(net, whole)
    assert result.history == expected.history


def test_more_epochs_where_the_rate_does_not_depend_on_them(tmp_path):
    options = {"lr": 0.1, "schedule": "constant", "device": "cpu"}
    once, twice = Net(0.0), Net(0.0)
    run(once, losses, Batches(), LoopOptions(epochs=4, **options))
    run(twice, losses, Batches(), LoopOptions(epochs=1, **options), run_dir=tmp_path)
    run(twice, losses, Batches(), LoopOptions(epochs=4, **options), run_dir=tmp_path, resume=True)
    assert_same_bits(once, twice)


def test_a_run_is_not_resumed_as_another(tmp_path):
    train("adam", tmp_path)
    options = LoopOptions(epochs=EPOCHS, lr=0.06, seed=1, device="cpu")
    with pytest.raises(InputError, match=r"lr: 0\.05 in the checkpoint, 0\.06 now; seed: 0 in .*, 1 now"):
        run(Net(0.0), losses, Batches(), options, run_dir=tmp_path, resume=True)
    same = LoopOptions(epochs=EPOCHS, lr=0.05, device="cpu")
    with pytest.raises(InputError, match="parameter shapes"):
        run(nn.Linear(5, 3), losses, Batches(), same, run_dir=tmp_path, resume=True)
    with pytest.raises(InputError, match="data: None in the checkpoint, 'b' now"):
        run(Net(0.0), losses, Batches(), same, run_dir=tmp_path, resume=True, identity={"data": "b"})
    with pytest.raises(InputError, match="already holds a run"):
        train("adam", tmp_path)


@pytest.mark.parametrize(
    "damage",
    [
        lambda s: s.pop("stepper"),
        lambda s: s.update(identity=3),
        lambda s: s.update(epoch="two"),
        lambda s: s.update(history=[1.0]),
        lambda s: s["stepper"].update(module=5),
        lambda s: s["stepper"].update(sums=[1, 2]),
        lambda s: s["stepper"].update(optimizer=5),
        lambda s: s["stepper"]["module"].pop("first.weight"),
    ],
    ids=["key", "identity", "epoch", "history", "module", "sums", "optimizer", "weight"],
)
def test_a_checkpoint_of_another_making_is_one_clear_error(tmp_path, damage):
    train("adam", tmp_path)
    stored = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    damage(stored["state"])
    torch.save(stored, tmp_path / "checkpoint.pt")
    with pytest.raises(InputError, match="is not the checkpoint of this run"):
        train("adam", tmp_path, resume=True)


def test_folders_that_hold_no_run(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="needs run_dir"):
        train("adam", None, resume=True)
    with pytest.raises(InputError, match="no run to resume"):
        train("adam", tmp_path / "absent", resume=True)
    with pytest.raises(InputError, match="is a file"):
        train("adam", tmp_path / "file")
    torch.save({"format": 1, "state": {"options": {}}}, tmp_path / "checkpoint.pt")
    with pytest.raises(InputError, match=r"not the checkpoint of this run|belongs to another run"):
        train("adam", tmp_path, resume=True)


def test_time_writes_a_checkpoint_inside_an_epoch(tmp_path):
    saved = []

    def look(view):
        time.sleep(0.002)
        state = torch.load(tmp_path / "checkpoint.pt", weights_only=True)["state"]
        saved.append((state["epoch"], state["step"]))

    options = LoopOptions(epochs=1, checkpoint_seconds=0.001, device="cpu")
    run(Net(0.0), losses, Batches(), options, run_dir=tmp_path, on_step=look)
    assert saved == [(0, step) for step in range(STEPS)]


def job(folder, weights, *more):
    program = [PROGRAM, folder, weights, "--dropout", "0.3", "--options"]
    return [*program, '{"epochs": 6, "lr": 0.05, "average": "ema", "checkpoint_seconds": 0.02}', *more]


def kill_and_resume(tmp_path, wait):
    """Kills a paused run `wait` seconds after its first checkpoint; the weights after resuming."""
    folder = tmp_path / "run"
    folder.mkdir()
    with fork(job(folder, tmp_path / "killed", "--pause", "0.02", "--hold", tmp_path / "never")) as process:
        wait_until((folder / "checkpoint.pt").exists, process)
        time.sleep(wait)
        process.kill()
        finish(process, -signal.SIGKILL)
    torch.load(folder / "checkpoint.pt", weights_only=True)
    stray = [p.name for p in folder.iterdir() if not p.name.startswith(".")]
    assert set(stray) <= {"checkpoint.pt", "metrics.csv"}
    complete(job(folder, tmp_path / "resumed", "--resume"))
    assert sorted(p.name for p in folder.iterdir()) == ["checkpoint.pt", "metrics.csv"]
    return torch.load(tmp_path / "resumed.0")


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    complete(job("none", folder / "weights"))
    return torch.load(folder / "weights.0")


def assert_same_tensors(found, expected):
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor), name


@pytest.mark.parametrize("wait", [0.0, 0.33])
def test_kill_and_resume_ends_in_the_same_bits(tmp_path, uninterrupted, wait):
    assert_same_tensors(kill_and_resume(tmp_path, wait), uninterrupted)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10))
def test_kill_at_a_random_moment_ends_in_the_same_bits(tmp_path, uninterrupted, seed):
    assert_same_tensors(kill_and_resume(tmp_path, random.Random(seed).uniform(0.0, 0.7)), uninterrupted)


def test_a_real_ctrl_c_saves_and_says_where(tmp_path, uninterrupted):
    folder = tmp_path / "run"
    go = tmp_path / "go"
    with fork(job(folder, tmp_path / "w", "--pause", "0.02", "--hold", go)) as process:
        wait_until((folder / "checkpoint.pt").exists, process)
        time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        go.touch()  # the last steps waited for it
        output, errors = process.communicate()
    assert (process.returncode, output, errors) == (130, f"interrupted: {folder}\n", "")
    with fork(job(folder, tmp_path / "w", "--resume")) as process:
        assert process.communicate()[1] == ""
    assert_same_tensors(torch.load(tmp_path / "w.0"), uninterrupted)
