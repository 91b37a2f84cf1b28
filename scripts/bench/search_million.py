"""Search among a million chunks: how long, how near to exact, how much memory, how large a file.

    python scripts/bench/search_million.py make million.q3e            # some minutes, about 7 GB
    python scripts/bench/search_million.py measure million.q3e
    python scripts/bench/search_million.py sweep million.q3e           # what the constants were chosen by
    python scripts/bench/search_million.py sizes any-new-file.q3e      # bytes of a chunk, by dim

The vectors are made, not embedded: neighbourhoods as a model has them, at the price of no model. A vector is

    unit(mean + topic + subject + chunk)

each part normal, its numbers getting smaller by (1 + i / 64) ** -0.5, as MRL puts what matters first; 1,000 topics,
20 subjects in each, 50 chunks in each. Cosines come out near 0.28 between any two, 0.51 in a topic, 0.60 in a
subject, so that a subject stands out of its topic little. A question is a chunk that is not in the index, further
from its subject than those that are. What is nearest to each is found by NumPy while the vectors are made.
"""

from __future__ import annotations

import argparse
import resource
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import psutil

from q3e_local.search.database import Database, snapshot
from q3e_local.search.database.bit_scan import Codes
from q3e_local.search.database.query_words import terms_of
from q3e_local.search.database.records import Chunk, FileRecord, Filters, IndexSpace
from q3e_local.search.database.snapshot import Snapshot
from q3e_local.vectors import Vectors, finish

N_SUBJECTS, N_CHUNKS = 20, 50  # in a topic, in a subject: a file each topic
MEAN, TOPIC, SUBJECT, CHUNK, QUESTION = 0.50, 0.45, 0.28, 0.60, 0.75
N_QUESTIONS, K = 200, 10
N_WORDS = 60


class Maker:
    """Vectors, the same for the same seed."""

    def __init__(self, dim: int, n_topics: int) -> None:
        self.random = np.random.default_rng(6)
        self.dim, self.n_topics = dim, n_topics
        falling = (1 + np.arange(dim) / 64) ** -0.5
        self.spread = (falling / np.linalg.norm(falling)).astype(np.float32)
        self.mean = self.part(1, MEAN)

    def part(self, n: int, weight: float) -> Vectors:
        return self.random.standard_normal((n, self.dim), np.float32) * self.spread * np.float32(weight)

    def topics(self) -> Iterator[tuple[Vectors, Vectors]]:
        """The chunks of each topic, and one that is a question if it is not stored."""
        for _ in range(self.n_topics):
            subjects = self.mean + self.part(1, TOPIC) + self.part(N_SUBJECTS, SUBJECT)
            chunks = np.repeat(subjects, N_CHUNKS, axis=0) + self.part(N_SUBJECTS * N_CHUNKS, CHUNK)
            yield finish(chunks), finish(subjects[:1] + self.part(1, QUESTION))


def make(path: Path, n: int, dim: int) -> None:
    """Write the index, and beside it the questions and what is nearest to them."""
    n_topics = n // (N_SUBJECTS * N_CHUNKS)
    every = max(1, n_topics // N_QUESTIONS)
    questions = np.concatenate(
        [q for place, (_, q) in enumerate(Maker(dim, n_topics).topics()) if place % every == 0]
    )
    best, best_ids = np.full((len(questions), K), -2.0), np.zeros((len(questions), K), np.int64)
    words = np.array([f"{'abcdefghij'[i % 10]}{i:x}" for i in range(50_000)])
    random, began = np.random.default_rng(7), time.perf_counter()
    with Database.create(path, IndexSpace("made", "0" * 64, dim)) as database:
        for topic, (vectors, _) in enumerate(Maker(dim, n_topics).topics()):
            ranks = np.minimum(random.zipf(1.2, (len(vectors), N_WORDS)), len(words)) - 1
            chunks = [Chunk(" ".join(row), 0, 1) for row in words[ranks]]
            name = f"/notes/{topic % 10}/topic-{topic}.md"
            database.replace_file(FileRecord(name, 1, topic * 10**9, str(topic)), chunks, vectors)
            ids = topic * len(vectors) + np.arange(len(vectors))
            scores = np.concatenate([best, questions.astype(np.float64) @ vectors.T.astype(np.float64)], axis=1)
            both = np.concatenate([best_ids, np.broadcast_to(ids, (len(questions), len(ids)))], axis=1)
            order = np.argsort(-scores, axis=1)[:, :K]
            best, best_ids = np.take_along_axis(scores, order, 1), np.take_along_axis(both, order, 1)
            if topic % 100 == 99:
                print(f"{(topic + 1) * len(vectors):,} chunks, {time.perf_counter() - began:.0f} s", file=sys.stderr)
    np.savez(path.with_suffix(".npz"), questions=questions, nearest=best_ids, scores=best)


def measure(path: Path) -> None:
    """Time, recall and memory of searches in a process that does nothing else."""
    truth = np.load(path.with_suffix(".npz"))
    questions, expected = truth["questions"], truth["nearest"] + 1  # rows count from 1
    before = _rss()
    with Database.open(path) as database, database.snapshot() as state:
        began = time.perf_counter()
        state.nearest(questions[0], K)
        print(f"first search, with the codes read: {1000 * (time.perf_counter() - began):.0f} ms")
        found, times = _timed(questions, lambda question: state.nearest(question, K).rows)
        recall = np.mean([len(set(a) & set(b)) / K for a, b in zip(found, expected, strict=True)])
        _tell("two stages", times)
        print(f"recall@{K} against exact: {recall:.4f} of {len(questions)} questions")
        print("; ".join(state.nearest(questions[0], K).explained))
        for filters in (Filters(path="topic-7.md"), Filters(path="/notes/3/*.md"), Filters(since=10.0)):
            times = _timed(questions[:20], lambda question, f=filters: state.nearest(question, K, f).rows)[1]
            _tell(f"path {filters.path}, since {filters.since}", times)
        for query in ("a2710 b1f7", "aa b1", "'a14 b1f b29 c2a'"):
            counts = state.counted(terms_of(query)).found
            _tell(f"words {query!r}", _timed(questions[:5], lambda _, q=query: _words(state, q))[1])
            print(f"   found in {list(counts.values())}")
        found, times = _timed(questions[:3], lambda question: state.exact(question, K).rows)
        _tell(f"exact, as NumPy: {found == expected[:3].tolist()}", times)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(f"memory: {_rss():.0f} MB now, {peak:.0f} MB at most, {before:.0f} MB before it was opened (RSS)")
        facts = database.facts()
        print(f"file: {facts.size_bytes / 1e9:.2f} GB for {facts.n_chunks:,} chunks of {facts.space.dim} dims")
    for kind, n_bytes in _sizes(path).items():
        print(f"   {kind}: {n_bytes / 1e6:,.0f} MB")


def sweep(path: Path) -> None:
    """Recall and time by bits of a code and length of the shortlist."""
    truth = np.load(path.with_suffix(".npz"))
    questions, expected = truth["questions"], truth["nearest"] + 1
    with Database.open(path) as database, database.snapshot() as state:
        codes = database._file.codes(state._connection)
        for bits in (256, 512, 1024):
            cut = Codes(codes.rows, codes.words[: bits // 64])
            _, times = _timed(questions[:40], lambda q, c=cut: c.shortlist(q, K, 800))
            _tell(f"scan of {bits} bits", times)
            for n in (100, 200, 400, 800, 1600):
                short = [cut.shortlist(q, K, n).tolist() for q in questions]
                recall = np.mean([len(set(a) & set(b)) / K for a, b in zip(short, expected, strict=True)])
                print(f"   shortlist {n:>5}  recall@{K} {recall:.4f}", flush=True)
        for n in (200, 400, 800, 1600):
            snapshot.SHORTLIST = n
            times = _timed(questions[:100], lambda q: state.nearest(q, K).rows)[1]
            _tell(f"search with a shortlist of {n}", times)


def sizes(path: Path) -> None:
    """Bytes that a chunk's vector and code take in the file, by dim."""
    for dim in (128, 256, 512, 768, 1024, 2560, 4096):
        n, random = 10_000, np.random.default_rng(0)
        with Database.create(path, IndexSpace("made", "0" * 64, dim)) as database:
            database.put(None, [Chunk("x")] * n, finish(random.standard_normal((n, dim)).astype(np.float32)))
            bits = database.facts().code_bits
        of = _sizes(path)
        print(f"dim {dim}: vector {of['vectors'] / n:,.0f} bytes, code of {bits} bits {of['codes'] / n:,.0f} bytes")
        path.unlink()


def _sizes(path: Path) -> dict[str, float]:
    """What each kind of table takes, with its indexes."""
    import apsw

    kinds = ("vectors", "codes", "words", "chunks", "files")
    found: dict[str, float] = {}
    for name, n_bytes in apsw.Connection(str(path)).execute("SELECT name, sum(pgsize) FROM dbstat GROUP BY name"):
        kind = next((each for each in kinds if name.startswith(each) or f"_{each}_" in name), "other")
        found[kind] = found.get(kind, 0) + n_bytes
    return found


def _words(state: Snapshot, query: str) -> np.ndarray:
    return state.words(state.counted(terms_of(query)).found, K).rows


def _timed(
    questions: Vectors, search: Callable[[Vectors], np.ndarray]
) -> tuple[list[list[int]], list[tuple[float, float]]]:
    """What is found, and the milliseconds and the milliseconds of CPU of each."""
    found, times = [], []
    for question in questions:
        began, began_cpu = time.perf_counter(), time.process_time()
        rows = search(question)
        times.append((1000 * (time.perf_counter() - began), 1000 * (time.process_time() - began_cpu)))
        found.append(rows.tolist())
    return found, times


def _tell(what: str, times: list[tuple[float, float]]) -> None:
    (p50, cpu), (p95, _) = np.percentile(times, [50, 95], axis=0)
    print(f"{what}: p50 {p50:.1f} ms ({cpu:.1f} ms of CPU), p95 {p95:.1f} ms, {len(times)} searches", flush=True)


def _rss() -> float:
    return psutil.Process().memory_info().rss / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("make", "measure", "sweep", "sizes"))
    parser.add_argument("path", type=Path)
    parser.add_argument("-n", type=int, default=1_000_000)
    parser.add_argument("-d", "--dim", type=int, default=1024)
    options = parser.parse_args()
    if options.what == "make":
        make(options.path, options.n, options.dim)
    else:
        {"measure": measure, "sweep": sweep, "sizes": sizes}[options.what](options.path)


if __name__ == "__main__":
    main()
