"""What the commands about indexes share: the options that say which index and which model, and loading that model."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import click

from q3e_local import store
from q3e_local.cache.choose import chosen
from q3e_local.catalog import DEFAULT_MODEL
from q3e_local.cli.engine_options import EngineOptions
from q3e_local.cli.loading import load
from q3e_local.errors import ModelError, OptionError
from q3e_local.naming import Names
from q3e_local.request import DIM_MIN

if TYPE_CHECKING:
    from q3e_local.embedder import Embedder
    from q3e_local.search.database.records import IndexSpace


def which_index(command: Callable[..., Any]) -> Callable[..., Any]:
    """`--db` and `--name`."""
    command = click.option("--name", metavar="NAME", help="An index in the data folder. [default: default]")(command)
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
        "-m", "--model",
        help="A model's name, a path to a .gguf file, or demo. "
        f"[default: the index's own; of a new one Q3E_MODEL, or {DEFAULT_MODEL}]",
    )(command)  # fmt: skip


def loading_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """`--offline` and `--cache`."""
    command = click.option(
        "--cache/--no-cache", "cache", default=None,
        help="Keep vectors for the next time, and use those kept: q3e-local cache. [env: Q3E_CACHE] [default: cache]",
    )(command)  # fmt: skip
    return click.option("--offline", is_flag=True, help="Pull nothing if the model is missing.")(command)


def shown(path: str) -> str:
    """A path as the user would name it from here: relative to where they stand, if it is below."""
    try:
        return Path(path).relative_to(Path.cwd()).as_posix()
    except (ValueError, OSError):  # elsewhere; or the folder they stand in is gone
        return path


def files(n_files: int) -> str:
    """So many files."""
    return "1 file" if n_files == 1 else f"{n_files:,} files"


def chunks(n_chunks: int) -> str:
    """So many chunks."""
    return "1 chunk" if n_chunks == 1 else f"{n_chunks:,} chunks"


def say_waiting(path: Path) -> None:
    """Another run has the index."""
    click.echo(f"another run is at work on {path}; waiting for it to end", err=True)


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
    ) -> None:
        self._model, self._dim = model, dim
        self._offline, self._quiet, self._cache, self._engine = offline, quiet, cache, engine
        self._embedder: Embedder | None = None
        self._space: IndexSpace | None = None

    @property
    def is_chosen(self) -> bool:
        """Whether the user said anything about the model, which must then be the index's."""
        return self._model is not None or self._dim is not None

    def __call__(self, index: IndexSpace | None) -> tuple[Embedder, IndexSpace]:
        """The model asked for, else that of the index, and the space of its vectors."""
        from q3e_local.search.embedding import DOCUMENT_TASK
        from q3e_local.search.index import space_of

        if self._embedder is None or self._space is None:
            own = index.model if index is not None else os.environ.get("Q3E_MODEL") or DEFAULT_MODEL
            model = self._model or own
            self._check_dim(model)
            settings = {**self._engine.config, "self_tuning": True}
            self._embedder = load(model, self._offline, self._quiet, cache=chosen(self._cache), **settings)
            path = store.path_of(model)
            if path is not None:
                self._embedder.model = str(path.resolve())  # by which `search` finds it again
            is_same_model = index is not None and index.digest == self._embedder.engine.digest
            dim = index.dim if index is not None and is_same_model and self._dim is None else self._dim
            try:
                self._space = space_of(self._embedder, dim, DOCUMENT_TASK)
            except OptionError as error:
                raise OptionError(error.under("--dimensions") if error.option == "dim" else str(error)) from None
        return self._embedder, self._space

    def _check_dim(self, model: str) -> None:
        """Whether a model that may have to be pulled first has vectors of so many numbers. Raises OptionError."""
        if self._dim is None:
            return
        with suppress(ModelError):  # one of no card: its file says it when it is loaded
            n_embd = Names().to_pull(model)[0].sizes.n_embd
            if not DIM_MIN <= self._dim <= n_embd:
                limits = f"between {DIM_MIN} and {n_embd} for {model}"
                raise OptionError(f"--dimensions must be {limits}, got {self._dim}")

    def __enter__(self) -> Loaded:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._embedder is not None:
            self._embedder.close()
