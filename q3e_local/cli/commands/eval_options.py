"""The options of `eval`: what is compared with what, and what questions are asked of."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from q3e_local.cli import candidates
from q3e_local.cli.commands.rerank_options import N_CANDIDATES, Candidates
from q3e_local.cli.computing.model_options import RERANKER_VARIABLE, ModelOptions
from q3e_local.cli.option_groups import as_one, group
from q3e_local.errors import OptionError
from q3e_local.models.catalog import DEFAULT_MODEL
from q3e_local.models.kinds import DEFAULT_RERANKER
from q3e_local.search.places import existing

if TYPE_CHECKING:
    from q3e_local.embedding.text_model import TextModel
    from q3e_local.evaluation import Column, Corpus, Models

# Those of search/hits.py and vectors.py, which bring NumPy in: a help page would wait for that.
_MODES = ("vectors", "words", "hybrid", "auto")
_DTYPES = ("float32", "float16", "int8", "binary")


class _List(click.ParamType[Any]):
    """Values with commas between them, each of which is of the same type."""

    def __init__(self, of: click.ParamType[Any]) -> None:
        self._of = of
        self.name = f"{of.name} list"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not isinstance(value, str):
            return value
        return tuple(self._of.convert(each.strip(), param, ctx) for each in value.split(","))


def _joined(ctx: click.Context, param: click.Parameter, lists: tuple[tuple[Any, ...], ...]) -> tuple[Any, ...]:
    """All values of an option that may be repeated, in their order."""
    return tuple(value for each in lists for value in each)


@dataclass(frozen=True)
class Compared:
    """The values of the options that say what is compared. The first column has the first of each.

    They have the names of the library's options, so that an error about one names the flag.
    """

    model: tuple[str, ...] = ()
    dim: tuple[int, ...] = ()
    dtype: tuple[str, ...] = ()
    instruction: tuple[str, ...] = ()
    mode: tuple[str, ...] = ()
    rerank: tuple[int, ...] = ()
    reranker: str | None = None

    def check(self, options: ModelOptions) -> None:
        """Raise OptionError for options that do not go together."""
        if options.server and options.engine.explain:
            raise OptionError("--explain is for a model in this process; the server chose its settings itself")
        written = click.get_current_context().get_parameter_source("reranker")
        if not self.rerank and written == ParameterSource.COMMANDLINE:
            raise OptionError("--reranker is for the second stage of a search; give --rerank too")
        if self.rerank and options.server:
            raise OptionError("--rerank reads candidates in this process; leave --server out (or unset Q3E_SERVER)")

    def columns(self) -> tuple[Column, ...]:
        """Every combination. Raises OptionError."""
        from q3e_local.evaluation import columns

        choices: dict[str, Any] = {
            "models": self.model, "dims": self.dim, "dtypes": self.dtype, "instructions": self.instruction,
            "modes": self.mode, "reranks": self.rerank,
        }  # fmt: skip
        return columns(**{name: values for name, values in choices.items() if values})

    def models(self, options: ModelOptions) -> Models:
        """How the commands load models and rerankers, pulling those that are missing."""
        from q3e_local.evaluation import Models
        from q3e_local.reranking.reranker import Reranker

        @contextmanager
        def load(name: str | None) -> Iterator[TextModel]:
            name = name or os.environ.get("Q3E_MODEL") or DEFAULT_MODEL
            # As for a question: a model that tried settings out meanwhile would spoil the seconds.
            with replace(options, model=name).opened(for_a_question=True) as model:
                yield model

        @contextmanager
        def load_reranker() -> Iterator[Reranker]:
            with replace(options, model=self.reranker or DEFAULT_RERANKER).reranker_opened(
                for_a_question=True
            ) as reranker:
                assert isinstance(reranker, Reranker)  # a server is refused before
                yield reranker

        return Models(load, load_reranker)


@dataclass(frozen=True)
class Searched:
    """The values of the options that say what questions are asked of."""

    index_names: tuple[str, ...] = ()
    dbs: tuple[Path, ...] = ()
    corpora: tuple[Path, ...] = ()

    def check(self) -> None:
        """Raise OptionError for more than one: figures on two of them could not be compared."""
        given = [*self.index_names, *map(str, (*self.dbs, *self.corpora))]
        if len(given) > 1:
            raise OptionError(
                f"columns can be compared on one index or corpus alone, got {len(given)}: {', '.join(given)}"
            )

    @property
    def is_given(self) -> bool:
        """Whether there is one."""
        return bool(self.index_names or self.dbs or self.corpora)

    def index(self) -> Path:
        """The file of the index; of the default one where none is named. Raises IndexFileError."""
        return existing(self.dbs[0] if self.dbs else None, self.index_names[0] if self.index_names else None)

    def index_or_corpus(self, data: Path) -> tuple[Path | None, Corpus | None]:
        """What the questions of `data` are asked of: what is named, else a BEIR folder's own texts, or an index."""
        from q3e_local.evaluation import read_corpus

        if self.corpora:
            return None, read_corpus(self.corpora[0])
        if data.is_dir() and not self.is_given:
            return None, read_corpus(data)
        return self.index(), None


# Give a command the parameters `compared` and `searched`.
compared_options = group(
    click.option(
        "-m", "--model", "model", metavar="NAME", multiple=True, shell_complete=candidates.embedder_or_file,
        help="A model; may be repeated, as for quantizations. [default: the index's, or Q3E_MODEL, or the default]",
    ),
    click.option(
        "-d", "--dim", "--dimensions", "dim", type=_List(click.INT), metavar="N,N", multiple=True,
        callback=_joined, help="Dims, as 1024,512,256: cut from the vectors that are there. [default: all]",
    ),
    click.option(
        "--dtype", type=_List(click.Choice(_DTYPES)), metavar="TYPE,TYPE", multiple=True, callback=_joined,
        help=f"How vectors are stored: {', '.join(_DTYPES)}. [default: float32]",
    ),
    click.option(
        "--instruction", metavar="TEXT", multiple=True,
        help="A text, a task such as code, or none for questions without one; may be repeated. [default: the usual]",
    ),
    click.option(
        "--mode", type=_List(click.Choice(_MODES)), metavar="MODE,MODE", multiple=True, callback=_joined,
        help=f"How to search: {', '.join(_MODES)} (as search does). [default: vectors]",
    ),
    click.option(
        "--rerank", is_flag=False, flag_value=str(N_CANDIDATES), type=_List(Candidates("DATA")), metavar="[N,N]",
        multiple=True, callback=_joined,
        help=f"Each column also with a reranker that reads the first N hits. [N: {N_CANDIDATES} if not given]",
    ),
    click.option(
        "--reranker", metavar="NAME", envvar=RERANKER_VARIABLE, show_envvar=True,
        shell_complete=candidates.reranker_or_file,
        help="Which reranker: a name, or a path to a .gguf file. [default: qwen3-reranker:0.6b]",
    ),
    as_one(Compared, "compared"),
)  # fmt: skip
searched_options = group(
    click.option(
        "--index", "index_names", metavar="NAME", multiple=True, shell_complete=candidates.index,
        help="Ask an index, by its name. [default: default, or a BEIR folder's own texts]",
    ),
    click.option(
        "--db", "dbs", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE", multiple=True,
        help="Ask an index in a file anywhere.",
    ),
    click.option(
        "--corpus", "corpora", type=click.Path(path_type=Path), metavar="FILE|FOLDER", multiple=True,
        help="Ask texts of JSON Lines (_id, title, text), or the files of a folder, each one text.",
    ),
    as_one(Searched, "searched"),
)  # fmt: skip
