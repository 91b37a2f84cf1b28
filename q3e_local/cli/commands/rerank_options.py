"""The second stage of `search`: its options, the reranker that they mean, and the line that shows how far it is.

Knows options and names of models; leaves the order of hits to search/reranked.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from q3e_local.cli import candidates
from q3e_local.cli.computing.model_options import RERANKER_VARIABLE, ModelOptions
from q3e_local.cli.option_groups import as_one, group
from q3e_local.cli.progress import Counter, Pace, laid_out
from q3e_local.cli.terminal import live
from q3e_local.errors import OptionError
from q3e_local.models.kinds import DEFAULT_RERANKER
from q3e_local.wording.counts import counted

if TYPE_CHECKING:
    from q3e_local.reranking.rank_model import RankModel

# That of search/reranked.py, which brings NumPy in: a help page would wait for that.
N_CANDIDATES = 10
_N_CANDIDATES_MAX = 10_000


class Candidates(click.IntRange):
    """A number of candidates. An argument that stands behind --rerank is taken for it, which the error says."""

    def __init__(self, argument: str) -> None:
        """`argument` is what the command is given beside options, in words."""
        super().__init__(1, _N_CANDIDATES_MAX)
        self._argument = argument

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, str) and not value.strip().lstrip("+-").isdecimal():
            self.fail(
                f"{value!r} is no number of candidates; put {self._argument} before --rerank, or give a number, as "
                f"in --rerank {N_CANDIDATES}",
                param,
                ctx,
            )
        number: int = super().convert(value, param, ctx)
        return number


def _written() -> tuple[str, ...]:
    """Options of the second stage on the command line, that say nothing without --rerank."""
    context = click.get_current_context()
    flags = {"reranker": "--reranker", "rerank_seconds": "--rerank-seconds"}
    return tuple(
        flag for name, flag in flags.items() if context.get_parameter_source(name) == ParameterSource.COMMANDLINE
    )


@dataclass(frozen=True)
class Reranking:
    """The values of these options. Without `rerank` there is no second stage."""

    rerank: int | None = None
    reranker: str | None = None
    rerank_seconds: float | None = None

    def check(self) -> None:
        """Raise OptionError for options that do not go together."""
        if self.rerank is None and (written := _written()):
            raise OptionError(f"{written[0]} is for the second stage of a search; give --rerank too")

    def opened(self, stack: ExitStack, options: ModelOptions) -> RankModel | None:
        """The reranker, pulled where it is missing here, and closed with the stack."""
        if self.rerank is None:
            return None
        options = replace(options, model=self.reranker or DEFAULT_RERANKER)
        return stack.enter_context(options.reranker_opened(for_a_question=True))


# Give a command the parameter `reranking`.
rerank_options = group(
    click.option(
        "--rerank", is_flag=False, flag_value=N_CANDIDATES, type=Candidates("the question"), metavar="[N]",
        help=f"Have a reranker read the first N hits and order them. [N: {N_CANDIDATES} if not given]",
    ),
    click.option(
        "--reranker", metavar="NAME", envvar=RERANKER_VARIABLE, show_envvar=True,
        shell_complete=candidates.reranker_or_file,
        help="Which reranker: a name, or a path to a .gguf file. [default: qwen3-reranker:0.6b]",
    ),
    click.option(
        "--rerank-seconds", type=click.FloatRange(0, min_open=True), metavar="S",
        help="Read candidates for so long at most, best first; the rest keeps its order.",
    ),
    as_one(Reranking, "reranking"),
)  # fmt: skip


@contextmanager
def reading(quiet: bool) -> Iterator[Counter]:
    """Show a bar while candidates are read."""
    pace = Pace(None)

    def count(n_done: int, n_total: int) -> None:
        pace.total = n_total
        if n_done:
            pace.worked(n_done)
        else:
            pace.skip(0)  # the time until now was not spent on reading

    def line(width: int) -> str:
        return laid_out(width, f"reading {counted(int(pace.total), 'candidate')}", pace) if pace.total else ""

    with live(line, quiet):
        yield count
