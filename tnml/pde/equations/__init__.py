"""The named equations, one page each: problem, truth, recipe and source; `table.py` lists them."""
