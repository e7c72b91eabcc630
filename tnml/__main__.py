"""`python -m tnml`: the same as the command `tnml`."""

import sys

from tnml.cli import main

if __name__ == "__main__":
    sys.exit(main())
