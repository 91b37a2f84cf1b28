"""`python rpc_command.py ADDRESS ARGUMENTS`: q3e-local, and its worker processes, on the device of an RPC server.

A process that is spawned runs this module too, as its main module has it.
"""

from __future__ import annotations

import sys

import rpc

rpc.register(sys.argv[1])

if __name__ == "__main__":
    from q3e_local.cli import main

    main(sys.argv[2:])
