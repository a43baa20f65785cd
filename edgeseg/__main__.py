"""`python -m edgeseg`, which `torchrun -m edgeseg` uses too."""

import sys

from edgeseg.cli import main

if __name__ == "__main__":
    sys.exit(main())
