"""What the commands about indexes share: the options that say which index and which model, and loading that model."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import click

from q3e_local.cache.choose import chosen
from q3e_local.cli import candidates
from q3e_local.cli.computing.engine_options import EngineOptions
from q3e_local.cli.computing.loading import check_dim, in_use, load
from q3e_local.cli.computing.local_or_remote import on_server
from q3e_local.cli.terminal import say
from q3e_local.errors import ModelFileError, OptionError, SpaceMismatchError, UnknownModelError
from q3e_local.models.catalog import DEFAULT_MODEL
from q3e_local.search.database.places import quoted

if TYPE_CHECKING:
    from q3e_local.embedding.text_model import TextModel
    from q3e_local.search.database.records import IndexSpace


def which_index(command: Callable[..., Any]) -> Callable[..., Any]:
    """`--db` and `--name`."""
    command = click.option(
        "--name",
        metavar="NAME",
        shell_complete=candidates.index,
        help="An index in the data folder. [default: default]",
    )(command)
    return click.option(
        "--db", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE", help="An index in a file anywhere."
    )(command)


def model_of_index(command: Callable[..., Any]) -> Callable[..., Any]:
    """`--model` and `--dimensions`."""
    command = click.option(
        "-d", "--dimensions", type=int,
        help="Numbers in a vector, 32 up to the model's own. [default: as the index has it, or all]",
    )(command)  # fmt: skip
    return click.option(
        "-m", "--model", shell_complete=candidates.model_or_file,
        help="A model's name, a path to a .gguf file, or demo. "
        f"[default: the index's own; of a new one Q3E_MODEL, or {DEFAULT_MODEL}]",
    )(command)  # fmt: skip


def loading_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """`--server`, `--offline` and `--cache`."""
    command = click.option(
        "--cache/--no-cache", "cache", default=None,
        help="Keep vectors for the next time, and use those kept: q3e-local cache. [env: Q3E_CACHE] [default: cache]",
    )(command)  # fmt: skip
    command = click.option("--offline", is_flag=True, help="Pull nothing if the model is missing.")(command)
    return server_option(command)


server_option = click.option(
    "--server", envvar="Q3E_SERVER", show_envvar=True, metavar="URL",
    help="Let this running server compute, such as http://127.0.0.1:11434; the index stays here.",
)  # fmt: skip


def say_waiting(path: Path) -> None:
    """Say on stderr that another process holds this index and that we wait for it."""
    say(f"another run is at work on {path}; waiting for it to end")


@contextmanager
def advice_for(server: str | None) -> Iterator[None]:
    """Within it, what to do about an index of another space is said with the server that has the model."""
    try:
        yield
    except SpaceMismatchError as error:
        if not (server and error.command):
            raise
        raise SpaceMismatchError(error.message, f"{error.command} --server {quoted(server)}") from None


class Loaded:
    """The model of a command, loaded when it is needed first, and closed at the end of the block."""

    def __init__(
        self,
        model: str | None,
        dim: int | None,
        offline: bool,
        quiet: bool,
        cache: bool | None,
        engine: EngineOptions,
        server: str | None,
    ) -> None:
        self._model, self._dim, self._server = model, dim, server
        self._offline, self._quiet, self._cache, self._engine = offline, quiet, cache, engine
        self._opened = ExitStack()
        self._embedder: TextModel | None = None
        self._space: IndexSpace | None = None

    @property
    def is_chosen(self) -> bool:
        """Whether the user said anything about the model, which must then be the index's."""
        return self._model is not None or self._dim is not None

    def __call__(self, index: IndexSpace | None) -> tuple[TextModel, IndexSpace]:
        """The model asked for, else that of the index, and the space of its vectors."""
        from q3e_local.search.index import space_of
        from q3e_local.search.indexing.file_vectors import DOCUMENT_TASK

        if self._embedder is None or self._space is None:
            self._embedder = self._opened.enter_context(in_use(self._loaded(index)))
            is_same_model = index is not None and index.digest == self._embedder.digest
            dim = index.dim if index is not None and is_same_model and self._dim is None else self._dim
            try:
                self._space = space_of(self._embedder, dim, DOCUMENT_TASK)
            except OptionError as error:
                raise OptionError(error.under("--dimensions") if error.option == "dim" else str(error)) from None
        return self._embedder, self._space

    def _loaded(self, index: IndexSpace | None) -> TextModel:
        own = index.model if index is not None else os.environ.get("Q3E_MODEL") or DEFAULT_MODEL
        model = self._model or own
        if self._server:
            return on_server(model, self._server, self._cache, self._engine)
        check_dim(model, self._dim)
        settings = {**self._engine.config, "self_tuning": True}
        try:
            return load(model, self._offline, self._quiet, cache=chosen(self._cache), **settings)
        except (UnknownModelError, ModelFileError) as error:
            if index is None or self._model is not None:
                raise
            raise type(error)(
                f"the index holds {index}, and that model cannot be used: {error}\nsay where it is with --model"
            ) from None

    def __enter__(self) -> Loaded:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._opened.__exit__(kind, error, traceback)
