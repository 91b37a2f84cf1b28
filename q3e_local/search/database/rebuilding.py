"""The command that gives an index of one vector space the vectors of another, for messages that advise it.

Knows spaces and the command line's options; opens nothing.
"""

from __future__ import annotations

from pathlib import Path

from q3e_local.search.database.records import IndexSpace
from q3e_local.search.places import option_of, quoted


def rebuild_command(path: Path, own: IndexSpace, wanted: IndexSpace) -> str:
    """The command that gives an index of one space the vectors of another.

    For vectors with an instruction it is a call from Python, because the command line indexes bare texts.
    """
    if wanted.prefix:
        arguments = f"{str(path)!r}, embedder, {wanted.dim}, task=task, instruction=instruction"
        return f"q3e_local.search.indexing.rebuild.rebuild({arguments})"
    command = f"q3e-local index rebuild{option_of(path)}"
    if own.digest != wanted.digest or own.dim == wanted.dim:
        command += f" -m {quoted(wanted.model)}"
    # Without -d, another model would make vectors of all its numbers.
    return command + (f" -d {wanted.dim}" if (own.digest, own.dim) != (wanted.digest, wanted.dim) else "")
