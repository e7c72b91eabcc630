"""Chains of one shared core, for sequences."""
