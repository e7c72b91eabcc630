"""The streams of random numbers of this room. Resumed runs need them: a number that was given stays."""

# Streams of `tnml.randomness.step_seed`.
WEIGHTS = 7  # starting weights
NORMAL, SHIFT = 11, 12  # normal numbers and signs; shifts of Sobol sequences. Of noise n: plus 16 n
NODES = 13  # directions of the smoothed terminal value

# The streams of noise, `stream` of `tnml.pde.increments`; the paths of the training have 0.
LOOK_AHEAD = 1  # of losses that look ahead from every point
MEASURED = 5  # of the paths that errors are measured on
