"""The function u(t, x) that a network stands for, and its derivatives."""
