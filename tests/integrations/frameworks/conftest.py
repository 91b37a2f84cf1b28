"""The models that come with the program, in the classes of frameworks; a home of the tests' own, and no network."""

from __future__ import annotations

import os
import sys
import tempfile

# The frameworks read these when they are imported. llm keeps its database in its path.
os.environ["HOME"] = os.environ["LLM_USER_PATH"] = tempfile.mkdtemp(prefix="q3e-frameworks-")
os.environ |= {"HF_HUB_OFFLINE": "1", "ANONYMIZED_TELEMETRY": "False", "HAYSTACK_TELEMETRY_ENABLED": "False"}

from collections.abc import Iterator
from typing import Any

import pytest

import q3e_local
from q3e_local import by_name

_refused: list[Any] = []
_LOOPBACK = ("127.", "::1", "localhost")


def _stay_on_this_machine(event: str, arguments: tuple[Any, ...]) -> None:
    """Refuse every connection that Python opens to elsewhere, and every question for a name."""
    if event == "socket.connect" and isinstance(arguments[1], tuple):
        host = arguments[1][0]
    elif event == "socket.getaddrinfo":
        host = arguments[0]
    else:
        return
    name = host.decode() if isinstance(host, bytes) else host
    if name and not name.startswith(_LOOPBACK):
        _refused.append((event, host))
        raise ConnectionRefusedError(f"a test may not ask for {host}")


sys.addaudithook(_stay_on_this_machine)


@pytest.fixture(autouse=True)
def _nothing_left_this_machine() -> Iterator[None]:
    """Fails a test that tried, also where the framework swallowed the refusal."""
    yield
    tried, _refused[:] = list(_refused), []
    assert tried == []


@pytest.fixture(scope="session")
def start() -> list[str]:
    return [sys.executable, "-m", "q3e_local", "serve", "-m", "demo", "-m", "demo-reranker"]


@pytest.fixture(params=["here", "on a server"])
def server(request: pytest.FixtureRequest) -> str | None:
    """None for a model in this process, then the address of a server."""
    address: str | None = None if request.param == "here" else request.getfixturevalue("address")
    return address


@pytest.fixture
def long(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A text above the limit of `demo`, which takes 64 tokens at most where it is loaded by its name."""
    by_name.close()
    monkeypatch.setattr(by_name, "load", lambda name, cache: q3e_local.load(name, cache=cache, n_ctx_max=64))
    yield "cat " * 100
    by_name.close()


@pytest.fixture(scope="session")
def embedder() -> Iterator[q3e_local.Embedder]:
    with q3e_local.load("demo") as embedder:
        yield embedder


@pytest.fixture(scope="session")
def reranker() -> Iterator[q3e_local.Reranker]:
    with q3e_local.load_reranker("demo-reranker") as reranker:
        yield reranker
