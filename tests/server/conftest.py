"""Coroutines as tests, each on a new event loop and for a minute at most; and a folder of indexes."""

from __future__ import annotations

import asyncio
import inspect
from pathlib import Path

import numpy as np
import pytest
from command import run, write
from served_indexes import FILES, NOTES, make

from q3e_local import VectorIndex

_TEST_S = 60


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    if not inspect.iscoroutinefunction(pyfuncitem.function):
        return None
    arguments = {name: pyfuncitem.funcargs[name] for name in inspect.signature(pyfuncitem.function).parameters}
    asyncio.run(asyncio.wait_for(pyfuncitem.obj(**arguments), _TEST_S))
    return True


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`notes.q3e` has added texts at 64 dims, `files.q3e` a folder's, `own.q3e` vectors that no model here made."""
    folder = tmp_path_factory.mktemp("indexes")
    make(folder / "notes.q3e", NOTES, 64)
    write(folder / "files", FILES)
    assert run("index", folder / "files", "--db", folder / "files.q3e", "-m", "demo", "-q").exit_code == 0
    with VectorIndex(folder / "own.q3e", dim=32) as index:
        index.add_vectors(["a bird in the oak"], np.eye(1, 32), ["bird"])
    return folder
