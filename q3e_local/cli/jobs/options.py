"""The options that all jobs have, with the names they have for `embed`: what to read, and how it is embedded."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import click
from click.core import ParameterSource

from q3e_local.cli import candidates
from q3e_local.cli.computing import model_options
from q3e_local.cli.computing.engine_options import ENGINE_PARAMETERS, engine_options
from q3e_local.cli.option_groups import Decorator, as_one, group
from q3e_local.cli.texts import Layout, layout_options
from q3e_local.embedding.prompts import TASKS
from q3e_local.embedding.request import EmbedRequest
from q3e_local.embedding.text_model import TextModel
from q3e_local.errors import MissingPackageError
from q3e_local.search.places import SUFFIX, existing

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
    def with_vectors(self) -> tuple[str, ...]:
        """The names of the files that hold vectors already."""
        return tuple(filter(has_vectors, self.names))


_OF_TEXTS = ("model", "task", "instruction", "max_tokens", "server", "cache", "offline", *ENGINE_PARAMETERS)


def _written() -> tuple[str, ...]:
    """The options on the command line that say how texts are embedded."""
    context = click.get_current_context()
    return tuple(
        parameter.opts[-1]
        for parameter in context.command.params
        if parameter.name in _OF_TEXTS and context.get_parameter_source(parameter.name) == ParameterSource.COMMANDLINE
    )


@dataclass(frozen=True)
class Embedding(model_options.ModelOptions):
    """How texts become vectors. `written` are the options among these that stand on the command line."""

    task: str | None = None
    instruction: str | None = None
    max_tokens: int | None = None
    written: tuple[str, ...] = field(default_factory=_written)

    @property
    def request(self) -> EmbedRequest:
        """How to embed, without texts."""
        task, instruction, dim, max_tokens = self.task, self.instruction, self.dim, self.max_tokens
        return EmbedRequest((), None, task, instruction, dim, truncate=True, max_tokens=max_tokens)

    @contextmanager
    def loaded(self) -> Iterator[TextModel]:
        """The model, until the block ends. Raises OptionError for what it cannot do."""
        with self.opened() as embedder:
            self.check(embedder, self.request)
            yield embedder


def _reading(
    names: tuple[str, ...], layout: Layout, texts: tuple[str, ...], glob: str | None,
    index_names: tuple[str, ...], skip: bool,
) -> Reading:  # fmt: skip
    """The inputs that the options name, files of `--index` last. Raises IndexFileError."""
    return Reading((*names, *(str(existing(name=name)) for name in index_names)), layout, texts, glob, skip)


# The argument with the names that `job_options` reads.
inputs_argument = click.argument("names", metavar="[FILE|FOLDER|-]...", nargs=-1, shell_complete=candidates.file)
_reading_options = group(
    click.option("--text", "texts", metavar="TEXT", multiple=True, help="This text too; may be repeated."),
    layout_options,
    click.option("--glob", metavar="PATTERN", help="Which files of a folder, such as '*.md'. [default: all]"),
    click.option(
        "--index", "index_names", metavar="NAME", multiple=True, shell_complete=candidates.index,
        help="The texts of an index, by its name.",
    ),
    click.option("--skip-errors", "skip", is_flag=True, help="Go on without a text that fails, list it, and exit 3."),
    as_one(_reading, "reading"),
)  # fmt: skip
embedding_options = group(
    model_options.model_option,
    model_options.dimensions_option,
    click.option("--task", type=click.Choice(SYMMETRIC), help="A named instruction for every text. [default: none]"),
    click.option("--instruction", metavar="TEXT", help="An instruction of your own, best in English."),
    model_options.max_tokens_option,
    engine_options,
    model_options.loading_options,
    model_options.quiet_option,
    as_one(Embedding, "embedding"),
)
# Give a command the parameters `reading` and `embedding`.
job_options = group(_reading_options, embedding_options)


def threshold_option(default: float, meaning: str) -> Decorator:
    """The option for the least score that counts."""
    return click.option("--threshold", type=click.FloatRange(-1, 1), default=default, show_default=True, help=meaning)


def need(module: str, what: str) -> None:
    """Raise MissingPackageError where the module that `what` takes is not installed.

    For a command to call before texts are embedded, which may take hours.
    """
    if importlib.util.find_spec(module) is None:
        raise MissingPackageError(what, _PACKAGES[module], "analysis")
