"""Integrations need what they integrate with, and say how to get it. tests/integrations/ has those that run it."""

from __future__ import annotations

import importlib
import sys

import pytest

from q3e_local.errors import MissingPackageError


@pytest.mark.parametrize(("module", "package"), [("mteb", "mteb")])
def test_without_the_package_the_error_has_the_line_that_installs_it(monkeypatch, module, package):
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.delitem(sys.modules, f"q3e_local.integrations.{module}", raising=False)
    with pytest.raises(MissingPackageError, match=f"needs {package}; install it with: pip install {package}$"):
        importlib.import_module(f"q3e_local.integrations.{module}")
