"""Models that are loaded or connected to by a name once, for all of a process that name them: `embedder`, `reranker`.

Frameworks write their components into files and make them again from these, and clusters send them to other machines,
so that a component has names and no model. Knows names; nothing of any framework or cluster.
"""

from __future__ import annotations

import atexit
import os
import threading
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from q3e_local.embedding.text_model import TextModel
from q3e_local.errors import OptionError
from q3e_local.opening import connect, connect_reranker, load, load_reranker
from q3e_local.reranking.rank_model import RankModel

Model = TypeVar("Model", TextModel, RankModel)

_models: dict[tuple[Any, ...], Any] = {}
_lock = threading.Lock()  # a framework may call from several threads; one of them loads
# In a forked process, what its parent had open: its threads are not here, so that nothing of it may be used or freed.
_of_parents: list[Any] = []


def embedder(
    model: str,
    server: str | Sequence[str] | None = None,
    cache: bool | str | None = None,
    n_threads: int | None = None,
) -> TextModel:
    """The embedding model of this name, in this process or on servers; `cache` and `n_threads` are those of `load`.

    It stays until the program ends. Raises what `load` raises, or `connect`.
    """
    options = {} if n_threads is None else {"n_threads": n_threads}
    return _kept("embedder", model, server, cache, load, connect, options)


def reranker(model: str, server: str | None = None, cache: bool | str | None = None) -> RankModel:
    """The reranker of this name, as `embedder` has embedding models."""
    return _kept("reranker", model, server, cache, load_reranker, connect_reranker, {})


def _kept(
    kind: str,
    model: str,
    server: str | Sequence[str] | None,
    cache: bool | str | None,
    load: Callable[..., Model],
    connect: Callable[[Any, str], Model],
    options: dict[str, Any],
) -> Model:
    if server and cache:
        raise OptionError("cache is for a model in this process; the server has its own")
    servers = server if server is None or isinstance(server, str) else tuple(server)
    key = (kind, model, servers, cache, *options.items())
    with _lock:
        if key not in _models:
            _models[key] = connect(server, model) if server else load(model, cache=cache, **options)
        found: Model = _models[key]
        return found


def close() -> None:
    """Free all models; a name that is used again is loaded again. Runs by itself when the program ends."""
    with _lock:
        while _models:
            _models.popitem()[1].close()


def _begin_anew() -> None:
    """Leave to the parent of a forked process what is the parent's."""
    global _lock
    _lock = threading.Lock()  # another thread of the parent may hold the old one
    _of_parents.extend(_models.values())
    _models.clear()


atexit.register(close)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_anew)
