"""Random paths: noise, simulation, and sums and means over them."""
