"""Tree tensor networks."""
