"""Run tasks of mteb on our models, and keep mteb's own result files: by quantization, dim, and with a second stage.

    python scripts/bench/mteb_run.py ArguAna STSBenchmark -m qwen3-embedding:0.6b -m qwen3-embedding:0.6b-q8_0
    python scripts/bench/mteb_run.py ArguAna -m qwen3-embedding:0.6b -d 1024 -d 256 --rerank qwen3-reranker:0.6b
    python scripts/bench/mteb_table.py mteb-results

The same command goes on where it was interrupted: mteb runs no task twice, and RESULTS/vectors.sqlite keeps what was
computed for a task that did not end. So does a smaller dim, which is cut from the vectors that are there: give
`Q3E_CACHE_SIZE` room for them. Needs mteb (pip install mteb), and a network for the tasks' data sets.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

try:
    import mteb
    from mteb.abstasks.retrieval import AbsTaskRetrieval
except ModuleNotFoundError:
    sys.exit("this script needs mteb; install it with: pip install mteb")

import q3e_local
from q3e_local.errors import Q3EError
from q3e_local.integrations.mteb import MAX_TOKENS, CrossEncoder, Encoder, Instructions


class Runs:
    """Where results lie, and what all runs have in common."""

    def __init__(self, folder: Path, instructions: Instructions | None, max_tokens: int, top: int) -> None:
        self.cache = mteb.ResultCache(folder)
        self.vectors = folder / "vectors.sqlite"
        self._folder, self._top = folder, top
        self._common = {"instructions": instructions, "max_tokens": max_tokens}
        # What a first stage found, by what a second stage's results are called after it.
        self.first_stages: list[tuple[dict[str, str | int], Path]] = []

    def embed(self, embedder: Any, dim: int | None, names: tuple[str, ...], *, keep_candidates: bool) -> None:
        """Run all tasks with an embedder at a dim, and keep the documents that it finds if these are asked for."""
        encoder = Encoder(embedder, dim=dim, **self._common)
        meta = encoder.mteb_model_meta
        settings = meta.experiment_name or "usual"
        folder = self._folder / "candidates" / meta.model_name_as_path() / meta.revision / settings
        self.first_stages.append(
            ({"candidates_of": meta.name.partition("/")[2], "embed_dim": encoder.dim, "top": self._top}, folder)
        )
        for task in tasks(names):
            wanted = keep_candidates and is_ranked_again(task)
            missing = wanted and not (folder / task.prediction_file_name).exists()
            mteb.evaluate(
                encoder,
                task,
                cache=self.cache,
                prediction_folder=folder if wanted else None,
                overwrite_strategy="always" if missing else "only-missing",
            )

    def rerank(self, reranker: Any, names: tuple[str, ...]) -> None:
        """Run the retrieval tasks again, each on the first documents that each first stage found."""
        for settings, folder in self.first_stages:
            second_stage = CrossEncoder(reranker, settings=settings, **self._common)
            for task in filter(is_ranked_again, tasks(names)):
                task.convert_to_reranking(folder, top_k=self._top)
                mteb.evaluate(second_stage, task, cache=self.cache)


def tasks(names: tuple[str, ...]) -> Iterator[Any]:
    """mteb's tasks, made anew because a second stage writes into them. Raises UsageError for an unknown name."""
    for name in names:
        try:
            yield mteb.get_task(name)
        except KeyError as error:
            raise click.UsageError(f"mteb has no task {name!r}: {error.args[0].removeprefix('KeyError: ')}") from None


def read_instructions(path: Path) -> Instructions:
    """The table of a file. Raises UsageError for what is none."""
    try:
        table: Instructions = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise click.UsageError(f"{path} is not JSON: {error}") from None
    if not isinstance(table, dict):
        raise click.UsageError(f"{path} must have an object, an instruction by the name of each task")
    return table


def is_ranked_again(task: Any) -> bool:
    """Whether a second stage can order what a first stage finds."""
    return isinstance(task, AbsTaskRetrieval) and task.metadata.type.endswith("Retrieval")


@click.command()
@click.argument("names", metavar="TASK...", nargs=-1, required=True)
@click.option("-m", "--model", "models", multiple=True, required=True, help="A name or a .gguf; may be repeated.")
@click.option("-d", "--dim", "dims", type=int, multiple=True, help="May be repeated. [default: all numbers]")
@click.option("--rerank", "rerankers", multiple=True, metavar="MODEL", help="A second stage; may be repeated.")
@click.option("--top", default=100, show_default=True, type=click.IntRange(1), help="Candidates that it reads.")
@click.option(
    "--instructions", "table", type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="The authors' task_prompts.json. [default: mteb's instructions]",
)  # fmt: skip
@click.option("--max-tokens", default=MAX_TOKENS, show_default=True, type=click.IntRange(1), help="Of a text.")
@click.option("--results", type=click.Path(path_type=Path), default=Path("mteb-results"), show_default=True)
def main(
    names: tuple[str, ...],
    models: tuple[str, ...],
    dims: tuple[int, ...],
    rerankers: tuple[str, ...],
    top: int,
    table: Path | None,
    max_tokens: int,
    results: Path,
) -> None:
    """Run mteb's tasks on models, and keep the result files below --results."""
    list(tasks(names))  # an unknown one is an error before anything is computed
    instructions = None if table is None else read_instructions(table)
    results.mkdir(parents=True, exist_ok=True)
    runs = Runs(results, instructions, max_tokens, top)
    try:
        for model in models:
            with q3e_local.load(model, cache=runs.vectors) as embedder:
                for dim in dims or (None,):
                    runs.embed(embedder, dim, names, keep_candidates=bool(rerankers))
        for model in rerankers:
            with q3e_local.load_reranker(model, cache=runs.vectors) as reranker:
                runs.rerank(reranker, names)
    except Q3EError as error:
        raise click.ClickException(str(error)) from None
    click.echo(f"The results are in {results}; as a table: python scripts/bench/mteb_table.py {results}")


if __name__ == "__main__":
    main()
