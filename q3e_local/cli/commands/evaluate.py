"""`q3e-local eval DATA`: how good search and vectors are on one's own labelled data, column beside column."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from q3e_local.cache.choose import chosen, is_off
from q3e_local.cli import candidates
from q3e_local.cli.again import again
from q3e_local.cli.commands.eval_options import Compared, Searched, compared_options, searched_options
from q3e_local.cli.computing.engine_options import ModelCommand, engine_options
from q3e_local.cli.computing.model_options import ModelOptions, loading_options, quiet_option
from q3e_local.cli.option_groups import as_one
from q3e_local.cli.progress import stages
from q3e_local.cli.stopping import stopping_cleanly
from q3e_local.cli.terminal import say
from q3e_local.cli.writing.outputs import check_target, settle, stream_to
from q3e_local.cli.writing.report import Report, Target, csv_option, report_options, write_report
from q3e_local.errors import OptionError
from q3e_local.wording.counts import counted

if TYPE_CHECKING:
    from q3e_local.evaluation import Evaluation
    from q3e_local.evaluation.data import Kind

# Those of evaluation/data.py, which brings NumPy in: a help page would wait for that.
_KINDS = ("retrieval", "sts", "classification", "clustering")
_PICTURES = (".png", ".html")
# Options that mean something where questions are proposed.
_OF_PROPOSALS = {
    "n_questions",
    "index_names",
    "dbs",
    "corpora",
    "output",
    "form",
    "as_json",
    "as_csv",
    "force",
    "quiet",
}


@click.command(cls=ModelCommand)
@click.argument(
    "data", metavar="[DATA]", required=False, type=click.Path(path_type=Path), shell_complete=candidates.file
)
@searched_options
@compared_options
@click.option(
    "--as", "kind", type=click.Choice(_KINDS),
    help="What is measured. [default: what the fields of DATA say; of labelled texts classification]",
)  # fmt: skip
@click.option("--split", metavar="NAME", help="Which qrels of a BEIR folder. [default: test, or the only ones]")
@click.option("--agree", is_flag=True, help="Needs no labels: which share of the first column's first 10 stays.")
@click.option(
    "--make-questions", "n_questions", type=click.IntRange(1), metavar="N",
    help="Evaluate nothing; propose N questions from the index, with what answers them.",
)  # fmt: skip
@csv_option
@report_options
@click.option("--plot", type=click.Path(path_type=Path), metavar="FILE", help="Draw it too, as a .png or an .html.")
@loading_options
@engine_options
@quiet_option
@as_one(ModelOptions, "options")
def eval_(
    data: Path | None, searched: Searched, compared: Compared, kind: Kind | None, split: str | None, agree: bool,
    n_questions: int | None, target: Target, plot: Path | None, options: ModelOptions,
) -> None:  # fmt: skip
    """Measure how good search is on your own questions, and compare models, dims, dtypes, modes and rerankers.

    DATA is JSON Lines or CSV of questions ({"query": …, "relevant": [id or path, …]}), of pairs of sentences
    (sentence1, sentence2, score) or of labelled texts (text, label); or a BEIR folder. Every combination of what is
    given becomes a column, and each is compared with the first, with a 95 % interval. What was embedded is kept:
    run it again after Ctrl-C, and it goes on.

    \b
      q3e-local eval --make-questions 50 -o questions.jsonl
      q3e-local eval questions.jsonl --dim 1024,512,256 --dtype float32,int8
      q3e-local eval questions.jsonl --mode vectors,words,auto --plot quality.png
      q3e-local eval scifact/ -m qwen3-embedding:4b-q8_0 -m qwen3-embedding:4b
    """
    searched.check()
    if n_questions is not None:
        _check_alone(data)
        _propose(searched, n_questions, target, options.quiet)
        return
    if data is None:
        raise OptionError("name a file of labelled questions; without any: q3e-local eval --make-questions 50")
    from q3e_local.evaluation import Questions, evaluate, read_data

    compared.check(options)
    picture = _picture(plot, target)
    columns = compared.columns()
    read = read_data(data, split, is_labelled=not agree)
    index, corpus = None, None
    if isinstance(read, Questions):
        index, corpus = searched.index_or_corpus(data)
    elif searched.is_given:
        raise OptionError(f"{data} has no questions to ask an index or a corpus; leave --index, --db, --corpus out")
    with stopping_cleanly(), stages(options.quiet) as progress:
        try:
            found = evaluate(
                read, columns, index=index, corpus=corpus, kind=kind, agree=agree, models=compared.models(options),
                progress=progress,
            )  # fmt: skip
        except KeyboardInterrupt as error:  # a download says itself what is kept of it
            raise KeyboardInterrupt(str(error) or _what_is_kept(options)) from None
    _write(found, target, picture, options.quiet)


def _check_alone(data: Path | None) -> None:
    """Raise OptionError for options that say nothing where questions are proposed."""
    context = click.get_current_context()
    idle = [
        parameter.opts[-1]
        for parameter in context.command.params
        if parameter.name not in _OF_PROPOSALS
        and isinstance(parameter, click.Option)
        and context.get_parameter_source(parameter.name or "") == ParameterSource.COMMANDLINE
    ]
    if data is not None or idle:
        raise OptionError(f"--make-questions evaluates nothing; leave {idle[0] if data is None else data} out")


def _propose(searched: Searched, n: int, target: Target, quiet: bool) -> None:
    from q3e_local.evaluation.passages import of_index
    from q3e_local.evaluation.proposing import propose

    if searched.corpora:
        raise OptionError("--make-questions proposes them from an index; index the corpus first")
    if target.form == "csv":
        raise OptionError("a question may have several answers: write questions as .jsonl, not as CSV")
    with of_index(searched.index()) as passages:
        proposed = propose(passages, n)
    objects = [{"query": question.text, "relevant": list(question.relevant)} for question in proposed]
    rows = [(question.text, ", ".join(question.relevant)) for question in proposed]
    write_report(Report(objects, ["query", "relevant"], rows), target)
    if not quiet:
        few = "" if len(proposed) == n else f", all there are of {n:,}"
        say(
            f"{counted(len(proposed), 'question')}{few}: headings and first sentences, so easy ones that words alone "
            "find; they compare dims and quantizations, but only questions of your own say how good search is"
        )


def _picture(plot: Path | None, target: Target) -> Path | None:
    """The file of the picture, checked before anything is computed. Raises OptionError, OutputError."""
    path = settle(plot)
    if plot is None:
        return None
    if path is None or path.suffix.lower() not in _PICTURES:
        raise OptionError(f"{plot} does not say what to draw: end it in {' or '.join(_PICTURES)}")
    if path == target.path:
        raise OptionError(f"{path} is the output too; draw into another file")
    from q3e_local.evaluation import picture

    picture.need()
    force = bool(click.get_current_context().params.get("force"))
    check_target(path, path.suffix, resuming=False, force=force)
    return path


def _write(found: Evaluation, target: Target, picture: Path | None, quiet: bool) -> None:
    from q3e_local.cli.commands.eval_report import write_evaluation

    write_evaluation(found, target)
    if picture is not None:
        from q3e_local.evaluation.picture import html_page, write_png

        with stream_to(picture) as stream:
            if picture.suffix.lower() == ".png":
                write_png(found, stream)
            else:
                stream.write(html_page(found).encode("utf-8"))
    if not quiet:
        for note in found.notes:
            say(note)
        if picture is not None:
            say(f"{counted(len(found.results), 'column')} in {picture}")


def _what_is_kept(options: ModelOptions) -> str:
    """Where a run that was interrupted goes on."""
    if options.server:
        return f"the server may have kept what was computed; go on with: {again()}"
    is_kept = not is_off(chosen(options.cache))
    return f"what was computed is in the cache; go on with: {again()}" if is_kept else ""
