"""The proof of a variant of our kernels in a process of its own: a wrong instruction ends that process alone.

Starts and is that process: `python -m q3e_local.llama.kernels.trial LIBRARY VARIANT`. Does not use multiprocessing,
which would run the main module of the program once more, and which processes of a server may not use.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from q3e_local.llama.kernels.compiled import Library
from q3e_local.llama.kernels.proof import DisagreementError, n_held
from q3e_local.wording.endings import ended

_PATIENCE_S = 60.0  # it takes a second where nothing else wants the CPU
_DISAGREES = 3  # exit code


def held(library: Path, variant: str) -> int:
    """How many operations of the proof this variant took, in a process of its own.

    Raises DisagreementError where the variant computed one wrong, and where the process ends in another way.
    """
    # Python inside another program does not know its interpreter.
    if not sys.executable:
        return _held_here(library, variant)
    try:
        done = subprocess.run(  # noqa: S603 - this very module
            # -P: a folder with a package of ours or of its libraries, in which somebody works, is not searched first.
            [sys.executable, "-P", "-m", __name__, str(library), variant],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            timeout=_PATIENCE_S,
            start_new_session=True,  # Ctrl-C is for the program, and no fault of the variant
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise DisagreementError(f"it cannot be tried in a process of its own: {error}") from None
    if done.returncode == _DISAGREES:
        raise DisagreementError(done.stdout.strip())
    if done.returncode != 0:
        raise DisagreementError(f"the process that tried it {ended(done.returncode)}")
    return int(done.stdout)


def _held_here(library: Path, variant: str) -> int:
    opened = Library(library)
    opened.let_in()
    return n_held(opened, variant)


if __name__ == "__main__":
    try:
        sys.stdout.write(str(_held_here(Path(sys.argv[1]), sys.argv[2])))
    except DisagreementError as disagreement:
        sys.stdout.write(str(disagreement))
        sys.exit(_DISAGREES)
