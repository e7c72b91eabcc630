# ruff: noqa: F403, F405 (every slot, by its name)
"""Whole training steps of a chain with its label core as machine code; compiled once by numba.

    left, right       by the workers of `driver`, which are called at their addresses
    outputs           value[b, c] = sum_lr left[b, l] label[l, c, r] right[b, r], times 2^exponent
    loss, gradient    of labels (cross-entropy) or real targets (squared error), in closed form
    adjoints          of_right = sum_c g both,  of_left = sum_cr label g right,  of_label = sum_b left g right
    optimiser         Adam or AdamW on cores and label core, after the gradient is clipped

As in `driver` nothing raises and nothing is allocated, and the C library's mathematics is not called either:
the machine code needs nothing of numba.
"""

import numpy as np
from numba import carray, cfunc, njit, types  # type: ignore[attr-defined]

from tnml.contraction.chain import slots
from tnml.contraction.chain.machine_code import call, doubles, floats, integers, small_integers, square_root
from tnml.contraction.chain.step_slots import *

FAST = {"contract", "nsz", "reassoc"}  # NaN and infinity keep their meaning


@njit(error_model="numpy")
def _matrix(address, rows, columns):
    return carray(floats(address), (rows, columns))


@njit(error_model="numpy")
def _vector(address, size):
    return carray(floats(address), (size,))


@njit(error_model="numpy")
def _exp(x):
    """e^x of x at most 0: nearer to it than single precision can tell."""
    if x < -100.0:
        return 0.0
    x /= 256.0
    found = 1.0
    for n in range(9, 0, -1):
        found = 1.0 + found * x / n
    for _ in range(8):
        found *= found
    return found


@njit(error_model="numpy")
def _log(x):
    """The logarithm of x at least 1."""
    halvings = 0.0
    while 2.0 <= x < np.inf:
        x *= 0.5
        halvings += 1.0
    t = (x - 1.0) / (x + 1.0)
    total, power = 0.0, t
    for n in range(1, 33, 2):
        total += power / n
        power *= t * t
    return 2.0 * total + halvings * 0.6931471805599453


@njit(fastmath=FAST, error_model="numpy")
def _outputs(left, right, label, both, value):
    """`value [b, c]`, and `both [b, c r]`, the product of left vectors and label core."""
    ends, width = right.shape[1], label.shape[1]
    for b in range(left.shape[0]):
        for k in range(width):
            both[b, k] = 0.0
        for j in range(left.shape[1]):
            factor = left[b, j]
            for k in range(width):
                both[b, k] += factor * label[j, k]
        for c in range(value.shape[1]):
            total = np.float32(0.0)
            for m in range(ends):
                total += both[b, c * ends + m] * right[b, m]
            value[b, c] = total


@njit(error_model="numpy")
def _scale(matrix, powers, columns):
    """Multiplies every row by two to the sum of the exponents of its two halves."""
    for b in range(matrix.shape[0]):
        power = powers[b] + powers[columns + b]
        factor, base = np.float32(1.0), np.float32(2.0 if power > 0 else 0.5)
        for _ in range(abs(power)):
            factor *= base
        for c in range(matrix.shape[1]):
            matrix[b, c] *= factor


@njit(error_model="numpy")
def _cross_entropy(outputs, y, counts, smoothing, sums):
    """Adds up losses and hits; the outputs become the gradient of the mean loss."""
    samples, classes = outputs.shape
    spread = smoothing / classes
    for b in range(samples):
        best = 0
        for c in range(1, classes):
            best = c if outputs[b, c] > outputs[b, best] else best
        largest, total, every = np.float64(outputs[b, best]), 0.0, 0.0
        for c in range(classes):
            total += _exp(outputs[b, c] - largest)
            every += outputs[b, c] - largest
        own, log_total = outputs[b, y[b]] - largest, _log(total)
        count = np.float64(counts[b]) if counts.size else 1.0
        sums[0] += count * (log_total - (1.0 - smoothing) * own - spread * every)
        sums[1] += 1.0 if best == y[b] else 0.0
        for c in range(classes):
            target = spread + (1.0 - smoothing if c == y[b] else 0.0)
            outputs[b, c] = count * (_exp(outputs[b, c] - largest) / total - target) / samples


@njit(error_model="numpy")
def _squared_error(outputs, y, counts, sums):
    """Adds up losses; the outputs become the gradient of the mean loss."""
    samples, width = outputs.shape
    for b in range(samples):
        total, count = 0.0, np.float64(counts[b]) if counts.size else 1.0
        for c in range(width):
            off = np.float64(outputs[b, c]) - y[b, c]
            total += off * off
            outputs[b, c] = 2.0 * count * off / (width * samples)
        sums[0] += count * total / width


@njit(fastmath=FAST, error_model="numpy")
def _adjoints(gradient, left, right, label, both, of_left, of_right, of_label):
    """Gradients of label core, left and right vectors; `both` is used up."""
    ends, width = right.shape[1], label.shape[1]
    for j in range(label.shape[0]):
        for k in range(width):
            of_label[j, k] = 0.0
    for b in range(left.shape[0]):
        for m in range(ends):
            of_right[b, m] = 0.0
        for c in range(gradient.shape[1]):
            factor = gradient[b, c]
            for m in range(ends):
                of_right[b, m] += factor * both[b, c * ends + m]
            for m in range(ends):
                both[b, c * ends + m] = factor * right[b, m]
        for j in range(left.shape[1]):
            factor, total = left[b, j], np.float32(0.0)
            for k in range(width):
                of_label[j, k] += factor * both[b, k]
                total += label[j, k] * both[b, k]
            of_left[b, j] = total


@njit(error_model="numpy")
def _clip(first, second, longest):
    """Shortens the gradient that two vectors make up together, where it is longer."""
    squares = 0.0
    for i in range(first.size):
        squares += np.float64(first[i]) * first[i]
    for i in range(second.size):
        squares += np.float64(second[i]) * second[i]
    factor = np.float32(longest / (square_root(squares) + 1e-6))
    if factor >= 1.0:
        return
    for i in range(first.size):
        first[i] *= factor
    for i in range(second.size):
        second[i] *= factor


@njit(error_model="numpy")
def _adam(weight, gradient, means, squares, rates, numbers):
    """One step of Adam, or of AdamW where the decay is decoupled."""
    step, root, eps = np.float32(rates[STEP_SIZE]), np.float32(rates[ROOT]), np.float32(numbers[EPS])
    beta2, rest1 = np.float32(numbers[BETA2]), np.float32(1.0 - numbers[BETA1])
    rest2 = np.float32(1.0 - numbers[BETA2])
    decoupled = numbers[DECOUPLED] > 0.0
    keep = np.float32(1.0 - rates[RATE] * numbers[DECAY]) if decoupled else np.float32(1.0)
    pull = np.float32(0.0) if decoupled else np.float32(numbers[DECAY])
    for i in range(weight.size):
        w = weight[i] * keep
        g = gradient[i] + pull * w
        m = means[i] + rest1 * (g - means[i])
        s = beta2 * squares[i] + rest2 * g * g
        means[i], squares[i] = m, s
        weight[i] = w - step * m / (square_root(s) / root + eps)


@njit(error_model="numpy")
def _gradient(q, step, first, loss, numbers, sums):
    """The gradient of the mean loss of a step's samples, which begin at `first`."""
    samples, columns = step[SAMPLES], step[POWERS_COLUMNS]
    l, r, c = q[N_LEFT], q[N_RIGHT], q[N_OUTPUTS]
    powers = carray(small_integers(q[POWERS]), (2 * columns,))
    for i in range(2 * columns):
        powers[i] = 0
    start = q[INPUTS] + first * q[OF_SAMPLE]
    carray(integers(step[FORWARD_VECTOR]), (slots.N_SLOTS,))[slots.FEATURES] = start
    call(q[FORWARD], (step[FORWARD_VECTOR],))
    left, right = _matrix(q[LEFT_ENDS], samples, l), _matrix(q[RIGHT_ENDS], samples, r)
    label, value = _matrix(q[LABEL], l, c * r), _matrix(q[VALUES], samples, c)
    both = _matrix(q[BOTH], samples, c * r)
    _outputs(left, right, label, both, value)
    _scale(value, powers, columns)
    counts = _vector(q[COUNTS] + 4 * first, samples if q[COUNTS] else 0)
    if loss == CROSS_ENTROPY:
        y = carray(integers(q[TARGETS] + 8 * first), (samples,))
        _cross_entropy(value, y, counts, numbers[SMOOTHING], sums)
    else:
        _squared_error(value, _matrix(q[TARGETS] + 4 * c * first, samples, c), counts, sums)
    _scale(value, powers, columns)
    of_left, of_right = _matrix(q[OF_LEFT], samples, l), _matrix(q[OF_RIGHT], samples, r)
    _adjoints(value, left, right, label, both, of_left, of_right, _matrix(q[OF_LABEL], l, c * r))
    call(q[BACKWARD], (step[BACKWARD_VECTOR],))


@cfunc(types.void(types.CPointer(types.int64)), error_model="numpy")
def steps_worker(parameters):
    """Takes all the steps of a table, one after the other."""
    q = carray(parameters, (N_SLOTS,))
    numbers, sums = carray(doubles(q[NUMBERS]), (N_NUMBERS,)), carray(doubles(q[SUMS]), (q[STEPS], 2))
    steps = carray(integers(q[TABLE]), (q[STEPS], N_COLUMNS))
    rates = carray(doubles(q[RATES]), (q[STEPS], N_RATES))
    n, m = q[N_WEIGHTS], q[N_LEFT] * q[N_OUTPUTS] * q[N_RIGHT]
    of_weight, of_label = _vector(q[OF_WEIGHT], n), _vector(q[OF_LABEL], m)
    first = 0
    for number in range(q[STEPS]):
        _gradient(q, steps[number], first, q[LOSS], numbers, sums[number])
        if numbers[CLIP] > 0.0:
            _clip(of_weight, of_label, numbers[CLIP])
        means, squares = _vector(q[MEANS], n), _vector(q[SQUARES], n)
        _adam(_vector(q[WEIGHT], n), of_weight, means, squares, rates[number], numbers)
        means, squares = _vector(q[MEANS_LABEL], m), _vector(q[SQUARES_LABEL], m)
        _adam(_vector(q[LABEL], m), of_label, means, squares, rates[number], numbers)
        first += steps[number, SAMPLES]
