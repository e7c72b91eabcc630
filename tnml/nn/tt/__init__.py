"""Layers whose weights are tensor-train matrices, and networks compressed to them."""
