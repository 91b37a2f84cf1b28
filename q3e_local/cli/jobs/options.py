"""The options that all jobs have, with the names they have for `embed`: what to read, and how it is embedded."""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from q3e_local.cli import candidates
from q3e_local.cli.computing.engine_options import ENGINE_PARAMETERS, EngineOptions, engine_options, model_option
from q3e_local.cli.texts import Layout, layout_options
from q3e_local.embedding.prompts import TASKS
from q3e_local.errors import MissingPackageError
from q3e_local.search.database.places import SUFFIX, existing

_PACKAGES = {"sklearn": "scikit-learn", "matplotlib": "matplotlib"}
SYMMETRIC = [name for name, task in TASKS.items() if task.symmetric]


def has_vectors(name: str) -> bool:
    """Whether a file has the vectors of its texts: a `.npy`, or an index."""
    return Path(name).suffix.lower() in (".npy", SUFFIX)


@dataclass(frozen=True)
class Reading:
    """What to read texts from."""

    names: tuple[str, ...]
    layout: Layout = Layout()  # noqa: RUF009 (frozen)
    texts: tuple[str, ...] = ()
    glob: str | None = None
    skip: bool = False

    @property
    def given(self) -> tuple[str, ...]:
        """The names of what has its vectors already."""
        return tuple(filter(has_vectors, self.names))


@dataclass(frozen=True)
class Embedding:
    """How texts become vectors. `given` are the options of it that the user wrote."""

    model: str
    dim: int | None
    task: str | None
    instruction: str | None
    max_tokens: int | None
    engine: EngineOptions
    offline: bool
    cache: bool | None
    server: str | None
    quiet: bool
    given: tuple[str, ...]


_READING = (
    click.option("--text", "texts", metavar="TEXT", multiple=True, help="This text too; may be repeated."),
    layout_options,
    click.option("--glob", metavar="PATTERN", help="Which files of a folder, such as '*.md'. [default: all]"),
    click.option(
        "--index",
        "index_names",
        metavar="NAME",
        multiple=True,
        shell_complete=candidates.index,
        help="The texts of an index, by its name.",
    ),
    click.option("--skip-errors", "skip", is_flag=True, help="Go on without a text that fails, list it, and exit 3."),
)

_EMBEDDING = (
    model_option,
    click.option(
        "-d", "--dimensions", "dim", type=int, help="Numbers in a vector, 32 up to the model's own. [default: all]"
    ),
    click.option("--task", type=click.Choice(SYMMETRIC), help="A named instruction for every text. [default: none]"),
    click.option("--instruction", metavar="TEXT", help="An instruction of your own, best in English."),
    click.option(
        "--max-tokens", type=click.IntRange(1), help="Cut texts at fewer tokens than the model's own limit."
    ),
    engine_options,
    click.option("--offline", is_flag=True, help="Pull nothing if the model is missing."),
    click.option(
        "--cache/--no-cache", "cache", default=None,
        help="Keep vectors for the next time, and use those kept. [env: Q3E_CACHE] [default: cache]",
    ),
    click.option(
        "--server", envvar="Q3E_SERVER", show_envvar=True, metavar="URL", help="Let this running server compute."
    ),
    click.option("-q", "--quiet", is_flag=True, help="No progress and no summary."),
)  # fmt: skip

_Command = Callable[..., Any]


def inputs_argument(metavar: str = "[FILE|FOLDER|-]...") -> Callable[[_Command], _Command]:
    """The argument whose names `reading_options` reads."""
    return click.argument("names", metavar=metavar, nargs=-1, shell_complete=candidates.file)


def reading_options(command: _Command) -> _Command:
    """Give a command with an `inputs_argument` the parameter `reading`."""

    @functools.wraps(command)
    def wrapped(
        *arguments: Any, names: tuple[str, ...], texts: tuple[str, ...], layout: Layout, glob: str | None,
        index_names: tuple[str, ...], skip: bool, **options: Any,
    ) -> Any:  # fmt: skip
        names = (*names, *(str(existing(name=name)) for name in index_names))
        reading = Reading(names, layout, texts, glob, skip)
        return command(*arguments, reading=reading, **options)

    return _with(_READING, wrapped)


def embedding_options(command: _Command) -> _Command:
    """Give a command the parameter `embedding`."""

    @functools.wraps(command)
    def wrapped(
        *arguments: Any, model: str, dim: int | None, task: str | None, instruction: str | None,
        max_tokens: int | None, engine: EngineOptions, offline: bool, cache: bool | None, server: str | None,
        quiet: bool, **options: Any,
    ) -> Any:  # fmt: skip
        given = tuple(_given(("model", "task", "instruction", "max_tokens", "server", "cache", "offline")))
        given += tuple(_given(ENGINE_PARAMETERS))
        embedding = Embedding(model, dim, task, instruction, max_tokens, engine, offline, cache, server, quiet, given)
        return command(*arguments, embedding=embedding, **options)

    return _with(_EMBEDDING, wrapped)


def _given(names: Collection[str]) -> Iterator[str]:
    """The options among these that the user wrote, as they are written."""
    context = click.get_current_context()
    for parameter in context.command.params:
        name = parameter.name or ""
        if name in names and context.get_parameter_source(name) == ParameterSource.COMMANDLINE:
            yield parameter.opts[-1]


def _with(options: Sequence[Callable[[_Command], _Command]], command: _Command) -> _Command:
    for option in reversed(options):
        command = option(command)
    return command


def need(module: str, what: str) -> None:
    """Raise MissingPackageError where the module that `what` takes is not installed.

    For a command to call before texts are embedded, which may take hours.
    """
    if importlib.util.find_spec(module) is None:
        raise MissingPackageError(what, _PACKAGES[module], "analysis")
