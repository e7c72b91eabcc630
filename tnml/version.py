"""The version of tnml, for every room: nothing else is imported here."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("tnml")
except PackageNotFoundError:  # a checkout that nobody installed
    __version__ = "0+checkout"
