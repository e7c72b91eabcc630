"""Matrix product states with periodic boundary."""
