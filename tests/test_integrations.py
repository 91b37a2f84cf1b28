"""Integrations need what they integrate with, and say how to get it. tests/integrations/ has those that run it."""

from __future__ import annotations

import importlib
import sys

import pytest

from q3e_local.errors import MissingPackageError


@pytest.mark.parametrize(
    ("module", "imported", "package", "install"),
    [
        ("mteb", "mteb", "mteb", "mteb"),
        ("langchain", "langchain_core", "langchain-core", "langchain-core"),
        ("chroma", "chromadb", "chromadb", "chromadb"),
        ("haystack", "haystack", "haystack-ai", "haystack-ai"),
        ("lancedb", "lancedb", "lancedb", "lancedb"),
        ("llama_index", "llama_index", "llama-index-core", "llama-index-core"),
        ("llm", "llm", "llm", "llm"),
        ("sklearn", "sklearn", "scikit-learn", r"'q3e-local\[analysis\]'"),
    ],
)
def test_without_the_package_the_error_has_the_line_that_installs_it(monkeypatch, module, imported, package, install):
    for name in [name for name in sys.modules if name.partition(".")[0] == imported]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, imported, None)
    monkeypatch.delitem(sys.modules, f"q3e_local.integrations.{module}", raising=False)
    with pytest.raises(MissingPackageError, match=f"needs {package}; install it with: pip install {install}$"):
        importlib.import_module(f"q3e_local.integrations.{module}")
