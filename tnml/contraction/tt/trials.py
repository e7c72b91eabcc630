"""The plan for a product: the best of a few, by real times where they can be taken, and kept."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch

from tnml.contraction.tt.costs import Plan
from tnml.contraction.tt.kept import keep_first, machine, recall
from tnml.contraction.tt.plans import fitting_plans
from tnml.contraction.tt.rates import fastest, rates_of
from tnml.contraction.tt.shape import TTShape

CANDIDATES = 3  # plans that are tried, the quickest by estimate first, and W as a whole
WORSE = 2.0  # estimates beyond this multiple of the best are not tried
CLEAR = 0.97  # share of the time of the first by estimate that another plan may take at most to be chosen
ROUNDS, SECONDS = 7, 0.1  # of a trial
LONG, LONGEST = 0.5, 5.0  # seconds of one round: beyond, only two plans are tried, once; or none
ROOM = 2**28  # bytes that the dense plan may take to be tried although it is not likely to be quick

Kind = list[Any]


def kept_plan(
    shape: TTShape,
    batch: int,
    dtype: torch.dtype,
    device: torch.device,
    gradient: bool,
    threads: int,
    attempt: Callable[[Plan], object] | None,
) -> Plan:
    """The plan to take, the same in this and other processes for a month.

    Estimates choose a few candidates. What they leave out (caches, other libraries' kernels) can turn the
    order of plans that are close, so these are timed, once for all batches between two powers of two.

    Args:
        shape: of the matrix.
        batch: samples.
        dtype: of the numbers.
        device: where the product runs.
        gradient: whether a backward pass follows.
        threads: torch's.
        attempt: does what is planned for, by one plan; None where nothing can be timed now.

    Example:
        >>> shape, cpu = TTShape((4,), (6,), (1, 1)), torch.device("cpu")
        >>> kept_plan(shape, 50, torch.float32, cpu, True, 1, None).name  # a single core is W
        'dense'
    """
    plans = fitting_plans(shape, batch, dtype.itemsize, gradient, rates_of(device, dtype))
    if len(plans) == 1:
        return plans[0]
    kinds = _kinds(plans)
    octave = (batch - 1).bit_length()
    question = (
        f"best plan for {shape}, up to 2^{octave} samples, gradient {gradient}, timed {attempt is not None}, "
        f"{dtype} on {machine(device, threads)}"
    )
    answer = recall(question)
    if answer is None or answer.get("kind") not in kinds:
        chosen = plans[0] if attempt is None else _quickest(plans, attempt, device)
        answer = keep_first(question, {"kind": kinds[plans.index(chosen)]})
    kind = answer.get("kind")
    return plans[kinds.index(kind)] if kind in kinds else plans[0]


def _kinds(plans: Sequence[Plan]) -> list[Kind]:
    """What tells each plan from the others, whatever the batch: its name, runs of cores, memory, chunks."""
    places: dict[str, int] = {}
    kinds: list[Kind] = [[] for _ in plans]
    # The sizes of chunks follow the batch; their order does not.
    for number in sorted(range(len(plans)), key=lambda number: plans[number].chunk):
        plan = plans[number]
        kind = [plan.name, list(plan.groups), plan.keep]
        places[str(kind)] = place = places.get(str(kind), -1) + 1
        kinds[number] = [*kind, place]
    return kinds


def _quickest(plans: Sequence[Plan], attempt: Callable[[Plan], object], device: torch.device) -> Plan:
    """The quickest of the candidates; the first by estimate, where no other is clearly quicker."""
    first = plans[0]
    tried: dict[tuple[Any, ...], Plan] = {}
    for plan in plans:
        likely = len(tried) < CANDIDATES and plan.seconds < WORSE * first.seconds
        if likely or (plan.name == "dense" and plan.memory <= max(ROOM, first.memory)):
            tried.setdefault((plan.name, plan.groups), plan)
    candidates, rounds = list(tried.values()), ROUNDS
    if sum(plan.seconds for plan in candidates) > LONG:
        candidates, rounds = [plan for plan in candidates if plan is first or plan.name == "dense"], 1
    if len(candidates) == 1 or sum(plan.seconds for plan in candidates) > LONGEST:
        return first
    works = {plan: functools.partial(attempt, plan) for plan in candidates}
    seconds = fastest(works, device, rounds, SECONDS)
    best = min(candidates, key=lambda plan: seconds[plan])
    return best if seconds[best] < CLEAR * seconds[first] else first
