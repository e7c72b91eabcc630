"""The named equations, one file each: problem, truth, recipe and source; `table.py` lists them.

Stored runs know the functions of a problem by name and code (`tnml.pde.identity`). Once an equation is
released its functions therefore keep their names and their code; that is why small ones such as `_square` are
in every file that needs them.
"""
