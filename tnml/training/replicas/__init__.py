"""Many equal layers trained at once."""
