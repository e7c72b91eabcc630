# ruff: noqa: F403, F405 (every slot, by its name)
"""Loops of the native engine over halves, sites and tiles; compiled once by numba, run by every thread.

Layouts (V = lanes of a vector register, v = lane vector, e = physical index):

    features  [row][e][v][V]    rows in the order of processing: the left half from the left end to the label
                                site, then the right half from the right end to it; padding samples are 0
    vectors   [row][v][k][V]    what enters each row, and after each half what reaches the label site
    adjoints  [slot][v][j][V]   a ring, the adjoint of what leaves each row

Forward: each thread takes its lane vectors through the halves, no barrier. Backward: either each half belongs
to one thread (no barrier), or chunk after chunk, threads over lane vectors for the adjoints and, after a
barrier, over rows for the core gradients. No sum runs across threads, so results do not depend on timing.

Nothing here raises (no division is checked, no `range` has a step that varies), so the machine code needs
nothing of numba and can be kept on disk.
"""

import numpy as np
from numba import carray, cfunc, njit, types  # type: ignore[attr-defined]

from tnml.contraction.chain.machine_code import call, call_for_int, integer, load, store
from tnml.contraction.chain.reference import RESCALE_EVERY
from tnml.contraction.chain.slots import *


@njit
def _column(q, row, column):
    return integer(q[TABLE] + 8 * (row * N_COLUMNS + column))


@njit
def _my_range(q, thread, half):
    """Lane vectors `[first, last)` of this thread in a half."""
    slot = q[PARTITION] + 8 * (4 * thread + 2 * half)
    return integer(slot), integer(slot + 8)


@njit
def _rows(q, half):
    return (0, q[ROWS_LEFT]) if half == 0 else (q[ROWS_LEFT], q[ROWS])


@njit
def _vector(q, row, leaving, first):
    """Base address of the vectors that enter (or leave) a row, for a thread that begins at `first`.

    Without KEEP two slots per half are used in turn; each thread's vectors then stay in its own part of a
    slot, whatever the bond, since another thread may be at another row.
    """
    line = 4 * q[LANES] * q[VECTORS]
    if q[KEEP]:
        return q[SAVED] + _column(q, row, OUT_OFFSET if leaving else IN_OFFSET) * line
    half = 1 if row >= q[ROWS_LEFT] else 0
    slot = q[SAVED] + (2 * half + ((row + leaving) & 1)) * q[WIDEST] * line
    return slot + first * (q[WIDEST] - _column(q, row, J if leaving else K)) * 4 * q[LANES]


@njit
def _expand(q, row, u, count, first, last, x, stride):
    """x[(e, k), v] = features times u[v, k] for the lane vectors [first, last); x starts at `first`."""
    width = 4 * q[LANES]
    of_e = width * q[VECTORS]
    v = first
    while v < last:
        n = min(q[MAX_VECTORS], last - v)
        f = q[PACKED] + (row * q[D] * q[VECTORS] + v) * width
        arguments = (
            f,
            of_e,
            u + v * count * width,
            count * width,
            q[D],
            count,
            x + (v - first) * width,
            stride,
        )
        call(integer(q[EXPANDS] + 8 * n), arguments)
        v += n


@njit
def _multiply(q, w, of_e, of_k, of_j, d, count, outputs, x, stride, n, o):
    """o[v, j] = sum_{e, k} W[e, k, j] x[(e, k), v] for n lane vectors, in similar blocks of outputs."""
    width = 4 * q[LANES]
    most = q[ACCUMULATORS] // n  # a tile of more outputs would spill its sums out of the registers
    blocks = (outputs + most - 1) // most
    small, larger = outputs // blocks, outputs % blocks
    j = 0
    for block in range(blocks):
        size = small + (1 if block < larger else 0)
        kernel = integer(q[TILES] + 8 * (n * TILE_COLUMNS + size))
        call(kernel, (w + j * of_j, of_e, of_k, of_j, d, count, x, stride, o + j * width, outputs * width))
        j += size


@njit
def _forward_row(q, row, first, last, x):
    """Takes the lane vectors [first, last) through one row and rescales them every few rows."""
    width = 4 * q[LANES]
    count, outputs = _column(q, row, K), _column(q, row, J)
    u, o = _vector(q, row, 0, first), _vector(q, row, 1, first)
    w = q[WEIGHT] + _column(q, row, W_OFFSET)
    of_e, of_k, of_j = _column(q, row, STRIDE_E), _column(q, row, STRIDE_K), _column(q, row, STRIDE_J)
    v = first
    while v < last:
        n = _group(last - v, q[MAX_VECTORS])
        _expand(q, row, u, count, v, v + n, x, n * width)
        _multiply(q, w, of_e, of_k, of_j, q[D], count, outputs, x, n * width, n, o + v * outputs * width)
        v += n
    half = 1 if row >= q[ROWS_LEFT] else 0
    begin, end = _rows(q, half)
    # The factor goes into the features of the next row, which saves a pass over the vectors themselves.
    if (row - begin) % RESCALE_EVERY == RESCALE_EVERY - 1 and row + 1 < end:
        for v in range(first, last):
            f = q[PACKED] + ((row + 1) * q[D] * q[VECTORS] + v) * width
            exponents = q[EXPONENTS] + (half * q[VECTORS] + v) * width
            factors = q[FACTORS] + (row + 1) * q[FACTORS_STRIDE] + v * width
            call(
                q[RESCALE],
                (o + v * outputs * width, outputs, q[D], f, q[VECTORS] * width, exponents, factors),
            )


@njit
def _group(left, most):
    """Size of the next group of lane vectors: groups of similar size, none larger than `most`."""
    groups = (left + most - 1) // most
    return (left + groups - 1) // groups


@njit
def _pack(q, half, first, last):
    """Features of one half into lanes, and the start vector 1."""
    lanes, d, batch = q[LANES], q[D], q[BATCH]
    begin, end = _rows(q, half)
    for v in range(first, last):
        filled = min(lanes, batch - v * lanes)
        for row in range(begin, end):
            source = q[FEATURES] + v * lanes * q[FEATURES_B] + _column(q, row, SITE) * q[FEATURES_N]
            for e in range(d):
                target = q[PACKED] + 4 * lanes * ((row * d + e) * q[VECTORS] + v)
                for i in range(filled):
                    store(target + 4 * i, load(source + i * q[FEATURES_B] + e * q[FEATURES_D]))
                for i in range(filled, lanes):
                    store(target + 4 * i, np.float32(0))
        if begin < end:
            start = _vector(q, begin, 0, first) + 4 * lanes * v
            for i in range(lanes):
                store(start + 4 * i, np.float32(1))


@njit
def _unpack(q, half, first, last):
    """What reached the label site, as [b, j]."""
    end = _rows(q, half)[1]
    outputs = _column(q, end - 1, J)
    lanes = q[LANES]
    source, target = _vector(q, end - 1, 1, first), q[LEFT] if half == 0 else q[RIGHT]
    for v in range(first, last):
        for i in range(min(lanes, q[BATCH] - v * lanes)):
            for j in range(outputs):
                value = load(source + 4 * ((v * outputs + j) * lanes + i))
                store(target + 4 * ((v * lanes + i) * outputs + j), value)


@njit
def _thread_of(q):
    return q[THREAD] if q[THREAD] >= 0 else call_for_int(q[THREAD_NUMBER])


@njit
def _team(q):
    """Threads that really run: OpenMP may give fewer than asked for; each then does the work of several."""
    return q[THREADS] if q[THREAD] >= 0 else call_for_int(q[TEAM_SIZE])


@njit
def _scratch(q, thread):
    return q[SCRATCH] + thread * q[SCRATCH_STRIDE]


@cfunc(types.void(types.CPointer(types.int64)), error_model="numpy")
def forward_worker(parameters):
    """Forward pass of one thread."""
    q = carray(parameters, (N_SLOTS,))
    part = thread = _thread_of(q)
    while part < q[THREADS]:
        for half in range(2):
            first, last = _my_range(q, part, half)
            begin, end = _rows(q, half)
            if first < last and begin < end:
                _pack(q, half, first, last)
                for row in range(begin, end):
                    _forward_row(q, row, first, last, _scratch(q, thread))
                _unpack(q, half, first, last)
        part += _team(q)


@njit
def _pack_adjoint(q, half, first, last):
    """The adjoint `[b, j]` that arrives at the label site, into lanes of the last slot of its half."""
    end = _rows(q, half)[1]
    outputs = _column(q, end - 1, J)
    lanes = q[LANES]
    source, target = q[LEFT] if half == 0 else q[RIGHT], _adjoint(q, half, end - 1)
    for v in range(first, last):
        for i in range(lanes):
            b = v * lanes + i
            for j in range(outputs):
                value = load(source + 4 * (b * outputs + j)) if b < q[BATCH] else np.float32(0)
                store(target + 4 * ((v * outputs + j) * lanes + i), value)


@njit
def _adjoint(q, half, row):
    """Address of the adjoint of what leaves a row (`row - 1`: of what enters it), in a ring of slots.

    The ring lets a chunk start from where the one before it ended, and a thread never writes the slot from
    which another still reads.
    """
    size = 4 * q[LANES] * q[VECTORS] * q[WIDEST]
    slots = q[CHUNK] + 1
    slot = (_rows(q, half)[1] - 1 - row) % slots
    return q[ADJOINTS] + (half * slots + slot) * size


@njit
def _adjoint_row(q, half, row, first, last, x):
    """Adjoint of what enters a row from that of what leaves it; the features' gradient when asked for."""
    width = 4 * q[LANES]
    g_out, g_in = _adjoint(q, half, row), _adjoint(q, half, row - 1)
    count, outputs = _column(q, row, K), _column(q, row, J)
    w = q[WEIGHT] + _column(q, row, W_OFFSET)
    of_e, of_k, of_j = _column(q, row, STRIDE_E), _column(q, row, STRIDE_K), _column(q, row, STRIDE_J)
    v = first
    while v < last:
        n = _group(last - v, q[MAX_VECTORS])
        target = g_in + v * count * width
        if q[FEATURE_GRADIENT] == 0:
            # The forward pass with the transposed core: j and k change places.
            _expand(q, row, g_out, outputs, v, v + n, x, n * width)
            _multiply(q, w, of_e, of_j, of_k, q[D], outputs, count, x, n * width, n, target)
        else:
            _adjoint_with_features(q, row, v, n, g_out, target, x)
        v += n


@njit
def _adjoint_with_features(q, row, v, n, g_out, target, x):
    """h[e, k] = sum_j W[e, k, j] g[j] for each e separately; then g[k] and the features' gradient from h."""
    width = 4 * q[LANES]
    count, outputs = _column(q, row, K), _column(q, row, J)
    w = q[WEIGHT] + _column(q, row, W_OFFSET)
    of_e, of_k, of_j = _column(q, row, STRIDE_E), _column(q, row, STRIDE_K), _column(q, row, STRIDE_J)
    h = x + outputs * n * width
    # [v][j][V] to [j][v][V]: the order in which a tile reads its inputs.
    for i in range(n):
        for j in range(outputs):
            for lane in range(q[LANES]):
                value = load(g_out + ((v + i) * outputs + j) * width + 4 * lane)
                store(x + (j * n + i) * width + 4 * lane, value)
    for e in range(q[D]):
        o = h + e * n * count * width
        _multiply(q, w + e * of_e, of_e, of_j, of_k, 1, outputs, count, x, n * width, n, o)
    of_feature = q[VECTORS] * width
    for i in range(n):
        offset = (row * q[D] * q[VECTORS] + v + i) * width
        u = _vector(q, row, 0, 0) + (v + i) * count * width
        g, df = target + i * count * width, q[FEATURE_GRADIENT] + offset
        arguments = (
            q[PACKED] + offset,
            of_feature,
            u,
            h + i * count * width,
            n * count * width,
            q[D],
            count,
            g,
            df,
        )
        call(q[PULLBACK], (*arguments, of_feature))


@njit
def _gradient_row(q, row, g, x):
    """Gradient of one core: vectors that enter it against expanded adjoints, over the whole batch."""
    width = 4 * q[LANES]
    count, outputs = _column(q, row, K), _column(q, row, J)
    of_e, of_k, of_j = _column(q, row, STRIDE_E), _column(q, row, STRIDE_K), _column(q, row, STRIDE_J)
    target = q[GRADIENT] + _column(q, row, W_OFFSET)
    first = 0
    while first < q[VECTORS]:
        n = min(GRADIENT_VECTORS, q[VECTORS] - first)
        _expand(q, row, g, outputs, first, first + n, x, n * width)
        u = _vector(q, row, 0, 0) + first * count * width
        for e in range(q[D]):
            adjoints, core = x + e * outputs * n * width, target + e * of_e
            # Whichever of j and k is contiguous in this half's cores becomes the columns of the tiles.
            if of_j == 4:
                shapes = (u, width, count * width, count, adjoints, n * width, width, outputs, n, core, of_k)
            else:
                shapes = (adjoints, n * width, width, outputs, u, width, count * width, count, n, core, of_j)
            _gradient_tiles(q, shapes, first > 0)
        first += n


@njit
def _gradient_tiles(q, shapes, accumulate):
    """All tiles of `sum_v a[m, v] b[j, v]`; columns j are contiguous in the gradient."""
    a, of_m, a_v, rows, b, of_j, b_v, columns, n, core, line = shapes
    m = 0
    while m < rows:
        height = _group(rows - m, 4)
        j = 0
        while j < columns:
            wide = _group(columns - j, 4)
            kernel = integer(q[GRADIENTS] + 8 * (5 * height + wide))
            place = core + m * line + 4 * j
            call(kernel, (a + m * of_m, of_m, a_v, b + j * of_j, of_j, b_v, n, place, line, accumulate))
            j += wide
        m += height


@njit
def _backward_half(q, half, thread):
    """Backward pass of one half by one thread: gradient and adjoint row after row, two adjoint slots."""
    begin, end = _rows(q, half)
    if begin == end:
        return
    x = _scratch(q, thread)
    _pack_adjoint(q, half, 0, q[VECTORS])
    for row in range(end - 1, begin - 1, -1):
        _gradient_row(q, row, _adjoint(q, half, row), x)
        if row > begin or q[FEATURE_GRADIENT]:
            _adjoint_row(q, half, row, 0, q[VECTORS], x)


@njit
def _backward_chunks(q, thread):
    """Backward pass of both halves by all threads, chunk after chunk, with two barriers each."""
    x, team, part = _scratch(q, thread), _team(q), thread
    while part < q[THREADS]:
        for half in range(2):
            first, last = _my_range(q, part, half)
            begin, end = _rows(q, half)
            if first < last and begin < end:
                _pack_adjoint(q, half, first, last)
        part += team
    longest = max(q[ROWS_LEFT], q[ROWS] - q[ROWS_LEFT])
    done = 0
    while done < longest:
        part = thread
        while part < q[THREADS]:
            _adjoint_chunk(q, part, done, x)
            part += team
        # A core gradient sums over the whole batch: it needs the adjoints of all lane vectors.
        call(q[BARRIER], ())
        turn = 0  # rows are dealt out over both halves, so that all threads get similar shares
        for half in range(2):
            top, bottom = _chunk(q, half, done)
            for row in range(top - 1, bottom - 1, -1):
                if turn % team == thread:
                    _gradient_row(q, row, _adjoint(q, half, row), x)
                turn += 1
        # The next chunk writes to slots of the ring that these gradients read.
        call(q[BARRIER], ())
        done += q[CHUNK]


@njit
def _chunk(q, half, done):
    """(top, bottom): rows `[bottom, top)` of a half after `done` rows; empty where the half is at its end."""
    begin, end = _rows(q, half)
    return end - done, max(begin, end - done - q[CHUNK])


@njit
def _adjoint_chunk(q, part, done, x):
    """Adjoints of a chunk for the lane vectors of one part."""
    for half in range(2):
        first, last = _my_range(q, part, half)
        begin = _rows(q, half)[0]
        top, bottom = _chunk(q, half, done)
        for row in range(top - 1, bottom - 1, -1):
            if first < last and (row > begin or q[FEATURE_GRADIENT]):
                _adjoint_row(q, half, row, first, last, x)


@cfunc(types.void(types.CPointer(types.int64)), error_model="numpy")
def backward_worker(parameters):
    """Backward pass of one thread; CHUNK is 1 where each half belongs to one thread."""
    q = carray(parameters, (N_SLOTS,))
    thread = _thread_of(q)
    if q[CHUNK] > 1:
        _backward_chunks(q, thread)
    else:
        for half in range(2):
            if half % _team(q) == thread:
                _backward_half(q, half, thread)


@cfunc(types.void(types.CPointer(types.int64)), error_model="numpy")
def replicas_worker(parameters):
    """Runs a worker on the chains of one thread: equal ones, each with its own parameter vector."""
    q = carray(parameters, (N_SLOTS,))
    parts, part = q[THREADS], _thread_of(q)
    while part < parts:
        for replica in range(q[COUNT] * part // parts, q[COUNT] * (part + 1) // parts):
            call(q[WORKER], (q[FIRST] + replica * q[STRIDE],))
        part += 1 if q[THREAD] >= 0 else call_for_int(q[TEAM_SIZE])
