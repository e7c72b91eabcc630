"""The parameter vector of `step_driver.steps_worker`: its slots, its tables' columns and its numbers."""

# Addresses and strides are in bytes.
(
    STEPS, TABLE, RATES, NUMBERS, SUMS, LOSS, FORWARD, BACKWARD, OF_SAMPLE, INPUTS, TARGETS, COUNTS,
    N_WEIGHTS, N_LEFT, N_RIGHT, N_OUTPUTS, WEIGHT, LABEL, POWERS, LEFT_ENDS, RIGHT_ENDS, BOTH, VALUES,
    OF_LEFT, OF_RIGHT, OF_WEIGHT, OF_LABEL, MEANS, SQUARES, MEANS_LABEL, SQUARES_LABEL, N_SLOTS,
) = range(32)  # fmt: skip
# Columns of the table of steps: samples, the parameter vectors of `driver`'s workers, columns of exponents.
SAMPLES, FORWARD_VECTOR, BACKWARD_VECTOR, POWERS_COLUMNS, N_COLUMNS = range(5)
# Columns of the table of rates: of the step, with the mean's bias corrected, and the root of the other bias.
RATE, STEP_SIZE, ROOT, N_RATES = range(4)
# Numbers: those of the loss and of the optimiser. CLIP is 0 where nothing is clipped.
SMOOTHING, BETA1, BETA2, EPS, DECAY, DECOUPLED, CLIP, N_NUMBERS = range(8)
# Values of LOSS.
CROSS_ENTROPY, SQUARED_ERROR = range(2)
