"""Register-tile micro-kernels of the native engine, written as LLVM IR and compiled in milliseconds.

The batch lies on the SIMD lanes: a *lane vector* holds one number of `lanes()` samples. All addresses and
strides are 64-bit integers in bytes, so the kernels read the user's cores where they lie.

    expand    x[(e, k), v]   = f[e, v] u[v, k]                           features times input vectors
    tile      o[v, j]        = sum_{e, k} W[e, k, j] x[(e, k), v]       the GEMM of a site, j x v in registers
    gradient  G[m, j]     (+)= sum_{v, lane} a[m, v] b[j, v]             core gradients, m x j in registers
    rescale   2^-p of max_k |u[v, k]| multiplied into the next features; p added to the exponents
    pullback  g[k, v]      = sum_e f[e, v] h[e, k, v],  df[e, v] = sum_k u[v, k] h[e, k, v]

Kernels are made on first use, one per tile shape, and live as long as the process; their object code is kept
on disk for the next one.
"""

import functools
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import llvmlite.binding as llvm
from llvmlite import ir

from tnml.contraction.chain import objects
from tnml.contraction.chain.objects import ObjectStore, load_object, optimise, target_machine

I32, I64, F32, PTR = ir.IntType(32), ir.IntType(64), ir.FloatType(), ir.PointerType()
FAST = ("contract", "nsz", "reassoc")  # fused and reordered sums, but NaN and infinity keep their meaning
MAX_POWER = 60  # a factor of 2^60 neither overflows ordinary features nor makes them subnormal
_lock = threading.Lock()


@dataclass(frozen=True)
class Machine:
    """Lanes of a vector register and the accumulators a tile may hold."""

    lanes: int
    accumulators: int
    max_vectors: int


@functools.cache
def machine() -> Machine:
    """What this processor offers: 16 lanes with AVX-512, 8 with AVX, else 4 (SSE, NEON).

    Example:
        >>> machine().lanes in (4, 8, 16)
        True
    """
    features = llvm.get_host_cpu_features()
    if features.get("avx512f"):
        return Machine(lanes=16, accumulators=24, max_vectors=4)
    if features.get("avx"):
        return Machine(lanes=8, accumulators=12, max_vectors=2)
    return Machine(lanes=4, accumulators=12 if features.get("neon", False) else 8, max_vectors=2)


class _Kernel:
    """A function under construction: integer arguments, lane vectors by address."""

    def __init__(self, name: str, n_arguments: int) -> None:
        self.lanes = machine().lanes
        self.vector = ir.VectorType(F32, self.lanes)
        self.module = ir.Module(name)
        signature = ir.FunctionType(ir.VoidType(), [I64] * n_arguments)
        self.function = ir.Function(self.module, signature, name)
        self.arguments = self.function.args
        self.entry = self.function.append_basic_block("entry")
        self.b = ir.IRBuilder(self.entry)

    def const(self, value: int) -> ir.Constant:
        return ir.Constant(I64, value)

    def zero(self) -> ir.Constant:
        return ir.Constant(self.vector, [0.0] * self.lanes)

    def at(self, base: ir.Value, *terms: tuple[ir.Value | int, ir.Value | int]) -> ir.Value:
        """The address base + sum of products."""
        for count, stride in terms:
            factors = [self.const(f) if isinstance(f, int) else f for f in (count, stride)]
            base = self.b.add(base, self.b.mul(*factors))
        return base

    def load(self, address: ir.Value) -> ir.Value:
        # align=4: vectors start at any float of the user's memory
        return self.b.load(self.b.inttoptr(address, PTR), align=4, typ=self.vector)

    def store(self, value: ir.Value, address: ir.Value) -> None:
        self.b.store(value, self.b.inttoptr(address, PTR), align=4)

    def broadcast(self, address: ir.Value) -> ir.Value:
        scalar = self.b.load(self.b.inttoptr(address, PTR), align=4, typ=F32)
        first = self.b.insert_element(ir.Constant(self.vector, ir.Undefined), scalar, ir.Constant(I32, 0))
        zeros = ir.Constant(ir.VectorType(I32, self.lanes), [0] * self.lanes)
        return self.b.shuffle_vector(first, ir.Constant(self.vector, ir.Undefined), zeros)

    def shuffle(self, a: ir.Value, b: ir.Value, lanes: list[int]) -> ir.Value:
        return self.b.shuffle_vector(a, b, ir.Constant(ir.VectorType(I32, len(lanes)), lanes))

    def multiply_add(self, a: ir.Value, b: ir.Value, c: ir.Value) -> ir.Value:
        return self.b.fadd(self.b.fmul(a, b, flags=FAST), c, flags=FAST)

    def variable(self, initial: ir.Value) -> ir.AllocaInstr:
        """A mutable local, in the entry block, where the optimiser turns it into a register."""
        with self.b.goto_block(self.entry):
            self.b.position_at_start(self.entry)
            slot = self.b.alloca(initial.type)
        self.b.store(initial, slot)
        return slot

    def get(self, slot: ir.AllocaInstr) -> ir.Value:
        return self.b.load(slot, typ=slot.allocated_type)

    @contextmanager
    def loop(self, count: ir.Value) -> Iterator[ir.Value]:
        """`for index in range(count)`."""
        index = self.variable(self.const(0))
        head, body, end = (self.function.append_basic_block(n) for n in ("head", "body", "end"))
        self.b.branch(head)
        self.b.position_at_end(head)
        now = self.get(index)
        self.b.cbranch(self.b.icmp_signed("<", now, count), body, end)
        self.b.position_at_end(body)
        yield now
        self.b.store(self.b.add(now, self.const(1)), index)
        self.b.branch(head)
        self.b.position_at_end(end)

    def compile(self) -> bytes:
        """The object code."""
        self.b.ret_void()
        return _compile(str(self.module))


def _compile(text: str) -> bytes:
    """Optimises the IR for this processor."""
    module = llvm.parse_assembly(text)
    module.verify()
    optimise(module)
    code: bytes = target_machine().emit_object(module)
    return code


@functools.cache
def _store() -> ObjectStore:
    return ObjectStore("tiles", [__file__, objects.__file__])


def _kernel(make: Callable[..., _Kernel]) -> Callable[..., int]:
    """Turns a function that writes a kernel into one that gives its address, made once for its numbers."""

    @functools.cache
    def address(*numbers: int) -> int:
        with _lock:  # kernels may be asked for in several threads, and all modules share one LLVM context
            name = "-".join([make.__name__, *map(str, numbers)])
            code = _store().read(name) or _store().write(name, make(*numbers).compile())
            return load_object(code, make.__name__)

    return functools.update_wrapper(address, make)


@_kernel
def expand(vectors: int) -> _Kernel:
    """Kernel (f, f stride of e, u, u stride of v, d, k count, x, x row stride).

    x[(e, k), v] = f[e, v] u[v, k] for `vectors` lane vectors v.
    """
    kernel = _Kernel("expand", 8)
    f, fe, u, uv, d, count, x, row = kernel.arguments
    width = 4 * kernel.lanes
    with kernel.loop(d) as e:
        feature = [kernel.load(kernel.at(f, (e, fe), (v, width))) for v in range(vectors)]
        first = kernel.at(x, (kernel.b.mul(e, count), row))
        with kernel.loop(count) as k:
            for v in range(vectors):
                value = kernel.b.fmul(feature[v], kernel.load(kernel.at(u, (v, uv), (k, width))))
                kernel.store(value, kernel.at(first, (k, row), (v, width)))
    return kernel


@_kernel
def tile(outputs: int, vectors: int) -> _Kernel:
    """Kernel (W, stride e, stride k, stride j, d, k count, x, x row stride, o, o stride of v).

    o[v, j] = sum_{e, k} W[e, k, j] x[(e, k), v] for `outputs` j's and `vectors` lane vectors v.
    """
    kernel = _Kernel("tile", 10)
    w, we, wk, wj, d, count, x, row, o, ov = kernel.arguments
    width = 4 * kernel.lanes
    grid = [(j, v) for j in range(outputs) for v in range(vectors)]
    sums = {jv: kernel.variable(kernel.zero()) for jv in grid}
    source = kernel.variable(x)
    with kernel.loop(d) as e:
        core = kernel.variable(kernel.at(w, (e, we)))
        with kernel.loop(count):
            # Each input serves all outputs and each weight all vectors: few loads for many multiply-adds.
            here, weights = kernel.get(source), kernel.get(core)
            inputs = [kernel.load(kernel.at(here, (v, width))) for v in range(vectors)]
            for j in range(outputs):
                weight = kernel.broadcast(kernel.at(weights, (j, wj)))
                for v in range(vectors):
                    slot = sums[j, v]
                    kernel.b.store(kernel.multiply_add(weight, inputs[v], kernel.get(slot)), slot)
            kernel.b.store(kernel.at(weights, (1, wk)), core)
            kernel.b.store(kernel.at(here, (1, row)), source)
    for j, v in grid:
        kernel.store(kernel.get(sums[j, v]), kernel.at(o, (v, ov), (j, width)))
    return kernel


@_kernel
def gradient(rows: int, columns: int) -> _Kernel:
    """Kernel (a, stride m, stride v, b, stride j, stride v, v count, G, stride m, accumulate).

    G[m, j] (+)= sum over lane vectors v and lanes of a[m, v] b[j, v]; j is contiguous in G.
    """
    kernel = _Kernel("gradient", 10)
    a, am, av, b, bj, bv, count, g, gm, accumulate = kernel.arguments
    grid = [(m, j) for m in range(rows) for j in range(columns)]
    sums = {mj: kernel.variable(kernel.zero()) for mj in grid}
    with kernel.loop(count) as v:
        left = [kernel.load(kernel.at(a, (m, am), (v, av))) for m in range(rows)]
        for j in range(columns):
            right = kernel.load(kernel.at(b, (j, bj), (v, bv)))
            for m in range(rows):
                slot = sums[m, j]
                kernel.b.store(kernel.multiply_add(left[m], right, kernel.get(slot)), slot)
    # The lanes are added up once per tile, not once per lane vector.
    totals = _lane_sums(kernel, [kernel.get(sums[mj]) for mj in grid])
    for m in range(rows):
        wanted = totals[m * columns : (m + 1) * columns]
        line = ir.Constant(ir.VectorType(F32, columns), ir.Undefined)
        for j, (vector, lane) in enumerate(wanted):
            value = kernel.b.extract_element(vector, ir.Constant(I32, lane))
            line = kernel.b.insert_element(line, value, ir.Constant(I32, j))
        address = kernel.b.inttoptr(kernel.at(g, (m, gm)), PTR)
        with kernel.b.if_else(kernel.b.icmp_signed("!=", accumulate, kernel.const(0))) as (add, replace):
            with add:
                old = kernel.b.load(address, align=4, typ=line.type)
                kernel.b.store(kernel.b.fadd(old, line), address, align=4)
            with replace:
                kernel.b.store(line, address, align=4)
    return kernel


def _lane_sums(kernel: _Kernel, vectors: list[ir.Value]) -> list[tuple[ir.Value, int]]:
    """Where the sum over the lanes of each vector stands: (vector, lane); a transposing tree of additions."""
    lanes, found = kernel.lanes, []
    for start in range(0, len(vectors), lanes):
        group = vectors[start : start + lanes]
        members = [[start + i] for i in range(len(group))]
        block = lanes
        # Each round adds the two halves of every block and packs two vectors into one, so log2(lanes) rounds
        # leave one vector, each lane of which holds the sum of one vector of the group.
        while block > 1:
            half, merged, owners = block // 2, [], []
            for i in range(0, len(group), 2):
                u = group[i]
                w = group[i + 1] if i + 1 < len(group) else kernel.zero()
                low, high = [], []
                for first in range(0, lanes, block):
                    low += [first + k for k in range(half)] + [lanes + first + k for k in range(half)]
                    high += [first + half + k for k in range(half)] + [
                        lanes + first + half + k for k in range(half)
                    ]
                merged.append(kernel.b.fadd(kernel.shuffle(u, w, low), kernel.shuffle(u, w, high)))
                second = members[i + 1] if i + 1 < len(group) else [-1] * len(members[i])
                owners.append([owner for pair in zip(members[i], second, strict=True) for owner in pair])
            group, members, block = merged, owners, half
        order = {owner: lane for lane, owner in enumerate(members[0])}
        found += [(group[0], order[start + i]) for i in range(min(lanes, len(vectors) - start))]
    return found


@_kernel
def rescale() -> _Kernel:
    """Kernel (u, k count, d, f, f stride of e, exponents, factors) for one lane vector v.

    p = exponent of max_k |u[k]|, within +-MAX_POWER (0 for a zero or non-finite vector);
    f[e] *= 2^-p, exponents += p (int32),
    factors = 2^-p.
    """
    kernel = _Kernel("rescale", 7)
    u, count, d, f, fe, exponents, factors = kernel.arguments
    b, width = kernel.b, 4 * kernel.lanes
    integers = ir.VectorType(I32, kernel.lanes)

    def splat(value: int) -> ir.Constant:
        return ir.Constant(integers, [value] * kernel.lanes)

    # Bits of non-negative floats, read as integers, have the order of the floats; infinity and NaN come last.
    largest = kernel.variable(splat(0))
    with kernel.loop(count) as k:
        bits = b.and_(b.bitcast(kernel.load(kernel.at(u, (k, width))), integers), splat(0x7FFFFFFF))
        seen = kernel.get(largest)
        b.store(b.select(b.icmp_signed(">", bits, seen), bits, seen), largest)
    bits = kernel.get(largest)
    power = b.sub(b.lshr(bits, splat(23)), splat(127))
    for bound, sign in ((MAX_POWER, ">"), (-MAX_POWER, "<")):
        power = b.select(b.icmp_signed(sign, power, splat(bound)), splat(bound), power)
    usable = b.and_(b.icmp_signed(">", bits, splat(0)), b.icmp_signed("<", bits, splat(0x7F800000)))
    power = b.select(usable, power, splat(0))
    # 2^-p from its bits: exact, and no division.
    factor = b.bitcast(b.shl(b.sub(splat(127), power), splat(23)), kernel.vector)
    with kernel.loop(d) as e:
        address = kernel.at(f, (e, fe))
        kernel.store(b.fmul(kernel.load(address), factor), address)
    old = b.load(b.inttoptr(exponents, PTR), align=4, typ=integers)
    b.store(b.add(old, power), b.inttoptr(exponents, PTR), align=4)
    kernel.store(factor, factors)
    return kernel


@_kernel
def pullback() -> _Kernel:
    """Kernel (f, f stride of e, u, h, h stride of e, d, k count, g, df, df stride of e) for one lane vector.

    g[k] = sum_e f[e] h[e, k] and df[e] = sum_k u[k] h[e, k]: the adjoint of `expand` after the site's GEMM.
    """
    kernel = _Kernel("pullback", 10)
    f, fe, u, h, he, d, count, g, df, dfe = kernel.arguments
    b, width = kernel.b, 4 * kernel.lanes
    with kernel.loop(count) as k:
        kernel.store(kernel.zero(), kernel.at(g, (k, width)))
    with kernel.loop(d) as e:
        feature = kernel.load(kernel.at(f, (e, fe)))
        total = kernel.variable(kernel.zero())
        # One pass over h serves both results; g has too many entries for registers and is summed in memory.
        with kernel.loop(count) as k:
            value = kernel.load(kernel.at(h, (e, he), (k, width)))
            address = kernel.at(g, (k, width))
            kernel.store(kernel.multiply_add(feature, value, kernel.load(address)), address)
            vector = kernel.load(kernel.at(u, (k, width)))
            b.store(kernel.multiply_add(vector, value, kernel.get(total)), total)
        kernel.store(kernel.get(total), kernel.at(df, (e, dfe)))
    return kernel
