"""Keeps the log messages of libraries off the user's terminal."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quiet(*loggers: str, level: int = logging.ERROR) -> Iterator[None]:
    """Inside the block the named loggers pass on errors only, or messages of another level and above.

    Example:
        >>> with quiet("lightning_fabric"):
        ...     logging.getLogger("lightning_fabric").info("not shown")
    """
    found = [logging.getLogger(name) for name in loggers]
    levels = [logger.level for logger in found]
    for logger in found:
        logger.setLevel(level)
    try:
        yield
    finally:
        for logger, before in zip(found, levels, strict=True):
            logger.setLevel(before)
