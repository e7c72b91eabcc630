"""The losses of a solution along paths."""
