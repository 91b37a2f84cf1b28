"""Open a model: `load` and `load_reranker` in this process, `connect` on a server.

The one place that joins the parts: names to files, files to engines, engines to what embeds and ranks.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from q3e_local.embedding.embedder import Embedder
    from q3e_local.embedding.engine import Engine, EngineConfig
    from q3e_local.embedding.text_model import TextModel
    from q3e_local.gguf.model_kind import ModelKind
    from q3e_local.models.installed import Located
    from q3e_local.reranking.rank_model import RankModel
    from q3e_local.reranking.reranker import Reranker

    MakeEngine = Callable[[Path, EngineConfig, ModelKind], Engine]


def load(
    model: str | os.PathLike[str] | None = None,
    *,
    cache: bool | str | os.PathLike[str] | None = None,
    engine: MakeEngine | None = None,
    **options: Any,
) -> Embedder:
    """Load a model by name or path; None is DEFAULT_MODEL. `options` are EngineConfig's, such as `n_threads`.

    A name that ends in `-query`, or a name of your own from `config.toml`, also says what is done to the texts of a
    request that does not say it: an EmbedRequest need not, while `embed_documents` and `embed_query` always do.
    `cache` keeps vectors for the next time: True in the usual file, which the command line and the server use too;
    a path in that file; `redis://host:port/db` in a server. `engine` makes the engine of a file, where that is not to
    be llama.cpp in this process.

    Downloads nothing. Raises ModelError (unknown, not here, broken or of another kind), OptionError,
    NotEnoughMemoryError, or EngineError where llama.cpp itself cannot be loaded.
    """
    from q3e_local.cache.choose import open_cache
    from q3e_local.embedding.embedder import Embedder
    from q3e_local.models import names
    from q3e_local.models.catalog import DEFAULT_MODEL

    config = _config(options)
    vector_cache = open_cache(cache) if config.may_cache else None
    named = names.resolve(DEFAULT_MODEL if model is None else model)
    located = named.located
    made = _engine(located, config, "embedder", engine)
    return Embedder(made, located.name, located.prompts, named.defaults, vector_cache, located.loads_as)


def connect(server: str | Sequence[str], model: str | os.PathLike[str] | None = None) -> TextModel:
    """A model that a running q3e-local server computes with; None is DEFAULT_MODEL. It has the calls of an Embedder.

    `server` is an address such as `http://127.0.0.1:11434`, `host:port`, or `unix:PATH`; the key of a server that
    wants one stands in `Q3E_API_KEY`. A path means the model that the server has under the file's name. Texts are
    shared out among the servers of several addresses, which all must have the same model: a faster one gets more, and
    one that fails is left out with a warning in the log. Results come in the order of the texts all the same.

    Nothing is sent yet: the first call raises ServerUnreachableError where nobody answers, ModelError for what a
    server does not have, and SpaceMismatchError where servers would make different vectors. Raises OptionError for
    what is no address, for none, and for one that is there twice.
    """
    from q3e_local.errors import OptionError
    from q3e_local.models.catalog import DEFAULT_MODEL
    from q3e_local.models.names import served_as

    name = served_as(os.fspath(DEFAULT_MODEL if model is None else model))
    addresses = [server] if isinstance(server, str) else list(server)
    if not addresses:
        raise OptionError("connect takes a server's address, or several; got none")
    if len(addresses) > 1:
        from q3e_local.remote.fleet import Fleet

        return Fleet(addresses, name)
    from q3e_local.remote.connection import Server
    from q3e_local.remote.embedder import RemoteEmbedder

    return RemoteEmbedder(Server(addresses[0]), name)


def connect_reranker(server: str, model: str | os.PathLike[str] | None = None) -> RankModel:
    """A reranker that a running q3e-local server has; None is DEFAULT_RERANKER. It has the calls of a Reranker.

    `server` is a single address; the model's name and the errors are those of `connect`.
    """
    from q3e_local.models.kinds import DEFAULT_RERANKER
    from q3e_local.models.names import served_as
    from q3e_local.remote.connection import Server
    from q3e_local.remote.reranker import RemoteReranker

    return RemoteReranker(Server(server), served_as(os.fspath(DEFAULT_RERANKER if model is None else model)))


def load_reranker(
    model: str | os.PathLike[str] | None = None,
    *,
    cache: bool | str | os.PathLike[str] | None = None,
    engine: MakeEngine | None = None,
    **options: Any,
) -> Reranker:
    """Load a reranker by name or path; None is DEFAULT_RERANKER. The options are those of `load`.

    A reranker whose file no card vouches for must put a right answer above a wrong one before it is handed out.

    Downloads nothing. Raises what `load` raises; WrongModelError also for a model that fails this proof.
    """
    from q3e_local.cache.choose import open_cache
    from q3e_local.models import names
    from q3e_local.models.kinds import DEFAULT_RERANKER
    from q3e_local.reranking.proof import prove
    from q3e_local.reranking.reranker import Reranker

    config = _config(options)
    vector_cache = open_cache(cache) if config.may_cache else None
    named = names.resolve(DEFAULT_RERANKER if model is None else model)
    located = named.located
    made = _engine(located, config, "reranker", engine)
    reranker = Reranker(made, located.name, located.rerank_prompts, vector_cache, named.defaults)
    if located.card is None:
        try:
            prove(reranker)
        except BaseException:
            reranker.close()
            raise
    return reranker


def _config(options: dict[str, Any]) -> EngineConfig:
    from q3e_local.embedding.engine import EngineConfig
    from q3e_local.errors import OptionError

    known = [field.name for field in fields(EngineConfig)]
    for name in options:
        if name not in known:
            raise OptionError(f"there is no option {name!r}; choose from {', '.join(known)}")
    return EngineConfig(**options)


def _engine(located: Located, config: EngineConfig, kind: ModelKind, make: MakeEngine | None) -> Engine:
    """The engine of a model, which must be of this kind. Call it last: importing llama.cpp takes a while."""
    from q3e_local.llama import library
    from q3e_local.models.kinds import check_file

    check_file(located, kind)
    if make is not None:
        return make(located.path, config, kind)
    with library.importing():
        from q3e_local.llama.engine import LlamaEngine
    return LlamaEngine(located.path, config, kind=kind)
