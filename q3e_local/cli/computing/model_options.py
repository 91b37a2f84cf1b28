"""The options for which model computes for a command, where and how; and the model that they open.

Knows the names of options; leaves loading to `loading`, and a server to `connect`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from typing import Any, get_args

import click

import q3e_local
from q3e_local.cache.choose import chosen
from q3e_local.cli import candidates
from q3e_local.cli.computing.engine_options import EngineOptions, explained
from q3e_local.cli.computing.loading import in_use, load, load_reranker
from q3e_local.cli.option_groups import Decorator, group
from q3e_local.cli.progress import status
from q3e_local.cli.terminal import say
from q3e_local.embedding.request import DIM_MIN, EmbedRequest
from q3e_local.embedding.text_model import TextModel
from q3e_local.errors import ModelError, OptionError
from q3e_local.gguf.model_kind import ModelKind
from q3e_local.models.catalog import DEFAULT_MODEL
from q3e_local.models.kinds import DEFAULT_RERANKER
from q3e_local.models.names import Names
from q3e_local.reranking.rank_model import RankModel
from q3e_local.wording.address import unquoted
from q3e_local.wording.counts import counted

RERANKER_VARIABLE = "Q3E_RERANKER"


def _model_option(complete: candidates.Complete) -> Decorator:
    return click.option(
        "-m", "--model", default=DEFAULT_MODEL, envvar="Q3E_MODEL", show_default=True, show_envvar=True,
        shell_complete=complete,
        help=(
            "A model's name, with -query behind it for queries; a name of your own; a path to a .gguf file; or demo."
        ),
    )  # fmt: skip


model_option = _model_option(candidates.embedder_or_file)
any_model_option = _model_option(candidates.model_or_file)
reranker_option = click.option(
    "-m", "--model", default=DEFAULT_RERANKER, envvar=RERANKER_VARIABLE, show_default=True, show_envvar=True,
    shell_complete=candidates.reranker_or_file, help="A reranker's name, or a path to a .gguf file.",
)  # fmt: skip
dimensions_option = click.option(
    "-d", "--dimensions", "dim", type=int, help="Numbers in a vector, 32 up to the model's own. [default: all]"
)
max_tokens_option = click.option(
    "--max-tokens", type=click.IntRange(1), help="Most tokens of a text, end token included. [default: the model's]"
)
offline_option = click.option("--offline", is_flag=True, help="Pull nothing if the model is missing.")
cache_option = click.option(
    "--cache/--no-cache", "cache", default=None,
    help="Keep vectors for the next time, and use those kept: q3e-local cache. [env: Q3E_CACHE] [default: cache]",
)  # fmt: skip


class _Addresses(click.types.StringParamType):
    """Where a server is. The variable has commas between several; spaces may be part of a socket's path."""

    envvar_list_splitter = ","


server_option = click.option(
    "--server", "servers", multiple=True, envvar="Q3E_SERVER", show_envvar=True, metavar="URL", type=_Addresses(),
    callback=lambda ctx, parameter, values: tuple(filter(None, map(unquoted, values))),
    help="Let this running server compute, such as http://127.0.0.1:11434; files and indexes stay here. Named again, "
    "several share the texts.",
)  # fmt: skip
loading_options = group(offline_option, cache_option, server_option)
kind_option = click.option(
    "--as", "kind", type=click.Choice(get_args(ModelKind)),
    help="What kind of model it is. [default: what it says itself]",
)  # fmt: skip
quiet_option = click.option("-q", "--quiet", is_flag=True, help="No progress and no summary.")


@dataclass(frozen=True)
class ModelOptions:
    """The values of these options. A command that lacks an option has its default."""

    model: str | None = None  # None: the index's
    dim: int | None = None
    servers: tuple[str, ...] = ()  # none: a model in this process
    offline: bool = False
    quiet: bool = False
    cache: bool | None = None
    engine: EngineOptions = EngineOptions()  # noqa: RUF009 (frozen)

    @property
    def server(self) -> str | None:
        """The first server, which does what is not shared out; None where this process computes."""
        return self.servers[0] if self.servers else None

    def check_dim(self) -> None:
        """Refuse, before anything is loaded, a dim that the model's card rules out. Raises OptionError."""
        if self.model is None or self.dim is None or self.server:
            return
        with suppress(ModelError):  # a model without a card: loading its file shows the sizes
            n_embd = Names().to_pull(self.model)[0].sizes.n_embd
            if not DIM_MIN <= self.dim <= n_embd:
                raise OptionError(
                    f"--dimensions must be between {DIM_MIN} and {n_embd} for {self.model}, got {self.dim}"
                )

    @contextmanager
    def opened(self, *, for_a_question: bool = False) -> Iterator[TextModel]:
        """The model in this process, or the server's, until the block ends; --explain takes effect within it.

        For a question, a single short text, no settings are tried out, and --explain says more than an engine does.
        Raises OptionError for options of a model in this process where a server computes.
        """
        assert self.model is not None
        with explained(self.engine):
            if self.servers:
                self._check_for_server(may_explain=for_a_question)
                model: TextModel = q3e_local.connect(self.servers, self.model)
            else:
                self.check_dim()
                model = load(self.model, self.offline, self.quiet, **self._settings(not for_a_question))
            with in_use(model):
                yield model
            if len(self.servers) > 1 and (self.engine.explain if for_a_question else not self.quiet):
                _say_shares(model)

    @contextmanager
    def reranker_opened(self, *, for_a_question: bool = False) -> Iterator[RankModel]:
        """The reranker of this name, in this process or on the server, as `opened` opens an embedding model."""
        assert self.model is not None
        with explained(self.engine):
            if self.servers:
                self._check_for_server(may_explain=for_a_question)
                model: RankModel = q3e_local.connect_reranker(self.servers[0], self.model)
            else:
                model = load_reranker(self.model, self.offline, self.quiet, **self._settings(not for_a_question))
            with in_use(model):
                yield model

    def _settings(self, self_tuning: bool) -> dict[str, Any]:
        """What `load` takes beside the name."""
        return {"cache": chosen(self.cache), "self_tuning": self_tuning, **self.engine.config}

    def check(self, model: TextModel, request: EmbedRequest) -> None:
        """Raise OptionError, before an output is opened, for what the model cannot do. A server may load it."""
        what = "waiting for the servers" if len(self.servers) > 1 else "waiting for the server"
        with status(what, self.quiet) if self.servers else nullcontext():
            model.check(request)

    def _check_for_server(self, *, may_explain: bool) -> None:
        """Raise OptionError for options that a server's model does not have."""
        if self.cache is not None:
            raise OptionError("--cache and --no-cache are for a model in this process; the server has its own")
        for name, value in self.engine.config.items():
            if value is not None:
                raise OptionError(f"{name} is for a model in this process; the server has its own", name)
        if self.engine.explain and not may_explain:
            raise OptionError("--explain is for a model in this process; the server chose its settings itself")


def _say_shares(model: TextModel) -> None:
    """Say how many texts each of several servers embedded."""
    from q3e_local.remote.fleet import Fleet

    if isinstance(model, Fleet):
        shares = (f"{counted(n, 'text')} by {name}" for name, n in model.n_texts_by_server.items())
        say(", ".join(shares))
