"""Einstein sums of torch tensors along a path that is found once for each set of shapes."""

import functools
import string
from collections import Counter
from typing import NamedTuple

import opt_einsum
import torch
from opt_einsum import DynamicProgramming, RandomGreedy
from opt_einsum.paths import PathOptimizer
from torch import Tensor

from tnml.checks import is_whole
from tnml.errors import InputError, choose

OPTIMIZERS = (
    *("auto", "auto-hq", "optimal", "dp", "greedy"),
    *("random-greedy", "random-greedy-128", "branch-all", "branch-2", "branch-1"),
)
EXHAUSTIVE = 20  # operands up to which the path of least memory is searched exhaustively (below a second)
TORCH_INDICES = 52  # torch.einsum takes no more distinct indices in one call


class Step(NamedTuple):
    """One call of torch.einsum: which operands leave the list (last first) and the indices of all of them."""

    positions: tuple[int, ...]
    inputs: tuple[tuple[int, ...], ...]
    output: tuple[int, ...]


class Path(NamedTuple):
    """The steps of a contraction, and the number of elements of the largest tensor they make."""

    steps: tuple[Step, ...]
    largest: int


def einsum(
    expression: str, *tensors: Tensor, memory_limit: int | None = None, optimize: str = "auto"
) -> Tensor:
    """Contracts a small irregular network, given as an Einstein sum, two tensors at a time.

    The path is opt_einsum's. It is kept for the expression, the shapes, `memory_limit` and `optimize`, so a
    training loop searches once. A batch is an index like any other; gradients flow to every operand.

    Args:
        expression: indices of every operand and of the result, as in numpy: "bl,ldr,bd->br". Without "->" the
            result has the indices that occur once, in alphabetical order. An index is a letter, or any
            character outside ASCII (what `opt_einsum.get_symbol` gives). Sizes have to be equal: nothing is
            broadcast, and there is no "...".
        tensors: the operands, of one dtype and on one device.
        memory_limit: most elements of any tensor that is made on the way, the result included; operands
            and copies of them with permuted axes are not counted. None: no limit.
        optimize: how opt_einsum searches: "auto", "auto-hq", "optimal", "dp", "greedy", "random-greedy",
            "random-greedy-128", "branch-all", "branch-2" or "branch-1".

    Raises:
        InputError: the expression does not fit the tensors, or every path found needs more memory than
            allowed (the text says how much).

    Cost: what the path costs; a repeated call adds one look-up in a table.

    Source: Smith and Gray, opt_einsum, Journal of Open Source Software 3, 753 (2018).

    Example:
        >>> vectors, core = torch.ones(4, 2), torch.ones(2, 3, 5)
        >>> einsum("bl,ldr,bd->br", vectors, core, torch.ones(4, 3)).shape
        torch.Size([4, 5])
        >>> einsum("bl,ldr,bd->br", vectors, core, torch.ones(4, 2))
        Traceback (most recent call last):
        tnml.errors.InputError: index 'd' has size 2 in operand 2, expected 3 as in operand 1
    """
    _check_tensors(tensors)
    shapes = tuple(tuple(tensor.shape) for tensor in tensors)
    if memory_limit is not None and not is_whole(memory_limit, 1):
        raise InputError(f"memory_limit must be a positive number of elements or None, got {memory_limit!r}")
    memory_limit = None if memory_limit is None else int(memory_limit)
    path = find_path(expression, shapes, memory_limit, optimize)
    operands = list(tensors)
    for step in path.steps:
        taken = [operands.pop(position) for position in step.positions]
        pairs = (part for pair in zip(taken, step.inputs, strict=True) for part in pair)
        operands.append(torch.einsum(*pairs, step.output))
    return operands[0]


@functools.lru_cache(maxsize=1024)
def find_path(
    expression: str, shapes: tuple[tuple[int, ...], ...], memory_limit: int | None, optimize: str
) -> Path:
    """The steps that contract operands of these shapes; cached, so repeated questions are answered at once.

    Raises:
        InputError: as `einsum`.
    """
    choose("path search", optimize, dict.fromkeys(OPTIMIZERS, True))
    inputs, output = _parse(expression, shapes)
    whole = f"{','.join(inputs)}->{output}"
    best = _search(whole, shapes, optimize, memory_limit)
    if best is not None and (memory_limit is None or best.largest <= memory_limit):
        return best
    found = [best] if best is not None else []
    found += [path for rule in _frugal(len(inputs)) if (path := _search(whole, shapes, rule, None))]
    best = min(found, key=lambda path: path.largest)
    if memory_limit is not None and best.largest > memory_limit:
        raise InputError(
            f"contracting {expression!r} of shapes {', '.join(map(str, shapes))} makes a tensor of "
            f"{best.largest} elements on the most frugal path found, memory_limit is {memory_limit}; "
            f"allow {best.largest} or contract slices of an index one after another"
        )
    return best


def _frugal(n_operands: int) -> list[str | PathOptimizer]:
    """The searches for little memory, whatever the arithmetic costs."""
    rules: list[str | PathOptimizer] = ["greedy", RandomGreedy(max_repeats=32, minimize="size")]
    if n_operands <= EXHAUSTIVE:
        rules.append(DynamicProgramming(minimize="size"))
    return rules


def _search(
    whole: str, shapes: tuple[tuple[int, ...], ...], rule: str | PathOptimizer, memory_limit: int | None
) -> Path | None:
    """opt_einsum's path; None where it gives up on the limit and takes three tensors or more in one step.

    torch.einsum would contract such a step in pairs of its own choice, over the limit.
    """
    try:
        _, info = opt_einsum.contract_path(
            whole, *shapes, shapes=True, optimize=rule, memory_limit=memory_limit
        )
    except RuntimeError:  # "dp" raises where the limit cannot be kept
        if memory_limit is None:
            raise
        return None
    steps = []
    for positions, _, text, _, _ in info.contraction_list:
        if len(positions) > 2:
            return None
        steps.append(_step(tuple(positions), text))
    return Path(tuple(steps), int(info.largest_intermediate))


def _step(positions: tuple[int, ...], text: str) -> Step:
    """The step with numbers for indices, from 0: torch.einsum knows 52 letters, a large network has more."""
    terms, _, output = text.partition("->")
    numbers = {index: number for number, index in enumerate(dict.fromkeys(terms.replace(",", "")))}
    if len(numbers) > TORCH_INDICES:
        raise InputError(
            f"one step has {len(numbers)} different indices, at most {TORCH_INDICES} can be "
            "contracted at once; merge parallel bonds into one"
        )
    inputs = tuple(tuple(numbers[index] for index in term) for term in terms.split(","))
    return Step(positions, inputs, tuple(numbers[index] for index in output))


def _parse(expression: str, shapes: tuple[tuple[int, ...], ...]) -> tuple[list[str], str]:
    """The indices of every operand and of the result, checked against the shapes."""
    text = "".join(character for character in expression if character not in string.whitespace)
    for character in text.replace("->", "", 1).replace(",", ""):
        if character.isascii() and not character.isalpha():
            hint = "; write a batch index as a letter like any other" if character == "." else ""
            raise InputError(
                f"{character!r} in {expression!r} is no index; use letters, ',' and one '->'{hint}"
            )
    terms, arrow, output = text.partition("->")
    inputs = terms.split(",")
    if len(inputs) != len(shapes):
        raise InputError(f"{expression!r} names {len(inputs)} operands, got {len(shapes)} tensors")
    counts = Counter(terms.replace(",", ""))
    if not arrow:
        output = "".join(sorted(index for index, count in counts.items() if count == 1))
    if "," in output:
        raise InputError(f"{expression!r} has several results; give one after '->'")
    for index, count in Counter(output).items():
        if count > 1:
            raise InputError(
                f"index {index!r} occurs {count} times in the result of {expression!r}, expected 1"
            )
        if index not in counts:
            raise InputError(f"index {index!r} of the result of {expression!r} is in no operand")
    _check_sizes(inputs, shapes)
    return inputs, output


def _check_sizes(inputs: list[str], shapes: tuple[tuple[int, ...], ...]) -> None:
    sizes: dict[str, tuple[int, int]] = {}
    for number, (term, shape) in enumerate(zip(inputs, shapes, strict=True)):
        if len(term) != len(shape):
            raise InputError(f"operand {number} has shape {shape}, expected {len(term)} axes as in {term!r}")
        for index, size in zip(term, shape, strict=True):
            expected, owner = sizes.setdefault(index, (size, number))
            if size != expected:
                raise InputError(
                    f"index {index!r} has size {size} in operand {number}, "
                    f"expected {expected} as in operand {owner}"
                )


def _check_tensors(tensors: tuple[Tensor, ...]) -> None:
    if not tensors:
        raise InputError("expected at least one tensor after the expression, got none")
    for number, tensor in enumerate(tensors):
        if not isinstance(tensor, Tensor):
            raise InputError(
                f"operand {number} is of type {type(tensor).__name__}, expected a torch tensor; "
                "convert it with torch.as_tensor"
            )
        for what in ("dtype", "device"):
            came, expected = getattr(tensor, what), getattr(tensors[0], what)
            if came != expected:
                raise InputError(
                    f"operand {number} has {what} {came}, expected {expected} as in operand 0; "
                    f"convert it with .to({what}=...)"
                )
