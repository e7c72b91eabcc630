"""The batched chain: shape of its weights, engines, and the operator that chooses one."""
