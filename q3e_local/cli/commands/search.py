"""`q3e-local search QUESTION`: find what an index says about it."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from q3e_local.cli import candidates
from q3e_local.cli.commands.index_options import advice_for, which_index
from q3e_local.cli.commands.rerank_options import Reranking, reading, rerank_options
from q3e_local.cli.computing.engine_options import ModelCommand, engine_options
from q3e_local.cli.computing.model_options import ModelOptions, cache_option, offline_option, server_option
from q3e_local.cli.option_groups import as_one
from q3e_local.cli.stopping import stopping_cleanly
from q3e_local.cli.writing.show import visible
from q3e_local.embedding.prompts import TASKS
from q3e_local.embedding.request import EmbedRequest
from q3e_local.errors import ModelError, OptionError, WrongModelError
from q3e_local.models.catalog import DEFAULT_MODEL
from q3e_local.search.dates import moment
from q3e_local.search.places import existing, option_of

if TYPE_CHECKING:
    from q3e_local.embedding.text_model import TextModel
    from q3e_local.search.best_sentence import Best
    from q3e_local.search.database.records import IndexSpace
    from q3e_local.search.index import Found, Mode


def _since(ctx: click.Context, parameter: click.Parameter, value: str | None) -> datetime | None:
    """The date or age that an option gives, as search/dates.py reads it."""
    try:
        return None if value is None else moment(value)
    except OptionError as error:
        raise click.BadParameter(str(error)) from None


@click.command(cls=ModelCommand)
@click.argument("question", nargs=-1, metavar="QUESTION")
@which_index
@click.option(
    "-m", "--model", shell_complete=candidates.embedder_or_file,
    help="The index's model, where it is not found by its name.",
)  # fmt: skip
@click.option("-k", type=click.IntRange(1, 10_000), default=5, show_default=True, help="How many hits.")
@click.option(
    "--task", type=click.Choice(list(TASKS)), help="A named instruction for the question. [default: retrieval]"
)
@click.option("--instruction", metavar="TEXT", help="An instruction of your own, best in English.")
@click.option("--path", metavar="GLOB", help="Only in such files, as 'notes/**' or '*.md'; case matters.")
@click.option(
    "--since", callback=_since, metavar="DATE",
    help="Only in files changed since: 2026-11-01, 2026, yesterday, or 30min, 12h, 7d, 2w, 3m (months), 1y ago.",
)  # fmt: skip
@click.option(
    "--min-score", type=click.FloatRange(-1, 1), metavar="SCORE", help="Only hits with this score or a higher one."
)
@click.option("--hybrid", "hybrid", is_flag=True, help="By words and meaning. [default: where words help]")
@click.option("--vector-only", "vectors", is_flag=True, help="By meaning alone.")
@click.option("--words-only", "words", is_flag=True, help="By words alone; needs no model.")
@click.option("--exact", is_flag=True, help="Look at every vector, not at a shortlist.")
@rerank_options
@click.option("--no-best", is_flag=True, help="Mark no sentence; quicker where the words of none match.")
@click.option("--json", "as_json", is_flag=True, help="JSON Lines, as in a pipe; on a terminal the default is text.")
@click.option("--text", "as_text", is_flag=True, help="Text for people, in a pipe too.")
@offline_option
@cache_option
@server_option
@engine_options
@click.option("-q", "--quiet", is_flag=True, help="Nothing on stderr but errors.")
@as_one(ModelOptions, "options")
def search(
    question: tuple[str, ...], db: Path | None, name: str | None, k: int, task: str | None, instruction: str | None,
    path: str | None, since: datetime | None, min_score: float | None, hybrid: bool, vectors: bool, words: bool,
    exact: bool, reranking: Reranking, no_best: bool, as_json: bool, as_text: bool, options: ModelOptions,
) -> None:  # fmt: skip
    """Find what stands in the files of an index, by meaning and by words, in any language.

    On a terminal text with the best sentence marked, in a pipe JSON Lines. - reads the question from stdin.
    --explain also says how the search was done. With --rerank a reranker, which is pulled if it is missing, reads the
    first hits with the question and orders them: that takes seconds, and helps with prose more than with code.

    \b
      q3e-local search "What did we decide about the budget?"
      q3e-local search "error PRJ-2041" --path 'notes/**' --since 30d -k 10
      q3e-local search 预算 --words-only --db notes.q3e
      q3e-local search "who pays for the booth?" --rerank --rerank-seconds 5
    """
    from q3e_local.cli.commands.hits import print_records, print_text
    from q3e_local.search.database import Database
    from q3e_local.search.index import VectorIndex

    text = _question(question)
    if as_json and as_text:
        raise OptionError("--json and --text exclude each other")
    mode = _mode(hybrid, vectors, words)
    if mode == "words" and min_score is not None:
        raise OptionError("--min-score needs scores, which --words-only does without; leave one of them out")
    reranking.check()
    file = existing(db, name)
    with stopping_cleanly(), advice_for(options.servers), ExitStack() as stack:
        database = stack.enter_context(Database.open(file))
        embedder: TextModel | None = None
        if mode != "words":
            embedder = _embedder(stack, file, database.space, options)
        reranker = reranking.opened(stack, options)
        index = VectorIndex(database, embedder)
        # Of candidates below the least score, others take the place.
        n = k if min_score is None else max(k, reranking.rerank or 0)
        with reading(options.quiet or reranker is None) as show:
            result = index.search(
                text, n, mode=mode, exact=exact, task=task, instruction=instruction, path=path, since=since,
                rerank=reranking.rerank, reranker=reranker, rerank_seconds=reranking.rerank_seconds,
                rerank_progress=show,
            )  # fmt: skip
        if min_score is not None:
            result = replace(result, hits=tuple(hit for hit in result.hits if hit.score >= min_score)[:k])
        best, how = ([None] * len(result.hits), "") if no_best else _best(text, result, embedder)
        if options.engine.explain:
            for line in (*result.explained, *([how] if how else [])):
                click.echo(line, err=True)
        elif result.absent and not options.quiet:
            click.echo(f"{', '.join(visible(term.exact) for term in result.absent)}: found in no passage", err=True)
        to_people = as_text or (not as_json and sys.stdout is not None and sys.stdout.isatty())
        if to_people:
            print_text(result.hits, best)
        else:
            print_records(result.hits, best)
        if not result.hits and not options.quiet:
            _say_nothing_found(len(index), path, since, min_score)


def _mode(hybrid: bool, vectors: bool, words: bool) -> Mode:
    """The mode that the options choose. Raises OptionError for two at once."""
    modes: dict[str, Mode] = {"--hybrid": "hybrid", "--vector-only": "vectors", "--words-only": "words"}
    chosen = [option for option, is_given in zip(modes, (hybrid, vectors, words), strict=True) if is_given]
    if len(chosen) > 1:
        raise OptionError(f"{' and '.join(chosen)} exclude each other")
    return modes[chosen[0]] if chosen else "auto"


def _question(words: tuple[str, ...]) -> str:
    """The question of the command line, or of stdin. Raises OptionError where there is none."""
    if words in ((), ("-",)):
        if sys.stdin is None or (not words and sys.stdin.isatty()):
            raise OptionError('ask something, as in: q3e-local search "what did we decide?"')
        try:
            text = sys.stdin.buffer.read().decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise OptionError(f"the question on stdin is not UTF-8 at byte {error.start}") from None
    else:
        text = " ".join(words)
    if not text.strip():
        raise OptionError('the question is empty; ask something, as in: q3e-local search "what did we decide?"')
    return text.strip()


def _embedder(stack: ExitStack, file: Path, space: IndexSpace, options: ModelOptions) -> TextModel:
    """The index's model, closed with the stack. Nothing is pulled: only the model that made the index will do."""
    if not space.digest:
        raise OptionError(
            f"{file} holds {space}; search it with --words-only, or embed its texts with a model: "
            f"q3e-local index rebuild{option_of(file)} -m {DEFAULT_MODEL}"
        )
    is_named = options.model is not None
    which = f"the model {options.model}" if is_named else "that model"
    try:
        options = replace(options, model=options.model or space.model, offline=True)
        embedder = stack.enter_context(options.opened(for_a_question=True))
        embedder.check(EmbedRequest((), "query"))
        return embedder
    except ModelError as error:
        if options.server:
            where = "give its name on the server with --model"
        elif isinstance(error, WrongModelError):
            where = "leave --model out to take the index's own model (a reranker is named with --reranker)"
        elif is_named:
            where = "check its name or path, leave --model out to take the index's own model"
        else:
            where = "say where it is with --model"
        raise type(error)(
            f"{file} holds {space}, and {which} cannot be used: {error}\n"
            f"{where}, or search without a model: --words-only"
        ) from None


def _best(question: str, result: Found, embedder: TextModel | None) -> tuple[list[Best | None], str]:
    """The best sentence of each hit, and a line that says how they were found."""
    from q3e_local.search.best_sentence import by_vectors, by_words

    best = [by_words(question, hit.text, result.absent) for hit in result.hits]
    left = [place for place, sentence in enumerate(best) if sentence is None]
    n_by_words = len(best) - len(left)
    if left and embedder is not None and result.vector is not None:
        texts = [result.hits[place].text for place in left]
        for place, sentence in zip(left, by_vectors(embedder, result.vector, texts), strict=True):
            best[place] = sentence
    n_by_meaning = sum(best[place] is not None for place in left)
    none = len(left) - n_by_meaning
    how = f"best sentences: {n_by_words} by words, {n_by_meaning} by meaning"
    return best, how + (f", {none} not looked for" if none else "")


def _say_nothing_found(n_chunks: int, path: str | None, since: datetime | None, min_score: float | None) -> None:
    if not n_chunks:
        why = "the index is empty; index a folder that has text in it"
    elif path is not None or since is not None or min_score is not None:
        filters = {"--path, in which case matters": path, "--since": since, "--min-score": min_score}
        used = [option for option, value in filters.items() if value is not None]
        why = f"nothing was found; look without {' and '.join(used)}"
    else:
        why = "nothing was found"
    click.echo(why, err=True)
