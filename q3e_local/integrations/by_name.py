"""Models that are loaded or connected to by a name once, for all of a program that name them: `embedder`, `reranker`.

Frameworks write their components into files and make them again from these, so that a component has names and no
model. Knows names; nothing of any framework.
"""

from __future__ import annotations

import atexit
import threading
from collections.abc import Callable
from typing import Any, TypeVar

from q3e_local import RankModel, TextModel, connect, connect_reranker, load, load_reranker
from q3e_local.errors import OptionError

Model = TypeVar("Model", TextModel, RankModel)

_models: dict[tuple[Any, ...], Any] = {}
_lock = threading.Lock()  # a framework may call from several threads; one of them loads


def embedder(model: str, server: str | tuple[str, ...] | None = None, cache: bool | str | None = None) -> TextModel:
    """The embedding model of this name, in this process or on a server, or several; `cache` is that of `load`.

    It stays until the program ends. Raises what `load` raises, or `connect`.
    """
    return _kept("embedder", model, server, cache, load, connect)


def reranker(model: str, server: str | None = None, cache: bool | str | None = None) -> RankModel:
    """The reranker of this name, as `embedder` has embedding models."""
    return _kept("reranker", model, server, cache, load_reranker, connect_reranker)


def _kept(
    kind: str,
    model: str,
    server: str | tuple[str, ...] | None,
    cache: bool | str | None,
    load: Callable[..., Model],
    connect: Callable[[Any, str], Model],
) -> Model:
    if server and cache:
        raise OptionError("cache is for a model in this process; the server has its own")
    key = (kind, model, server, cache)
    with _lock:
        if key not in _models:
            _models[key] = connect(server, model) if server else load(model, cache=cache)
        found: Model = _models[key]
        return found


def close() -> None:
    """Free all models; a name that is used again is loaded again. Runs by itself when the program ends."""
    with _lock:
        while _models:
            _models.popitem()[1].close()


atexit.register(close)
