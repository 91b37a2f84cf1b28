"""What `embed` and `index export` say when they are interrupted while they fill a vector store: `what_is_kept`."""

from __future__ import annotations

from q3e_local.cli.again import again
from q3e_local.stores.address import StoreAddress
from q3e_local.stores.filling import Filling
from q3e_local.wording.counts import counted


def what_is_kept(filling: Filling, to: StoreAddress, what: str) -> str:
    """How many rows are in the store after an interruption, and which command goes on."""
    if not filling.keeps_parts:
        return f"nothing is kept: {to} is written whole or not at all"
    command = "the same command" if to.password else again()
    return f"{counted(filling.n_there, f'{what} is', f'{what}s are')} in {to}; go on with: {command}"
