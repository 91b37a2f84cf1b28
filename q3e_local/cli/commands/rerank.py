"""`q3e-local rerank QUESTION`: documents by how well they answer it."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence

import click

from q3e_local.cli import candidates
from q3e_local.cli.again import again
from q3e_local.cli.computing.engine_options import ModelCommand, engine_options
from q3e_local.cli.computing.model_options import (
    ModelOptions,
    cache_option,
    offline_option,
    quiet_option,
    reranker_option,
    server_option,
)
from q3e_local.cli.exit_codes import DONE, SKIPPED
from q3e_local.cli.option_groups import as_one
from q3e_local.cli.progress import meter
from q3e_local.cli.stopping import stopping_cleanly
from q3e_local.cli.terminal import say
from q3e_local.cli.texts import Item, Layout, find, layout_options, read_all
from q3e_local.cli.texts.survey import LEAVE_OUT, say_skipped
from q3e_local.cli.writing.record import as_json, kept_names
from q3e_local.cli.writing.show import print_json
from q3e_local.embedding.prompts import TASKS
from q3e_local.errors import InputError, OptionError, TextError
from q3e_local.reranking.preparing import RankRequest
from q3e_local.reranking.rank_model import Ranked, RankModel
from q3e_local.reranking.reranker import Reranker
from q3e_local.wording.counts import counted

_FIELDS = frozenset({"index", "id", "score", "logit", "tokens", "truncated", "text"})  # of the output
_NAMED_AT_MOST = 100  # documents that were skipped
_CUT_NAMED_AT_MOST = 5


@click.command(cls=ModelCommand)
@click.argument("question", metavar="QUESTION")
@click.argument("names", metavar="[FILE|FOLDER|-]...", nargs=-1, shell_complete=candidates.file)
@click.option("--text", "texts", metavar="TEXT", multiple=True, help="Rank this document; may be repeated.")
@layout_options
@click.option(
    "--keep", metavar="FIELD,...", multiple=True,
    callback=lambda context, parameter, values: kept_names(values, _FIELDS),
    help="Fields of --jsonl or columns of --csv that go out with each document, in JSON.",
)  # fmt: skip
@click.option(
    "--blank", type=click.Choice(["skip", "error"]),
    help="A document that is blank: left out, or an error. [default: error]",
)  # fmt: skip
@click.option("--glob", metavar="PATTERN", help="Which files of a folder, such as '*.md'. [default: all]")
@click.option("-k", "--top", "top_n", type=click.IntRange(1), help="Print this many, best first. [default: all]")
@reranker_option
@click.option("--task", type=click.Choice(list(TASKS)), help="A named instruction. [default: retrieval]")
@click.option("--instruction", metavar="TEXT", help="What an answer is to you, best in English.")
@click.option("--json", "as_json", is_flag=True, help="JSON Lines, as in a pipe; on a terminal the default is text.")
@offline_option
@cache_option
@server_option
@click.option("--skip-errors", is_flag=True, help="Go on without a document that fails, list it, and exit 3.")
@engine_options
@quiet_option
@as_one(ModelOptions, "options")
def rerank(
    question: str, names: tuple[str, ...], texts: tuple[str, ...], layout: Layout, blank: str | None,
    glob: str | None, top_n: int | None, task: str | None, instruction: str | None, as_json: bool, skip_errors: bool,
    options: ModelOptions,
) -> int:  # fmt: skip
    """Order documents by how well they answer a question: a reranker reads the question with each of them.

    Documents are read as embed reads texts: a file is one, unless --lines, --jsonl or --csv says otherwise; a folder
    is all files in it; - is stdin, which is also read when nothing is named and something is piped in.

    \b
      q3e-local rerank "What did we decide about the budget?" minutes/ -k 3
      q3e-local rerank "who fed the cat?" --lines notes.txt --json
      cat found.jsonl | q3e-local rerank "猫是谁喂的" --jsonl text --id id
    """
    if not question.strip():
        raise OptionError('the question is empty; ask something, as in: q3e-local rerank "who fed the cat?" notes/')
    if len(options.servers) > 1:
        raise OptionError(f"a reranker reads on one server, got {len(options.servers)}: {', '.join(options.servers)}")
    request = RankRequest(question, (), task, instruction)
    source = find(names, texts, glob, layout)
    with stopping_cleanly():
        # Before the model is loaded: an input that cannot be read is said at once.
        tell = (lambda line: None) if options.quiet else say
        read = read_all(source, skip_errors, tell, blank == "skip", LEAVE_OUT)
        items, skipped = read.items, read.skipped
        if len(items) == 1 and layout.is_whole and not texts and not options.quiet:
            say(f"{items[0][1].id} is one document; for its parts give --lines, --csv COLUMN or --jsonl FIELD")
        with options.reranker_opened() as reranker:
            began = time.perf_counter()
            try:
                ranked = _ranked(reranker, request, items, skip_errors, skipped, options.quiet)
            except KeyboardInterrupt:
                raise KeyboardInterrupt(_what_is_kept(reranker)) from None
            seconds = time.perf_counter() - began
            model = reranker.model
    best = sorted(ranked, key=lambda one: -one.logit)[:top_n]
    _print(best, items, layout.keep, is_text=not as_json and sys.stdout is not None and sys.stdout.isatty())
    _report(ranked, items, f"{model}, {seconds:.1f} s", options.quiet)
    if read.n_blank and not options.quiet:
        say(f"{counted(read.n_blank, 'blank document')} left out")
    say_skipped(skipped, _NAMED_AT_MOST)
    return SKIPPED if skipped else DONE


def _ranked(
    reranker: RankModel,
    request: RankRequest,
    items: Sequence[tuple[int, Item]],
    skip: bool,
    skipped: list[str],
    quiet: bool,
) -> list[Ranked]:
    """How each document ranks; its index is its place in `items`.

    Raises InputError for a document that fails, or with `skip` adds a line about it to `skipped`.
    """
    ranked = []
    request = RankRequest(request.query, [item.text for _, item in items], request.task, request.instruction)
    with meter("document", len(items), sum(item.n_bytes for _, item in items), quiet) as show:
        for (_, item), result in zip(items, reranker.stream(request, show.computed), strict=True):
            if isinstance(result, TextError):
                if not skip:
                    raise InputError(f"{item.id} {result.message}")
                skipped.append(f"{item.id} {result.message}")
                show.skipped(item.n_bytes)
                continue
            show.kept(item.n_bytes, result.tokens)
            ranked.append(result)
    if not ranked:
        raise InputError("no document in the input could be ranked")
    return ranked


def _what_is_kept(reranker: RankModel) -> str:
    """Where a run that was interrupted goes on."""
    has_cache = isinstance(reranker, Reranker) and reranker.cache is not None
    return "" if not has_cache else f"what was read is in the cache; go on with: {again()}"


def _print(best: Sequence[Ranked], items: Sequence[tuple[int, Item]], keep: Sequence[str], is_text: bool) -> None:
    """Hits for people, or an object a line."""
    if is_text:
        from q3e_local.cli.commands.hits import print_text
        from q3e_local.search.hits import Hit

        found = [(one, items[one.index][1]) for one in best]
        print_text([Hit(item.id, one.score, item.text) for one, item in found], [None] * len(found))
        return
    for one in best:
        index, item = items[one.index]
        print_json(
            {
                "index": index, "id": item.id, "score": one.score, "logit": one.logit, "tokens": one.tokens,
                "truncated": one.truncated, "text": item.text,
                **{name: as_json(item.kept.get(name)) for name in keep},
            }
        )  # fmt: skip


def _report(ranked: Sequence[Ranked], items: Sequence[tuple[int, Item]], by: str, quiet: bool) -> None:
    """Say what was done, and which documents were read in part alone, which must not stay unsaid."""
    if not quiet:
        say(f"{counted(len(ranked), 'document')}, {sum(one.tokens for one in ranked):,} tokens, by {by}")
    cut = [items[one.index][1].id for one in ranked if one.truncated]
    if cut:
        more = f" and {len(cut) - _CUT_NAMED_AT_MOST} more" if len(cut) > _CUT_NAMED_AT_MOST else ""
        named = ", ".join(cut[:_CUT_NAMED_AT_MOST])
        say(f"{counted(len(cut), 'document')} cut to the limit: {named}{more}")
