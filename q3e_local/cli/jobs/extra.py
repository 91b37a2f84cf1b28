"""Say that an optional package is missing before texts are embedded for it, which may take hours."""

from __future__ import annotations

import importlib.util

from q3e_local.errors import MissingPackageError

_PACKAGES = {"sklearn": "scikit-learn", "matplotlib": "matplotlib"}


def need(module: str, what: str) -> None:
    """Raise MissingPackageError where the module that `what` takes is not installed."""
    if importlib.util.find_spec(module) is None:
        raise MissingPackageError(what, _PACKAGES[module], "analysis")
