"""Rates and plans that are measured: what is believed, what is kept, and for whom."""

import copy
import json
import pickle
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.checkpoint import checkpoint

from tnml.contraction import Plan, TTShape, tt_linear, tt_matrix, tt_plans
from tnml.contraction.tt import apply, kept, plans, rates, trials
from tnml.contraction.tt.rates import Measurement
from tnml.errors import InputError
from tnml.nn import TNN, TTLinear

CPU = torch.device("cpu")
TIMES = {"large": 2e-3, "call": 1e-4, "copy": 1e-3, "thin": 1e-3, "small": 1e-3, "fresh": 1e-2}
SHAPE = TTShape((16, 16), (16, 16), (1, 2, 1))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A cache folder of its own, and nothing remembered from before or for later."""
    monkeypatch.setattr(kept, "cache_folder", lambda: tmp_path)
    _forget()
    yield tmp_path / "measured"
    _forget()


def _forget() -> None:
    """What a new process does not know."""
    rates._look_up.cache_clear()
    apply._found_plan.cache_clear()


def measured(monkeypatch: pytest.MonkeyPatch, *found: tuple[float, bool]) -> list[float]:
    """The flops that processes work with, each with its measurement: times that much longer, quiet or not."""
    queue = [Measurement({n: t * times for n, t in TIMES.items()}, quiet) for times, quiet in found]
    monkeypatch.setattr(rates, "measure", lambda device, dtype: queue.pop(0))
    flops = []
    for _ in range(len(found) + 1):
        rates._look_up.cache_clear()
        try:
            flops.append(rates.rates_of(CPU, torch.float32).flops * TIMES["large"] / (2 * 640**3))
        except IndexError:  # it wanted to measure once more
            break
    return flops


@pytest.mark.parametrize(
    ("found", "flops"),
    [
        ([(1.0, True), (1.05, True)], [1.0, 1.0, 1.0]),  # two agree: the third process only reads
        ([(6.0, False), (1.0, True), (1.02, True)], [1 / 6, 1.0, 1.0, 1.0]),  # a busy one does not count
        ([(6.0, True), (1.0, True), (1.0, True)], [1 / 6, 1.0, 1.0, 1.0]),  # nor one that was far too slow
        ([(1.0, True), (6.0, False), (1.0, True)], [1.0, 1.0, 1.0, 1.0]),
        ([(1.0, False), (1.0, False)], [1.0, 1.0]),  # always busy: it goes on
        ([(1.0 + 0.2 * k, True) for k in range(6)], [1.0] * 7),  # never two alike: six are enough
    ],
)
def test_slow_measurements_do_not_last(
    found: list[tuple[float, bool]], flops: list[float], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert measured(monkeypatch, *found) == pytest.approx(flops)
    assert len(list(folder.iterdir())) == 1


@pytest.mark.parametrize(
    "damage", ["{", "[]", "{}", '{"seconds": 3}', '{"seconds": {"large": 0}, "runs": 9}']
)
def test_damaged_rates_are_measured_again(damage: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert measured(monkeypatch, (1.0, True), (1.0, True)) == pytest.approx([1.0] * 3)
    (path,) = folder.iterdir()
    whole = json.loads(path.read_text(encoding="utf-8"))
    try:
        path.write_text(json.dumps({**json.loads(damage), **{k: whole[k] for k in ("question", "time")}}))
    except (ValueError, TypeError):
        path.write_text(damage)
    assert measured(monkeypatch, (2.0, True), (2.0, True)) == pytest.approx([0.5] * 3)


def test_time_that_other_programs_have_does_not_count() -> None:
    waited = rates.fastest({"waits": lambda: time.sleep(0.05)}, CPU, rounds=1)
    assert waited["waits"] < 0.04


@pytest.mark.parametrize("longest", [1e9, 0.0])
def test_a_long_product_is_tried_once_against_the_whole_matrix(
    longest: float, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Estimates choose candidates; they must not keep a plan that is slower than the dense one."""
    monkeypatch.setattr(trials, "LONG", 0.0)
    monkeypatch.setattr(trials, "LONGEST", longest)
    monkeypatch.setattr(rates, "TYPICAL", rates.TYPICAL._replace(flops=1e9))
    first = plans.fitting_plans(SHAPE, 60, 4, True, rates.TYPICAL)[0]
    assert first.name != "dense"
    found = chosen(monkeypatch, lambda plan: 0.5 if plan.name == "dense" else 1.0)
    assert found is not None
    timed = sorted(plan.name for plan in chosen.timed)  # type: ignore[attr-defined]
    assert timed == (sorted(["dense", first.name]) if longest else [])
    assert found.name == ("dense" if longest else first.name)


def test_what_was_measured_is_forgotten_after_a_month(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept.keep("q", {"a": 1})
    now = kept.time.time()
    for days, known in ((29, True), (31, False), (-1, False)):
        monkeypatch.setattr(kept.time, "time", lambda days=days: now + days * 86400)
        assert (kept.recall("q") is not None) == known


def test_the_question_names_the_machine(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept.keep(kept.machine(CPU, 2), {"a": 1})
    assert kept.recall(kept.machine(CPU, 2)) is not None
    assert kept.recall(kept.machine(CPU, 1)) is None
    monkeypatch.setattr(kept, "processor", lambda: "another one")
    assert kept.recall(kept.machine(CPU, 2)) is None


def test_the_first_answer_stays(folder: Path) -> None:
    assert kept.keep_first("q", {"kind": 1})["kind"] == 1
    assert kept.keep_first("q", {"kind": 2})["kind"] == 1
    (path,) = folder.iterdir()
    path.write_text("{", encoding="utf-8")
    assert kept.keep_first("q", {"kind": 3})["kind"] == 3
    assert [one.name for one in folder.iterdir()] == [path.name]


def test_a_folder_that_cannot_be_written_keeps_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    monkeypatch.setattr(kept, "cache_folder", lambda: tmp_path / "file")
    kept.keep("q", {"kind": 1})
    assert kept.recall("q") is None
    assert kept.keep_first("q", {"kind": 2}) == {"kind": 2}


def chosen(monkeypatch: pytest.MonkeyPatch, seconds: Callable[[Plan], float], batch: int = 60) -> Plan | None:
    """The plan of a new process where products take that long; None where it timed nothing."""
    timed: list[Plan] = []

    def fastest(works: dict[Plan, Any], *settings: Any) -> dict[Plan, float]:
        for plan, work in works.items():
            work()
            timed.append(plan)
        return {plan: seconds(plan) for plan in works}

    monkeypatch.setattr(trials, "fastest", fastest)
    monkeypatch.setattr(trials, "rates_of", lambda device, dtype: rates.TYPICAL)
    _forget()
    found = apply._kept_plan(
        SHAPE.ins, SHAPE.outs, SHAPE.ranks, batch, "auto", CPU, torch.float32, True, 1, True
    )
    assert isinstance(found, Plan)
    chosen.timed = timed  # type: ignore[attr-defined]
    return found


def test_the_quickest_is_taken_and_kept(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = plans.fitting_plans(SHAPE, 60, 4, True, rates.TYPICAL)[0]
    assert chosen(monkeypatch, lambda plan: 1.0) == first  # no clear difference: the estimate decides
    for path in folder.iterdir():
        path.unlink()
    other = next(p for p in chosen.timed if p.name != first.name)  # type: ignore[attr-defined]
    assert 2 <= len(chosen.timed) <= trials.CANDIDATES + 1  # type: ignore[attr-defined]
    assert any(plan.name == "dense" for plan in chosen.timed)  # type: ignore[attr-defined]

    def seconds(plan: Plan) -> float:
        return 0.5 if plan == other else 1.0

    assert chosen(monkeypatch, seconds) == other
    for batch in (60, 33, 64):  # a new process asks the file; so does any batch up to the same power of two
        again = chosen(monkeypatch, lambda plan: 1.0, batch)
        assert not chosen.timed  # type: ignore[attr-defined]
        assert again is not None
        assert (again.name, again.groups, again.keep) == (other.name, other.groups, other.keep)
    chosen(monkeypatch, seconds, 65)
    assert chosen.timed  # type: ignore[attr-defined]


def test_nothing_is_timed_where_nothing_is_computed(folder: Path) -> None:
    layer = TTLinear(256, 256, rank=2)
    with torch._subclasses.fake_tensor.FakeTensorMode(allow_non_fake_inputs=True):
        layer(torch.ones(5, 256))
    assert not folder.exists()
    layer(torch.ones(5, 256))
    assert folder.exists()


def test_a_trial_is_invisible(folder: Path) -> None:
    """No random number is drawn, no gradient is left, and checkpointing sees the same products twice."""
    layer = TTLinear(256, 256, rank=2)
    x = torch.ones(5, 256, requires_grad=True)
    before = torch.get_rng_state()
    y = checkpoint(layer, x, use_reentrant=False)
    assert layer.cores[0].grad is None
    y.sum().backward()
    assert torch.equal(torch.get_rng_state(), before)
    expected = torch.ones(5, 256) @ layer.weight
    torch.testing.assert_close(x.grad, expected, rtol=1e-4, atol=1e-5)
    with torch.inference_mode():
        torch.testing.assert_close(layer(x), y, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shape", [SHAPE, TTShape((4, 2, 3), (2, 3, 4), (1, 3, 2, 1))], ids=str)
def test_every_plan_of_the_list_can_be_taken(shape: TTShape, generator: torch.Generator) -> None:
    cores = [
        torch.randn(size, generator=generator, dtype=torch.float64)
        for size in zip(shape.ranks, shape.outs, shape.ins, shape.ranks[1:], strict=False)
    ]
    x = torch.randn(7, shape.in_size, generator=generator, dtype=torch.float64)
    expected = x @ tt_matrix(cores).t()
    for plan in tt_plans(shape, 30):
        torch.testing.assert_close(tt_linear(x, cores, plan=plan), expected, rtol=1e-12, atol=1e-12)


def test_layers_take_plans() -> None:
    plan = tt_plans(SHAPE, 30)[1]
    layer = TTLinear(256, 256, rank=2, plan=plan)
    assert layer.plan is plan
    assert f"plan={plan.name!r}" in repr(layer)
    x = torch.rand(3, 256)
    torch.testing.assert_close(layer(x), x @ layer.weight.T + layer.bias, rtol=1e-4, atol=1e-5)
    for twin in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer)), layer.truncate(rank=1)[0]):
        assert twin.plan == plan
    assert TTLinear.from_linear(torch.nn.Linear(256, 256), rank=2, plan=plan)[0].plan == plan
    assert TNN((256, 256, 1), rank=2, plan=plan).layers[0].plan == plan


@pytest.mark.parametrize(
    ("plan", "text"),
    [
        (Plan("left", (1, 1, 1), 9, True, 0, 0, 0.0), "'left' is one for 3 cores, the matrix has 2"),
        (Plan("path", (2,), 9, True, 0, 0, 0.0), "'path' is one for 0 cores"),
        (Plan("slices", (2,), 9, True, 0, 0, 0.0), "as `tt_plans` makes them"),
        (Plan("dense", (1, 1), 9, True, 0, 0, 0.0), "as `tt_plans` makes them"),
        (Plan("right", (1, 1), 0, True, 0, 0, 0.0), "as `tt_plans` makes them"),
        (Plan("auto", (2,), 9, True, 0, 0, 0.0), "as `tt_plans` makes them"),
        ("lefft", "unknown plan 'lefft'; did you mean 'left'"),
    ],
)
def test_plans_that_do_not_fit(plan: Any, text: str) -> None:
    with pytest.raises(InputError, match=text):
        TTLinear(256, 256, rank=2, plan=plan)


def test_of_two_processes_the_first_one_decides(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = kept.write_text

    def slowly(path: Path, text: str) -> None:
        write(path, text)
        kept._path("q").write_text(text.replace("mine", "theirs"), encoding="utf-8")

    monkeypatch.setattr(kept, "write_text", slowly)
    assert kept.keep_first("q", {"kind": "mine"})["kind"] == "theirs"
