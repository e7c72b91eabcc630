"""The layer whose weights are a matrix product state."""
