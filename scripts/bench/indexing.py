"""What indexing costs beside embedding, and how long unchanged files take.

    python scripts/bench/indexing.py -m qwen3-embedding:0.6b            # a path to a .gguf too
    python scripts/bench/indexing.py -m demo --texts 2000               # where the model costs next to nothing

Embeds the same chunks alone and by way of an index, in turn, with a model that was loaded before; then indexes many
small files, and looks at them again, for which no model is needed.
"""

from __future__ import annotations

import argparse
import random
import statistics
import tempfile
import time
from pathlib import Path

import q3e_local
from q3e_local import Embedder, EmbedRequest
from q3e_local.search.database import Database
from q3e_local.search.documents import space_of
from q3e_local.search.indexing.folders import index_folders
from q3e_local.search.indexing.tally import Tally

_WORDS = [
    f"{a}{b}{c}"
    for a in ("re", "con", "in", "per")
    for b in ("cept", "form", "tain", "vert")
    for c in ("ion", "ed", "s")
]


def write(folder: Path, n_files: int, n_words: int) -> None:
    """Files of paragraphs of words, in a hundred folders."""
    choose = random.Random(0)
    for number in range(n_files):
        paragraphs = (" ".join(choose.choices(_WORDS, k=40)).capitalize() + "." for _ in range(max(1, n_words // 40)))
        path = folder / f"{number % 100:02}" / f"{number:05}.md"
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_text(f"# Note {number}\n\n" + "\n\n".join(paragraphs), encoding="utf-8")


def index(db: Path, folder: Path, embedder: Embedder) -> tuple[Tally, float]:
    tally, started = Tally(), time.perf_counter()
    index_folders(db, [folder], lambda space: (embedder, space_of(embedder)), tally)
    return tally, time.perf_counter() - started


def overhead(embedder: Embedder, folder: Path, n_files: int, n_rounds: int) -> None:
    write(folder / "texts", n_files, 300)
    alone, indexed = [], []
    for number in range(n_rounds):
        db = folder / f"{number}.q3e"
        tally, seconds = index(db, folder / "texts", embedder)
        indexed.append(seconds)
        with Database.open(db) as database:
            texts = [entry.chunk.embedded for window in database.entries() for entry in window.entries]
        started = time.perf_counter()
        for _ in embedder.stream(EmbedRequest(texts, "document")):
            pass
        alone.append(time.perf_counter() - started)
    alone_s, indexed_s = statistics.median(alone), statistics.median(indexed)
    n_tokens = sum(embedder.count_tokens(texts))
    print(f"{len(texts)} chunks, {n_tokens:,} tokens of {tally.n_new} files; median of {n_rounds}")
    print(f"  embedding alone  {alone_s:7.2f} s  {n_tokens / alone_s:9,.0f} tokens/s")
    more = 100 * (indexed_s / alone_s - 1)
    print(f"  indexing         {indexed_s:7.2f} s  {n_tokens / indexed_s:9,.0f} tokens/s  {more:+.1f} %")


def unchanged(folder: Path, n_files: int) -> None:
    write(folder / "files", n_files, 10)
    db = folder / "unchanged.q3e"
    with q3e_local.load("demo") as demo:
        _, first = index(db, folder / "files", demo)
        seconds = [index(db, folder / "files", demo)[1] for _ in range(3)]
    again = statistics.median(seconds)
    print(f"{n_files:,} files: indexed with demo in {first:.1f} s, recognized as unchanged in {again:.2f} s")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("-m", "--model", default="demo")
    parser.add_argument("--texts", type=int, default=60, help="files of 300 words to embed")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--files", type=int, default=10_000, help="small files to recognize")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        with q3e_local.load(options.model) as embedder:
            overhead(embedder, Path(name), options.texts, options.rounds)
        if options.files:
            unchanged(Path(name), options.files)
