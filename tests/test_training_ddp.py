"""Two processes give what one gives: started by us, by torchrun, with uneven batches; and they end well."""

import json
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
import torch
from children import child, finish, wait_until
from programs.training_job import SAMPLES, Batches, Net, OneBatch, losses, mean_loss
from torch import nn

from tnml.errors import InputError
from tnml.loop.interrupt import StopRequest
from tnml.loop.processes import Group
from tnml.loop.step import Stepper
from tnml.nn import MPSLayer, SiteDropout
from tnml.randomness import part_of_batch
from tnml.training import LoopOptions, ProgressReporter, TrainingDiverged, run

PROGRAM = Path(__file__).parent / "programs" / "training_job.py"
ADAM = {"epochs": 3, "lr": 0.05, "clip_norm": 0.5, "average": "ema"}
LBFGS = {
    "epochs": 3,
    "lr": 1.0,
    "optimizer": "lbfgs",
    "lbfgs_iterations": 4,
    "schedule": "constant",
    "precision": "64",
}


def alone(options, loss=losses, batches=None):
    net = Net(0.0)
    return net, run(net, loss, batches or Batches(), LoopOptions(device="cpu", **options))


def assert_close(found, expected, tolerance=1e-5):
    for name, tensor in expected.items():
        assert (found[name] - tensor).abs().max() <= tolerance, name


class Two:
    """A Fabric's facts about one of two processes."""

    world_size, device = 2, torch.device("cpu")

    def __init__(self, rank):
        self.global_rank = rank


@pytest.mark.parametrize("total", [1, 2, 5, 8])
def test_parts_cover_the_batch_once(total):
    batch = (torch.arange(total), torch.arange(total) * 10)
    parts = [Group(Two(rank)).part(batch) for rank in range(2)]
    assert torch.cat([part[0][0] for part in parts]).tolist() == list(range(total))
    assert [part[1] for part in parts] == [len(part[0][1]) for part in parts]
    assert parts[0][1] >= 1
    assert all(part[2] == total for part in parts)


def test_two_parts_drop_the_sites_that_the_whole_batch_drops(generator):
    features, neutral = torch.rand(5, 6, 2, generator=generator), torch.tensor([0.5, 0.5])
    drop, found, after = SiteDropout(0.5), [], []
    for parts in ([slice(0, 5)], [slice(0, 3)], [slice(3, 5)]):
        torch.manual_seed(3)
        with part_of_batch(parts[0].start, parts[0].stop - parts[0].start, 5):
            found.append(drop(features[parts[0]], neutral))
        after.append(torch.rand(1).item())
    assert torch.equal(torch.cat(found[1:]), found[0])
    assert len(set(after)) == 1, "the generators stay in step"
    assert not torch.equal(found[0], features)
    torch.manual_seed(3)
    with part_of_batch(2, 1, 5):
        other = drop(features, neutral)  # not the part: a batch of its own
    assert torch.equal(other, found[0])


def stepper(rank, module, group=None):
    fabric = Two(rank)
    fabric.backward = torch.Tensor.backward
    return Stepper(module, losses, LoopOptions(device="cpu"), fabric, group or Sole(fabric), 6)


class Sole(Group):
    """One of two processes whose partner is never asked."""

    def sum_gradients(self, parameters):
        pass


def test_a_step_tells_the_dropout_its_part():
    seen = []

    class Listens(nn.Linear):
        def forward(self, x):
            seen.append(SiteDropout(0.5)(torch.ones(len(x), 50, 1), torch.zeros(1)))
            return super().forward(x)

    with torch.random.fork_rng(devices=[]):
        for rank in range(2):
            stepper(rank, Listens(5, 3)).take(Batches()(0, 0), 0, 0)
    assert [len(mask) for mask in seen] == [4, 3]
    assert not torch.equal(seen[0][:3], seen[1]), "the same rows would be drawn twice"


def test_means_after_a_checkpoint_inside_an_epoch():
    with torch.random.fork_rng(devices=[]):
        first = stepper(0, Net(0.0))
        first.take(Batches()(0, 0), 0, 0)  # 4 of 7 samples are ours
        mine = first.means()["loss"]
        state = {**first.state(), "sums": {"loss": torch.tensor(7 * 2.0)}}  # as gathered: of all 7
        first.restore(state)
        assert first.means()["loss"] == pytest.approx(2.0)
        second = stepper(1, Net(0.0))
        second.restore(state)
        assert second.means()["loss"] == 0.0
        second = stepper(1, Net(0.0))
        second.restore({**state, "module": Net(0.0).state_dict()})
        second.take(Batches()(0, 0), 0, 0)
    x, y = Batches()(0, 0)
    net = Net(0.0)
    assert mine == pytest.approx(mean_loss(net, x[:4], y[:4]).item(), rel=1e-5)
    assert second.means()["loss"] == pytest.approx(mean_loss(net, x[4:], y[4:]).item(), rel=1e-5)


def test_a_worker_knows_the_process_that_started_it(tmp_path):
    assert not StopRequest(tmp_path / "stop", os.getppid()).made()
    assert StopRequest(tmp_path / "stop", os.getpid()).made()  # it is our parent no more


@pytest.mark.slow
def test_dropout_in_two_processes_equals_one():
    def layer():
        return MPSLayer(5, 3, 4, site_dropout=0.3, bond_dropout=0.3, noise=0.3, engine="torch")

    one, two = layer(), layer()
    run(one, losses, Batches(), LoopOptions(device="cpu", **ADAM))
    run(two, losses, Batches(), LoopOptions(device="cpu", devices=2, **ADAM))
    assert_close(two.state_dict(), one.state_dict())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "loss", "batches"),
    [(ADAM, losses, Batches()), (LBFGS, mean_loss, OneBatch())],  # 37 samples: parts of 19 and 18
    ids=["adam", "lbfgs"],
)
def test_started_processes_equal_one(options, loss, batches, tmp_path, capfd):
    expected, single = alone(options, loss, batches)
    net = Net(0.0)
    result = run(net, loss, batches, LoopOptions(device="cpu", devices=2, **options), run_dir=tmp_path)
    assert_close(net.state_dict(), expected.state_dict(), tolerance=1e-5 if options is ADAM else 1e-10)
    assert [row["loss"] for row in result.history] == pytest.approx(
        [row["loss"] for row in single.history], abs=1e-5
    )
    assert sorted(p.name for p in tmp_path.iterdir()) == ["checkpoint.pt", "metrics.csv"]
    assert capfd.readouterr() == ("", "")
    assert "MASTER_PORT" not in os.environ


class FailsOnRankOne:
    steps_per_epoch = 2

    def __call__(self, epoch, step):
        if os.environ.get("RANK") == "1" and step == 1:
            raise InputError("this batch is bad")
        return Batches()(0, 0)


def nan_loss(module, x, y):
    return mean_loss(module, x, y) * float("nan" if len(x) == 4 else 1.0)  # rank 0's part of 7 is 4


@pytest.mark.slow
def test_errors_come_back_as_they_are():
    options = LoopOptions(epochs=2, device="cpu", devices=2)
    with pytest.raises(InputError, match="this batch is bad"):
        run(Net(0.0), mean_loss, FailsOnRankOne(), options)
    with pytest.raises(TrainingDiverged, match="NaN"):
        run(Net(0.0), nan_loss, Batches(), options)


def test_what_cannot_be_sent_is_refused_at_once():
    options = LoopOptions(devices=2, device="cpu")
    with pytest.raises(InputError, match="instead of lambdas"):
        run(nn.Linear(5, 3), lambda m, x, y: m(x).sum(), Batches(), options)


def torchrun(folder, weights, options, *more):
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
        str(PROGRAM),
    ]
    command += [str(folder), str(weights), "--options", json.dumps(options), *more]
    return child(command, env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)})


@pytest.mark.slow
def test_torchrun_gives_every_rank_the_weights_of_one_process(tmp_path):
    expected, single = alone(ADAM)
    with torchrun(tmp_path / "run", tmp_path / "w", ADAM) as process:
        output = finish(process)
    assert output == f"done: loss {single.history[-1]['loss']:.6f} in 3 epochs\n"
    ranks = [torch.load(tmp_path / f"w.{rank}") for rank in range(2)]
    for name in ranks[0]:
        assert torch.equal(ranks[0][name], ranks[1][name])
    assert_close(ranks[0], expected.state_dict())


@pytest.mark.slow
def test_torchrun_starts_from_the_weights_of_rank_0(tmp_path):
    expected, _ = alone(ADAM)
    with torchrun("none", tmp_path / "w", ADAM, "--own", "weights") as process:
        finish(process)
    ranks = [torch.load(tmp_path / f"w.{rank}") for rank in range(2)]
    assert_close(ranks[0], expected.state_dict())
    assert_close(ranks[1], ranks[0], tolerance=0.0)


@pytest.mark.slow
def test_torchrun_with_different_options_is_refused(tmp_path):
    with torchrun("none", tmp_path / "w", ADAM, "--own", "seed") as process:
        _, errors = process.communicate()
    assert process.returncode != 0
    assert "all processes of a run need the same options" in errors
    assert list(tmp_path.iterdir()) == []


def paused(folder, weights, options, **environment):
    """A run that starts its processes itself, 20 ms a step."""
    command = [sys.executable, PROGRAM, folder, weights, "--pause", "0.02", "--options", json.dumps(options)]
    return child(command, env={**os.environ, **environment})


@pytest.mark.slow
@pytest.mark.parametrize("how", ["started", "torchrun"])
def test_ctrl_c_in_two_processes_leaves_a_run_that_resumes(tmp_path, how):
    expected, _ = alone({"epochs": 40, "lr": 0.05})
    options = {"epochs": 40, "lr": 0.05}
    folder = tmp_path / "run"
    if how == "torchrun":
        started = torchrun(folder, tmp_path / "w", options, "--pause", "0.02")
    else:
        started = paused(folder, tmp_path / "w", {**options, "devices": 2})
    with started as process:
        wait_until((folder / "metrics.csv").exists, process)  # an epoch is over, 39 are to come
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to every process of the group
        output, errors = process.communicate()
    assert output == f"interrupted: {folder}\n", errors
    state = torch.load(folder / "checkpoint.pt", weights_only=True)["state"]
    assert 0 < 6 * state["epoch"] + state["step"] < 40 * 6
    net = Net(0.0)
    result = run(net, losses, Batches(), LoopOptions(device="cpu", **options), run_dir=folder, resume=True)
    assert_close(net.state_dict(), expected.state_dict(), tolerance=1e-4)
    assert len(result.history) == 40
    assert SAMPLES == 37


@pytest.mark.slow
def test_the_processes_end_with_their_parent(tmp_path):
    folder = tmp_path / "run"
    with paused(folder, tmp_path / "w", {"epochs": 100000, "devices": 2}, TMPDIR=str(tmp_path)) as process:
        wait_until((folder / "checkpoint.pt").exists, process)
        process.kill()
        wait_until(lambda: not alive(process.pid))
        assert not alive(process.pid)


@pytest.mark.slow
def test_the_processes_end_with_a_parent_that_dies_while_they_start(tmp_path):
    with paused("none", tmp_path / "w", {"epochs": 100000, "devices": 2}, TMPDIR=str(tmp_path)) as process:
        family = psutil.Process(process.pid)
        wait_until(lambda: len(family.children()) > 2, process)  # one is multiprocessing's own
        process.kill()
        wait_until(lambda: not alive(process.pid))
        assert not alive(process.pid)


def alive(group):
    """Whether a process of the group runs; one that has ended and waits to be collected does not."""
    for process in psutil.process_iter():
        with suppress(psutil.NoSuchProcess, ProcessLookupError):
            if os.getpgid(process.pid) == group and process.status() != psutil.STATUS_ZOMBIE:
                return True
    return False


@pytest.mark.slow
def test_only_one_process_speaks(capfd):
    options = LoopOptions(epochs=2, device="cpu", devices=2)
    run(Net(0.0), losses, Batches(), options, reporter=ProgressReporter())
    output, errors = capfd.readouterr()
    assert ([line.split("  ")[0] for line in output.splitlines()], errors) == (["epoch 1/2", "epoch 2/2"], "")
