"""`python -m q3e_local` is `q3e-local`."""

from q3e_local.cli import main

main()
