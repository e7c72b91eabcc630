"""The parameter vector that every worker of the native engine reads: its slots, and its tables' columns.

Apart from `driver`, so that the engine can be started without numba if the machine code is on disk.
"""

# Addresses and strides are in bytes.
(
    THREAD, THREADS, ROWS_LEFT, ROWS, D, VECTORS, LANES, BATCH, FEATURES, FEATURES_B, FEATURES_N, FEATURES_D,
    WEIGHT, TABLE, PACKED, SAVED, KEEP, WIDEST, EXPONENTS, FACTORS, SCRATCH, SCRATCH_STRIDE, PARTITION,
    MAX_VECTORS, ACCUMULATORS, EXPANDS, TILES, GRADIENTS, RESCALE, PULLBACK, LEFT, RIGHT, GRADIENT,
    FEATURE_GRADIENT, ADJOINTS, CHUNK, THREAD_NUMBER, BARRIER, FACTORS_STRIDE, TEAM_SIZE, N_SLOTS,
) = range(41)  # fmt: skip
# Columns of the table of rows; offsets of vectors count numbers of one sample.
(W_OFFSET, K, J, STRIDE_K, STRIDE_J, STRIDE_E, SITE, IN_OFFSET, OUT_OFFSET, N_COLUMNS) = range(10)
GRADIENT_VECTORS = 32  # lane vectors that a gradient tile sums before it adds up its lanes
TILE_COLUMNS = 32  # width of the table of tile kernels
# Slots of the vector of `driver.replicas_worker`, besides those that `native.launch` sets: which worker,
# where the replicas' vectors begin, bytes between them, how many there are.
WORKER, FIRST, STRIDE, COUNT = D, FEATURES, FEATURES_B, BATCH
