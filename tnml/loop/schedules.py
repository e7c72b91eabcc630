"""The learning rate as a pure function of the step, so that a resumed run has nothing to restore."""

import math

from tnml.loop.options import LoopOptions

START_DIVISOR = 25.0
END_DIVISOR = 25.0e4


def learning_rate(options: LoopOptions, step: int, steps_per_epoch: int) -> float:
    """The learning rate of global step `step` (from 0) of a run of `options.epochs * steps_per_epoch` steps.

    "one-cycle" is Smith & Topin's policy with both halves a cosine, as `torch.optim.lr_scheduler.OneCycleLR`
    without its momentum cycle; "cosine" is Loshchilov & Hutter's without restarts (arXiv:1608.03983, eq. 5).

    Example:
        >>> options = LoopOptions(epochs=2, lr=1.0, schedule="step", decay_every=1, decay_factor=0.1)
        >>> learning_rate(options, step=4, steps_per_epoch=3)
        0.1
    """
    total = options.epochs * steps_per_epoch
    if options.schedule == "constant":
        return options.lr
    if options.schedule == "step":
        return options.lr * options.decay_factor ** (step // steps_per_epoch // options.decay_every)
    if options.schedule == "cosine":
        return _cosine(options.lr, 0.0, step / total)
    peak_step = options.warmup * total - 1.0
    if step < peak_step:
        return _cosine(options.lr / START_DIVISOR, options.lr, step / peak_step)
    rest = total - 1.0 - max(peak_step, 0.0)
    done = (step - max(peak_step, 0.0)) / rest if rest > 0 else 0.0
    return _cosine(options.lr, options.lr / END_DIVISOR, min(done, 1.0))


def _cosine(start: float, end: float, done: float) -> float:
    """Half a cosine from `start` to `end`; `done` runs from 0 to 1."""
    return end + (start - end) / 2.0 * (1.0 + math.cos(math.pi * done))
