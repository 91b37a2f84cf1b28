"""llama.cpp's library: where it is, and that it may be missing or lack another that it needs. Loads nothing."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from q3e_local.errors import EngineError


def files(pattern: str) -> Iterator[Path]:
    """Files of such names where llama_cpp loads its libraries from: its own, or those of a build that is named."""
    if (other := os.environ.get("LLAMA_CPP_LIB_PATH")) is not None:
        folders = [Path(other)]
    else:
        spec = importlib.util.find_spec("llama_cpp")
        folders = [Path(folder, "lib") for folder in (spec and spec.submodule_search_locations) or ()]
    for folder in folders:
        yield from sorted(folder.glob(pattern))


@contextmanager
def importing() -> Iterator[None]:
    """Around an import of what needs the library. Raises EngineError with a way out where it cannot be loaded."""
    try:
        yield
    except (ImportError, OSError, RuntimeError) as error:
        raise EngineError(
            f"llama.cpp cannot be loaded: {error}; install llama-cpp-python==0.3.36 anew, built on this machine"
        ) from error
