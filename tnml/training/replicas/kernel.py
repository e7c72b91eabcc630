"""An epoch of training a chain whose features are mostly zero, compiled by numba: AdamW, sample after sample.

A hat or one-hot feature vector has at most two components that are not zero, so a sample meets one or two of
the d matrices of a site. Vectors enter every site as rows, in the letters of `tnml.contraction.chain`:

    v_s+1 = (w_0 A_s[k] + w_1 A_s[k+1])^T v_s      u_s = (w_0 A_s[k] + w_1 A_s[k+1]) u_s+1

Bonds are padded with zeros to one size. Padded weights have a gradient of exactly 0 and stay 0.
"""

import numba
import numpy as np

_FAST = {"reassoc", "contract", "arcp", "nsz", "afn"}  # NaN and infinity stay what they are
_TINY = np.float32(1e-30)  # smaller numbers are 0: denormals are slow


@numba.njit(cache=True, fastmath=_FAST, error_model="numpy")
def _from_the_left(cores, place, share, last, vectors):
    """Sets `vectors[s]`, s from 0 to `last`, for one sample."""
    bond = cores.shape[2]
    vectors[0, :] = 0.0
    vectors[0, 0] = 1.0
    for s in range(last):
        k = place[s]
        vectors[s + 1, :] = 0.0
        for part in range(2):
            w = share[s, part]
            if w == 0.0:
                continue
            for a in range(bond):
                v = vectors[s, a] * w
                for b in range(bond):
                    vectors[s + 1, b] += v * cores[s, k + part, a, b]


@numba.njit(cache=True, fastmath=_FAST, error_model="numpy")
def _from_the_right(cores, place, share, last, vectors):
    """Sets `vectors[s]`, s from the last site to `last`, for one sample."""
    sites, bond = len(place), cores.shape[2]
    vectors[sites, :] = 0.0
    vectors[sites, 0] = 1.0
    for s in range(sites - 1, last - 1, -1):
        k = place[s]
        vectors[s, :] = 0.0
        for part in range(2):
            w = share[s, part]
            if w == 0.0:
                continue
            for a in range(bond):
                inner = np.float32(0.0)
                for b in range(bond):
                    inner += cores[s, k + part, a, b] * vectors[s + 1, b]
                vectors[s, a] += w * inner


@numba.njit(cache=True, fastmath=_FAST, error_model="numpy")
def _outputs(label, v, u, found):
    for c in range(len(found)):
        total = np.float32(0.0)
        for a in range(len(v)):
            inner = np.float32(0.0)
            for b in range(len(u)):
                inner += label[c, a, b] * u[b]
            total += v[a] * inner
        found[c] = total


@numba.njit(cache=True, fastmath=_FAST, error_model="numpy")
def _loss(found, code, target, smoothing, gradient):
    """The loss of one sample, and its gradient: cross-entropy, or with `code` -1 the mean squared error."""
    outputs = len(found)
    if code < 0:
        total = 0.0
        for c in range(outputs):
            off = found[c] - target[c]
            total += off * off / outputs
            gradient[c] = 2 * off / outputs
        return total
    highest = found[0]
    for c in range(1, outputs):
        highest = max(highest, found[c])
    z = 0.0
    mean = 0.0
    for c in range(outputs):
        power = np.exp(np.float64(found[c] - highest))
        gradient[c] = power
        z += power
        mean += found[c]
    for c in range(outputs):
        gradient[c] = gradient[c] / z - smoothing / outputs
    gradient[code] -= 1 - smoothing
    return np.log(z) + highest - (1 - smoothing) * found[code] - smoothing * mean / outputs


@numba.njit(cache=True, fastmath=_FAST, error_model="numpy")
def _adjoint(cores, of_cores, place, share, first, last, step, vectors, adjoint, swap):
    """Adds the gradients of the cores from `first` towards `last`; `adjoint` is overwritten.

    With `step` -1 these are cores left of the label, with 1 those right of it.
    """
    bond = cores.shape[2]
    for s in range(first, last, step):
        k = place[s]
        for a in range(bond):
            swap[a] = 0.0
        for part in range(2):
            w = share[s, part]
            if w == 0.0:
                continue
            if step < 0:
                for a in range(bond):
                    v = vectors[s, a] * w
                    inner = np.float32(0.0)
                    for b in range(bond):
                        of_cores[s, k + part, a, b] += v * adjoint[b]
                        inner += cores[s, k + part, a, b] * adjoint[b]
                    swap[a] += w * inner
            else:
                for a in range(bond):
                    g = adjoint[a] * w
                    for b in range(bond):
                        of_cores[s, k + part, a, b] += g * vectors[s + 1, b]
                        swap[b] += g * cores[s, k + part, a, b]
        for a in range(bond):
            adjoint[a] = swap[a]


@numba.njit(cache=True, fastmath=_FAST, error_model="numpy")
def _adamw(weight, gradient, mean, square, path, scale, rate, decay, beta1, beta2, eps, count):
    """One step; `decay` pulls to `path`. The gradient is multiplied by `scale`, and 0 afterwards."""
    pull, size = np.float32(rate * decay), np.float32(rate / (1 - beta1**count))
    root = np.float32(1 / np.sqrt(1 - beta2**count))
    one, two, tiny = np.float32(1 - beta1), np.float32(1 - beta2), np.float32(eps)
    for i in range(len(weight)):
        g = gradient[i] * scale
        gradient[i] = 0.0
        m = mean[i] + one * (g - mean[i])
        v = square[i] + two * (g * g - square[i])
        mean[i] = m if abs(m) > _TINY else np.float32(0.0)
        square[i] = v if v > _TINY else np.float32(0.0)
        weight[i] += pull * (path[i] - weight[i]) - size * m / (np.sqrt(v) * root + tiny)


@numba.njit(cache=True, fastmath=_FAST, error_model="numpy")
def epoch(
    cores, label, of_cores, of_label, moments, path, label_path, places, shares, codes, targets, weights,
    order, ends, rates, done, site, smoothing, decay, betas, eps,
):  # fmt: skip
    """Trains on every batch of an epoch; the sum of the losses and the number of right labels.

    Args:
        cores: `[n, d, l, r]`, changed in place.
        label: `[c, l, r]`, changed in place.
        of_cores: their gradient, zeros.
        of_label: likewise.
        moments: means and squares of both gradients.
        path: what the decay pulls the cores to.
        label_path: and the label core.
        places: `[b, n]`, the first component of each feature vector that is not zero.
        shares: `[b, n, 2]`, this one and the next.
        codes: `[b]` labels; -1 for real targets.
        targets: `[b, c]`, or one row for labels.
        weights: `[b]` of the samples.
        order: of the samples.
        ends: of the batches.
        rates: of the steps.
        done: steps before.
        site: of the label core.
        smoothing: of labels.
        decay: weight decay, decoupled.
        betas: of Adam.
        eps: likewise.
    """
    sites, bond, outputs = cores.shape[0], cores.shape[2], len(label)
    left, right = np.zeros((sites + 1, bond), np.float32), np.zeros((sites + 1, bond), np.float32)
    found, gradient = np.zeros(outputs, np.float32), np.zeros(outputs, np.float32)
    of_left, of_right = np.zeros(bond, np.float32), np.zeros(bond, np.float32)
    swap = np.zeros(bond, np.float32)
    total, hits, first = 0.0, 0, 0
    for step in range(len(ends)):
        for i in range(first, ends[step]):
            row = order[i]
            place, share = places[row], shares[row]
            _from_the_left(cores, place, share, site, left)
            _from_the_right(cores, place, share, site, right)
            v, u = left[site], right[site]
            _outputs(label, v, u, found)
            target = targets[row if len(targets) > 1 else 0]
            total += weights[row] * _loss(found, codes[row], target, smoothing, gradient)
            best = 0
            for c in range(outputs):
                best = c if found[c] > found[best] else best
            hits += best == codes[row]
            for a in range(bond):
                of_left[a] = of_right[a] = 0.0
            for c in range(outputs):
                g = gradient[c] * weights[row]
                for a in range(bond):
                    va = v[a] * g
                    inner = np.float32(0.0)
                    for b in range(bond):
                        of_label[c, a, b] += va * u[b]
                        of_right[b] += va * label[c, a, b]
                        inner += label[c, a, b] * u[b]
                    of_left[a] += g * inner
            _adjoint(cores, of_cores, place, share, site - 1, -1, -1, left, of_left, swap)
            _adjoint(cores, of_cores, place, share, site, sites, 1, right, of_right, swap)
        scale = np.float32(1.0 / (ends[step] - first))
        count, rate = done + step + 1, rates[step]
        _adamw(
            cores.ravel(), of_cores.ravel(), moments[0].ravel(), moments[1].ravel(), path.ravel(),
            scale, rate, decay, betas[0], betas[1], eps, count,
        )  # fmt: skip
        _adamw(
            label.ravel(), of_label.ravel(), moments[2].ravel(), moments[3].ravel(), label_path.ravel(),
            scale, rate, decay, betas[0], betas[1], eps, count,
        )  # fmt: skip
        first = ends[step]
    return total, hits
