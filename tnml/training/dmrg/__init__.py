"""Training by sweeps over the bonds, as the density matrix renormalisation group does.

`tnml.training` offers what is public; nothing is imported here, so that the options load without the rest.
"""
