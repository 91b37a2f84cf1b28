"""llama.cpp's library, which may be missing, or lack another that it needs: CUDA's, say. Loads nothing itself."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from q3e_local.errors import EngineError


@contextmanager
def importing() -> Iterator[None]:
    """Around an import of what needs the library. Raises EngineError with a way out where it cannot be loaded."""
    try:
        yield
    except (ImportError, OSError, RuntimeError) as error:
        raise EngineError(
            f"llama.cpp cannot be loaded: {error}; install llama-cpp-python==0.3.36 anew, built on this machine"
        ) from error
