"""A store needs its library, and says how to get it; no store's library is loaded for another store."""

from __future__ import annotations

import importlib
import sys
import tomllib

import pytest
from paths import ROOT

from q3e_local.errors import MissingPackageError, OptionError, OutputError
from q3e_local.stores.address import parse
from q3e_local.stores.opening import opened

LIBRARIES = {
    "qdrant": ("qdrant_client", "qdrant:x", "qdrant-client", "qdrant"),
    "milvus": ("pymilvus", "milvus:x.db", "pymilvus", "milvus"),
    "pgvector": ("psycopg", "postgresql://h/d", "psycopg and pgvector", "pgvector"),
    "lancedb": ("lancedb", "lancedb:x", "lancedb", "lancedb"),
    "chroma": ("chromadb", "chroma:x", "chromadb", "chroma"),
    "sqlite_vec": ("sqlite_vec", "sqlite-vec:x", "sqlite-vec", "sqlite-vec"),
    "redis": ("redis", "redis://127.0.0.1:1", "redis", "redis"),
}


@pytest.mark.parametrize("module", LIBRARIES)
def test_without_its_library_a_store_has_the_line_that_installs_it(module, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    library, address, package, extra = LIBRARIES[module]
    for name in [name for name in sys.modules if name.partition(".")[0] == library]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, library, None)
    monkeypatch.delitem(sys.modules, f"q3e_local.stores.{module}", raising=False)
    message = rf"needs {package}; install it with: pip install 'q3e-local\[{extra}\]'$"
    with pytest.raises(MissingPackageError, match=message), opened(parse(address)):
        pass
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    for name in package.split(" and "):
        assert any(each.startswith(name) for each in extras[extra])


def test_the_library_of_another_store_is_not_asked_for(monkeypatch, tmp_path):
    for library, *_ in LIBRARIES.values():
        if library != "sqlite_vec":
            monkeypatch.setitem(sys.modules, library, None)
    importlib.import_module("q3e_local.stores.filling")
    with opened(parse(f"sqlite-vec:{tmp_path / 'a.db'}")) as store:
        assert store.mark() is None


def test_one_process_writes_at_a_time(tmp_path):
    address = parse(f"sqlite-vec:{tmp_path / 'a.db'}")
    with opened(address):
        with (
            pytest.raises(OutputError, match=r"a\.db#q3e is being written by another process; wait for it"),
            opened(address),
        ):
            pass
        with opened(parse(f"sqlite-vec:{tmp_path / 'a.db'}#other")):
            pass


def test_a_collection_is_not_replaced(tmp_path):
    with (
        pytest.raises(
            OptionError, match=r"--force replaces files, and .*a\.db#q3e is a collection: to begin anew, delete"
        ),
        opened(parse(f"sqlite-vec:{tmp_path / 'a.db'}"), replace=True),
    ):
        pass
    assert not (tmp_path / "a.db").exists()
