"""Measurements of tnml: `python -m benchmarks NAME`. Every answer is checked before it is timed."""
