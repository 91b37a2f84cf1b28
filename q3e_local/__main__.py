"""The program's start: `q3e-local`, and `python -m q3e_local`.

Loads nothing before it can answer Ctrl-C, which many press as soon as they see a typing error.
"""

import sys


def run() -> None:
    """Run the command line, and exit with its code; Ctrl-C while its modules are still loading exits with 130."""
    try:
        from q3e_local.cli import main

        main()
    except KeyboardInterrupt:
        sys.stderr.write("Interrupted.\n")
        sys.exit(130)  # exit_codes.INTERRUPTED, which may not be loaded yet


if __name__ == "__main__":
    run()
