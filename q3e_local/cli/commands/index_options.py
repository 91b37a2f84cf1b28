"""What the commands about indexes share: the options for which index and which model, and loading that model."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from q3e_local.cli import candidates
from q3e_local.cli.computing.model_options import ModelOptions
from q3e_local.cli.option_groups import group
from q3e_local.cli.terminal import say
from q3e_local.errors import ModelFileError, SpaceMismatchError, UnknownModelError
from q3e_local.models.catalog import DEFAULT_MODEL
from q3e_local.search.places import quoted

if TYPE_CHECKING:
    from q3e_local.embedding.text_model import TextModel
    from q3e_local.search.database.records import IndexSpace


db_option = click.option(
    "--db", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE", help="An index in a file anywhere."
)
which_index = group(
    db_option,
    click.option(
        "--name", metavar="NAME", shell_complete=candidates.index,
        help="An index in the data folder. [default: default]",
    ),
)  # fmt: skip
model_of_index = group(
    click.option(
        "-m", "--model", shell_complete=candidates.embedder_or_file,
        help="A model's name, a path to a .gguf file, or demo. "
        f"[default: the index's own; of a new one Q3E_MODEL, or {DEFAULT_MODEL}]",
    ),
    click.option(
        "-d", "--dimensions", "dim", type=int,
        help="Numbers in a vector, 32 up to the model's own. [default: as the index has it, or all]",
    ),
)  # fmt: skip


def say_waiting(path: Path) -> None:
    """Say on stderr that another process holds this index and that we wait for it."""
    say(f"another run is at work on {path}; waiting for it to end")


@contextmanager
def advice_for(servers: Sequence[str]) -> Iterator[None]:
    """Add `--server` to the command that an error within the block advises, where servers have the model."""
    try:
        yield
    except SpaceMismatchError as error:
        if not (servers and error.command):
            raise
        where = "".join(f" --server {quoted(server)}" for server in servers)
        raise SpaceMismatchError(error.message, f"{error.command}{where}") from None


class Loaded(ExitStack):
    """The model of a command: the first call loads it, the end of the block closes it."""

    def __init__(self, options: ModelOptions) -> None:
        super().__init__()
        self._options = options
        self._loaded: tuple[TextModel, IndexSpace] | None = None

    @property
    def is_chosen(self) -> bool:
        """Whether the user gave a model or a dim, which the index must then have."""
        return self._options.model is not None or self._options.dim is not None

    def __call__(self, index: IndexSpace | None) -> tuple[TextModel, IndexSpace]:
        """The model of the options, else the index's, and the space of its vectors."""
        from q3e_local.search.documents import DOCUMENT_TASK, space_of

        if self._loaded is None:
            embedder, dim = self._opened(index), self._options.dim
            if index is not None and dim is None and index.digest == embedder.digest:
                dim = index.dim
            self._loaded = embedder, space_of(embedder, dim, DOCUMENT_TASK)
        return self._loaded

    def _opened(self, index: IndexSpace | None) -> TextModel:
        default = index.model if index is not None else os.environ.get("Q3E_MODEL") or DEFAULT_MODEL
        options = replace(self._options, model=self._options.model or default)
        try:
            return self.enter_context(options.opened())
        except (UnknownModelError, ModelFileError) as error:
            if index is None or self._options.model is not None or options.server:
                raise
            raise type(error)(
                f"the index holds {index}, and that model cannot be used: {error}\nsay where it is with --model"
            ) from None
