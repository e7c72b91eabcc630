"""The Born machine: a chain whose squared amplitude is a probability, and what can be asked of it."""
