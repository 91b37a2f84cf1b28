"""The table of mteb's result files: a row for each run, a column for each task, beside the scores of 16-bit weights.

    python scripts/bench/mteb_table.py mteb-results

The rows of the form are always there. A run that was not made leaves its cells empty; the last line counts them.
Further runs in the folder follow. A score is the task's main score times 100, the mean of several splits or
subsets. mteb_published.json beside this file has what mteb publishes for the authors' own weights in 16 bits, and for
each score the file that it comes from.

Knows the layout of mteb's files (mteb/cache/result_cache.py), and does not need mteb.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import click

PUBLISHED: dict[str, Any] = json.loads(Path(__file__).with_name("mteb_published.json").read_text(encoding="utf-8"))
TASKS = tuple(next(iter(PUBLISHED["models"].values()))["tasks"])
OWN = "q3e-local/"  # before each name in the files of our models
USUAL_TOP = 100  # candidates of a second stage, as in the authors' evaluation


class Run(NamedTuple):
    """A model at a dim, and the reranker that orders what it finds."""

    model: str
    dim: int
    reranker: str = ""
    others: str = ""  # settings that are not the usual ones


def form(published: str, n_embd: int) -> Iterator[Run]:
    """The runs that the table asks for of a model: each quantization, smaller dims, and a second stage."""
    name = published.rpartition("/")[2].lower().replace("qwen3-embedding-", "qwen3-embedding:")
    for quantization in ("-f16", "-q8_0", "-q6_k", "-q5_k_m", ""):
        yield Run(f"{name}{quantization}", n_embd)
    for dim in (n_embd // 2, 256):
        yield Run(name, dim)
    yield Run(name, n_embd, "qwen3-reranker:0.6b")


def in_files(name: str) -> str:
    """A model's name as mteb's files have it, which allow no colon."""
    return re.sub(r"[^A-Za-z0-9._-]", "-", name)


def run_of(meta: dict[str, Any]) -> Run | None:
    """The run that a model_meta.json is of; None for a model of another program."""
    name = (meta.get("name") or "").removeprefix(OWN)
    if name == meta.get("name"):
        return None
    settings = dict(meta.get("experiment_kwargs") or {})
    model, reranker = settings.pop("candidates_of", ""), ""
    if model:
        reranker = name
        if settings.get("top") == USUAL_TOP:
            del settings["top"]
    dim = settings.pop("embed_dim", None) or meta.get("embed_dim") or 0
    others = ", ".join(f"{key} {value}" for key, value in sorted(settings.items()))
    return Run(model or name, dim, reranker, others)


def score_of(result: dict[str, Any]) -> float:
    """A task's main score, 0 to 1."""
    found = [subset["main_score"] for split in result["scores"].values() for subset in split]
    return float(sum(found) / len(found))


def scores_in(folder: Path) -> dict[Run, dict[str, float]]:
    """The scores of each run by task. Raises ClickException where a run has two results of a task."""
    files: dict[tuple[Run, str], Path] = {}
    found: dict[Run, dict[str, float]] = {}
    for meta in sorted((folder / "results").rglob("model_meta.json")):
        run = run_of(json.loads(meta.read_text(encoding="utf-8")))
        for path in sorted(meta.parent.glob("*.json")) if run is not None else ():
            if path != meta:
                first = files.setdefault((run, path.stem), path)
                if first != path:
                    raise click.ClickException(
                        f"{first} and {path} are results of two files of one name; keep them in two folders"
                    )
                found.setdefault(run, {})[path.stem] = score_of(json.loads(path.read_text(encoding="utf-8")))
    return found


def table(found: dict[Run, dict[str, float]], tasks: Sequence[str] = TASKS) -> Iterator[str]:
    """The lines of the table in Markdown, and what is missing."""
    yield "| model | dim | reranked by | " + " | ".join(tasks) + " |"
    yield "|" + "---|" * (3 + len(tasks))
    asked: set[Run] = set()
    n_empty = 0
    for model, published in PUBLISHED["models"].items():
        of_model = {task: source["score"] for task, source in published["tasks"].items()}
        yield _line(Run(f"**{model}**, published", published["dim"]), of_model, tasks)
        for run in form(model, published["dim"]):
            key = Run(in_files(run.model), run.dim, in_files(run.reranker))
            asked.add(key)
            scores = found.get(key, {})
            n_empty += sum(task not in scores for task in tasks)
            yield _line(run, scores, tasks)
    for run in sorted(found.keys() - asked):
        yield _line(run, found[run], tasks)
    if n_empty:
        yield ""
        yield f"{n_empty} of {len(asked) * len(tasks)} cells of the form are empty: these were not run."


def _line(run: Run, scores: dict[str, float], tasks: Sequence[str]) -> str:
    model = f"{run.model} ({run.others})" if run.others else run.model
    cells = [f"{100 * scores[task]:.2f}" if task in scores else "" for task in tasks]
    return f"| {model} | {run.dim or ''} | {run.reranker} | " + " | ".join(cells) + " |"


@click.command()
@click.argument("results", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("-t", "--task", "tasks", multiple=True, help="A column; may be repeated. [default: the form's]")
def main(results: Path, tasks: tuple[str, ...]) -> None:
    """Print the table of the result files in a folder of mteb_run.py."""
    for line in table(scores_in(results), tasks or TASKS):
        click.echo(line)


if __name__ == "__main__":
    main()
