"""The frozen program: what `q3e-local` runs where there is no Python. freeze.py makes it."""

import multiprocessing
import sys

from q3e_local.cli import main

if __name__ == "__main__":
    multiprocessing.freeze_support()  # models compute in processes, which start this file again
    sys.exit(main())
