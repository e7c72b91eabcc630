"""Einstein sums against numpy; paths are kept and limits of memory held; bad input is named."""

import itertools

import numpy as np
import opt_einsum
import pytest
import torch

from tnml.contraction import einsum
from tnml.contraction.einsum import find_path
from tnml.errors import InputError

SIZES = dict(zip("abcdefghijkl", [2, 3, 4, 2, 3, 2, 5, 2, 3, 2, 4, 3], strict=True))
EXPRESSIONS = {
    "matrix product": "ab,bc->ac",
    "no arrow": "cb,ba",
    "spaces": " ab , bc -> ca ",
    "number": "a,a->",
    "sum and transpose": "abc->ca",
    "trace": "aab->b",
    "diagonal": "aba->ab",
    "only a sum": "ab->",
    "numbers among operands": "ab,,b->a",
    "outer product": "a,b,c->cab",
    "batch index": "gl,ldk,gd,kea,ge->ga",
    "ring": "ab,bc,cd,da->",
    "peps 2x2": "iab,jbc,kcd,lda->ijkl",
    "index in three operands": "ab,ac,ad->a",
    "disconnected": "ab,ba,cd,ef->ce",
}
OPTIMIZERS = [
    "auto",
    "auto-hq",
    "optimal",
    "dp",
    "greedy",
    "branch-1",
    "branch-2",
    "branch-all",
    "random-greedy",
]


def operands(expression: str, dtype: str = "float64", seed: int = 0) -> list[torch.Tensor]:
    random = np.random.default_rng(seed)
    terms = "".join(expression.split()).split("->")[0].split(",")
    arrays = []
    for term in terms:
        shape = [SIZES[index] for index in term]
        real, imaginary = random.standard_normal(shape), random.standard_normal(shape)
        arrays.append(real + 1j * imaginary if dtype == "complex128" else np.asarray(real))
    return [torch.from_numpy(np.asarray(array)) for array in arrays]


@pytest.fixture
def searches(monkeypatch):
    """The expressions opt_einsum was asked for, in order; starts with no path kept."""
    asked = []
    original = opt_einsum.contract_path

    def counted(expression, *args, **options):
        asked.append(expression)
        return original(expression, *args, **options)

    monkeypatch.setattr(opt_einsum, "contract_path", counted)
    find_path.cache_clear()
    return asked


@pytest.mark.parametrize("dtype", ["float64", "complex128"])
@pytest.mark.parametrize("expression", EXPRESSIONS.values(), ids=EXPRESSIONS.keys())
def test_same_as_numpy(expression, dtype):
    tensors = operands(expression, dtype)
    expected = np.einsum(expression.replace(" ", ""), *[tensor.numpy() for tensor in tensors])
    result = einsum(expression, *tensors)
    assert result.dtype == getattr(torch, dtype)
    np.testing.assert_allclose(result.numpy(), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("optimize", OPTIMIZERS)
@pytest.mark.parametrize("name", ["batch index", "peps 2x2", "index in three operands", "disconnected"])
def test_every_search_gives_the_same(name, optimize):
    tensors = operands(EXPRESSIONS[name])
    expected = np.einsum(EXPRESSIONS[name], *[tensor.numpy() for tensor in tensors])
    result = einsum(EXPRESSIONS[name], *tensors, optimize=optimize)
    np.testing.assert_allclose(result.numpy(), expected, rtol=1e-12, atol=1e-12)


def test_more_indices_than_letters():
    """A ring of 120 matrices, beyond the 52 letters of numpy and torch."""
    random = np.random.default_rng(0)
    matrices = [random.standard_normal((2, 2)) for _ in range(120)]
    symbols = [opt_einsum.get_symbol(number) for number in range(120)]
    terms = [left + right for left, right in zip(symbols, [*symbols[1:], symbols[0]], strict=True)]
    result = einsum(",".join(terms) + "->", *map(torch.from_numpy, matrices))
    assert result.item() == pytest.approx(np.trace(np.linalg.multi_dot(matrices)), rel=1e-10)


def test_path_is_found_once_for_equal_shapes(searches):
    expression = EXPRESSIONS["batch index"]
    for seed in range(3):
        einsum(expression, *operands(expression, seed=seed))
    assert len(searches) == 1
    einsum(expression, *operands(expression, "complex128"))
    assert len(searches) == 1, "the dtype changes no path"
    einsum(expression, *operands(expression), memory_limit=1000)
    einsum(expression, *operands(expression), optimize="greedy")
    assert len(searches) == 3
    tensors = operands(expression)
    tensors[0], tensors[2], tensors[4] = (tensors[n][:1] for n in (0, 2, 4))
    einsum(expression, *tensors)
    assert len(searches) == 4, "another batch size is another shape"


def test_gradients_with_a_kept_path(searches):
    expression = EXPRESSIONS["batch index"]
    tensors = [tensor.requires_grad_() for tensor in operands(expression, "complex128")]
    assert torch.autograd.gradcheck(lambda *ts: einsum(expression, *ts), tensors)
    assert torch.autograd.gradgradcheck(
        lambda *ts: einsum("ab,bc,ca->", *ts), operands_with_gradient("ab,bc,ca")
    )
    assert len(searches) == 2


def operands_with_gradient(terms: str) -> list[torch.Tensor]:
    return [tensor.requires_grad_() for tensor in operands(terms)]


def made_sizes(monkeypatch, call):
    """Elements of every tensor that torch.einsum gives while `call` runs, and how many it takes at once."""
    sizes, taken = [], []
    original = torch.einsum

    def watched(*args):
        result = original(*args)
        sizes.append(result.numel())
        taken.append(sum(isinstance(arg, torch.Tensor) for arg in args))
        return result

    with monkeypatch.context() as patch:
        patch.setattr(torch, "einsum", watched)
        call()
    return sizes, taken


def least_memory(terms: list[str], output: str, sizes: dict[str, int]) -> int:
    """The smallest largest tensor over all orders of pairwise contractions, by trying every one."""
    if len(terms) == 1:
        return 0
    best = None
    for one, two in itertools.combinations(range(len(terms)), 2):
        rest = [term for number, term in enumerate(terms) if number not in (one, two)]
        needed = set(output).union(*rest)
        joined = "".join(sorted((set(terms[one]) | set(terms[two])) & needed))
        here = int(np.prod([sizes[index] for index in joined], dtype=np.int64))
        largest = max(here, least_memory([*rest, joined], output, sizes))
        best = largest if best is None else min(best, largest)
    return best


# The cheapest path makes larger tensors here than the most frugal one.
LARGE = {"a": 20, "b": 2, "c": 20, "d": 2, "e": 20, "f": 3}
FRUGAL = {
    "chain": ("ab,bcf,cd,de,fa->e", LARGE),
    "ladder": ("ab,bc,cd,ae,bef,cfd->", {"a": 2, "b": 9, "c": 9, "d": 2, "e": 9, "f": 9}),
    "star": ("xa,xb,xc,abc->x", {"x": 30, "a": 4, "b": 5, "c": 6}),
}


@pytest.mark.parametrize("optimize", ["auto", "optimal", "dp", "greedy"])
@pytest.mark.parametrize("name", FRUGAL)
def test_memory_limit_is_kept(name, optimize, monkeypatch):
    expression, sizes = FRUGAL[name]
    terms, _, output = expression.partition("->")
    random = np.random.default_rng(1)
    arrays = [random.standard_normal([sizes[index] for index in term]) for term in terms.split(",")]
    tensors = [torch.from_numpy(array) for array in arrays]
    least = least_memory(terms.split(","), output, sizes)
    results = []
    made, taken = made_sizes(
        monkeypatch,
        lambda: results.append(einsum(expression, *tensors, memory_limit=least, optimize=optimize)),
    )
    assert max(made) <= least
    assert max(taken) <= 2, "torch would choose its own path for three operands"
    np.testing.assert_allclose(results[0].numpy(), np.einsum(expression, *arrays), rtol=1e-10)
    with pytest.raises(
        InputError, match=rf"makes a tensor of {least} elements .* memory_limit is {least - 1}; "
    ):
        einsum(expression, *tensors, memory_limit=least - 1, optimize=optimize)


def test_the_limit_changes_the_path(monkeypatch):
    terms, expression = ["ab", "bc", "cd", "de"], "ab,bc,cd,de->ae"
    sizes = {"a": 2, "b": 60, "c": 2, "d": 60, "e": 60}
    tensors = [torch.ones([sizes[index] for index in term]) for term in terms]
    free, _ = made_sizes(monkeypatch, lambda: einsum(expression, *tensors))
    held, _ = made_sizes(monkeypatch, lambda: einsum(expression, *tensors, memory_limit=120))
    assert max(held) <= 120 <= max(free)
    with pytest.raises(InputError, match="tensor of 120 elements"):  # the result itself
        einsum(expression, *tensors, memory_limit=119)


def test_long_network_with_a_limit():
    """Beyond the exhaustive search: a chain of 30 matrices whose middle result must stay a vector."""
    symbols = [opt_einsum.get_symbol(number) for number in range(31)]
    expression = ",".join(symbols[n] + symbols[n + 1] for n in range(30)) + f",{symbols[0]}->{symbols[30]}"
    tensors = [torch.eye(8, dtype=torch.float64)] * 30 + [torch.arange(8, dtype=torch.float64)]
    result = einsum(expression, *tensors, memory_limit=64)
    assert torch.equal(result, torch.arange(8, dtype=torch.float64))


BAD = {
    "too few operands": (("ab,bc->ac", [(2, 3)]), "names 2 operands, got 1 tensors"),
    "too many operands": (("ab->ab", [(2, 3), (3, 2)]), "names 1 operands, got 2 tensors"),
    "order": (("ab,bc->ac", [(2, 3), (3,)]), r"operand 1 has shape \(3,\), expected 2 axes as in 'bc'"),
    "size": (
        ("ab,bc->ac", [(2, 3), (4, 2)]),
        "index 'b' has size 4 in operand 1, expected 3 as in operand 0",
    ),
    "no broadcast": (("ab,bc->ac", [(2, 3), (1, 2)]), "index 'b' has size 1 in operand 1, expected 3"),
    "trace of an oblong": (("aa->", [(2, 3)]), "index 'a' has size 3 in operand 0, expected 2"),
    "digit": (("a1->a", [(2, 3)]), "'1' in 'a1->a' is no index; use letters"),
    "ellipsis": (("...a->a", [(2, 3)]), "write a batch index as a letter"),
    "two arrows": (("ab->b->a", [(2, 3)]), "'-' in 'ab->b->a' is no index"),
    "two results": (("ab->a,b", [(2, 3)]), "several results"),
    "unknown result": (("ab->ac", [(2, 3)]), "index 'c' of the result of 'ab->ac' is in no operand"),
    "twice in the result": (("ab->aa", [(2, 3)]), "index 'a' occurs 2 times in the result"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_expressions(name):
    (expression, shapes), message = BAD[name]
    with pytest.raises(InputError, match=message):
        einsum(expression, *[torch.ones(shape) for shape in shapes])


def test_bad_operands_and_options():
    one = torch.ones(2, 2)
    with pytest.raises(InputError, match="at least one tensor"):
        einsum("ab->ab")
    with pytest.raises(InputError, match="operand 1 is of type ndarray, expected a torch tensor"):
        einsum("ab,bc->ac", one, np.ones((2, 2)))
    with pytest.raises(InputError, match=r"operand 1 has dtype torch.float64, expected torch.float32"):
        einsum("ab,bc->ac", one, one.double())
    with pytest.raises(InputError, match="operand 1 has device meta, expected cpu as in operand 0"):
        einsum("ab,bc->ac", one, one.to("meta"))
    for limit in (0, -1, 2.5, "many", True):
        with pytest.raises(InputError, match="memory_limit must be a positive number"):
            einsum("ab,bc->ac", one, one, memory_limit=limit)
    with pytest.raises(InputError, match="unknown path search 'gredy'; did you mean 'greedy'"):
        einsum("ab,bc->ac", one, one, optimize="gredy")


def test_too_many_indices_in_one_step():
    symbols = "".join(opt_einsum.get_symbol(number) for number in range(53))
    with pytest.raises(InputError, match="53 different indices, at most 52"):
        einsum(f"{symbols[:30]},{symbols[30:]}->", torch.ones([1] * 30), torch.ones([1] * 23))
