"""The frozen program: what `q3e-local` runs where there is no Python. freeze.py makes it."""

import multiprocessing
import runpy
import sys

from q3e_local.__main__ import run

if __name__ == "__main__":
    multiprocessing.freeze_support()  # models compute in processes, which start this file again
    if sys.argv[1:3] == ["-P", "-m"]:  # and so do trials of kernels and quantizing, as modules of Python
        sys.argv = sys.argv[3:]
        runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
    else:
        run()
