"""Time reranking beside llama-server on the same file: candidates a second, in turns.

A question and documents of one length, new ones each round; both read the same prompts. llama-server is tried with
each set of FLAGS, and its best is what counts. Needs a reranker that llama-server can run, with a head and a
template, such as make_synthetic.py --reranker writes. Figures of one machine, to be read as ratios.

    python scripts/bench/rerank.py --model synth-reranker-0.6b.gguf --llama-server llama.cpp/build/bin/llama-server
"""

from __future__ import annotations

import http.client
import json
import random
import socket
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from q3e_local.embedding.engine import EngineConfig
from q3e_local.llama.engine import LlamaEngine
from q3e_local.reranking.reranker import Reranker

WORDS = [
    "the",
    "meeting",
    "decided",
    "that",
    "next",
    "quarter",
    "budget",
    "grows",
    "because",
    "customers",
    "asked",
    "for",
    "faster",
    "search",
    "in",
    "notes",
]
# A document is a task of llama-server's, and as many tasks as it has slots share a batch.
FLAGS = {
    "defaults": "-b 2048 -ub 2048",
    "no repacking": "--no-repack -fa on -b 2048 -ub 2048",
    "1 slot": "--no-repack -fa on -np 1 -b 512 -ub 512 -c 2048",
    "8 slots": "--no-repack -fa on -np 8 -kvu -b 2048 -ub 2048 -c 8192",
    "20 slots": "--no-repack -fa on -np 20 -kvu -b 4096 -ub 4096 -c 16384",
    "20 slots, small batches": "--no-repack -fa on -np 20 -kvu -b 512 -ub 512 -c 16384",
}
START_S = 120

Rank = Callable[[str, list[str]], Any]


def texts(reranker: Reranker, n_documents: int, n_tokens: int, seed: int) -> tuple[str, list[str]]:
    """A question of a dozen words, and documents of about `n_tokens` tokens of this model, none like another."""
    rng = random.Random(seed)
    n_words = n_tokens
    while True:
        document = " ".join(rng.choice(WORDS) for _ in range(n_words))
        n_found = len(reranker.engine.tokenize(document))
        if abs(n_found - n_tokens) <= n_tokens // 20:
            break
        n_words = max(1, n_words * n_tokens // n_found)
    documents = [" ".join(rng.choice(WORDS) for _ in range(n_words)) for _ in range(n_documents)]
    return " ".join(rng.choice(WORDS) for _ in range(12)), documents


@contextmanager
def llama_server(program: Path, model: Path, flags: str, n_threads: int) -> Iterator[Rank]:
    """A running llama-server: what ranks on it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [program, "-m", model, "--rerank", "--host", "127.0.0.1", "--port", str(port), "-t", str(n_threads)]
    process = subprocess.Popen(
        [*command, *flags.split()], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )  # fmt: skip
    try:
        until = time.monotonic() + START_S
        while ask(port, "GET", "/health")[0] != 200:
            if process.poll() is not None or time.monotonic() > until:
                raise click.ClickException(f"llama-server did not start with {flags}")
            time.sleep(0.2)

        def rank(query: str, documents: list[str]) -> Any:
            status, answer = ask(port, "POST", "/rerank", {"query": query, "documents": documents})
            if status != 200:
                raise click.ClickException(f"llama-server answered {status}: {answer}")
            return answer

        yield rank
    finally:
        process.kill()
        process.wait()


def ask(port: int, method: str, path: str, body: Any = None) -> tuple[int, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=600)
    try:
        connection.request(method, path, None if body is None else json.dumps(body))
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())
    except OSError:
        return 0, None
    finally:
        connection.close()


@click.command()
@click.option("--model", type=click.Path(path_type=Path, exists=True), required=True, help="A reranker's GGUF.")
@click.option("--llama-server", "program", type=click.Path(path_type=Path, exists=True), required=True)
@click.option("--documents", "n_documents", default=20, show_default=True)
@click.option("--tokens", "n_tokens", default=256, show_default=True, help="Of a document.")
@click.option("--rounds", default=3, show_default=True)
@click.option("--threads", "n_threads", default=2, show_default=True)
def main(model: Path, program: Path, n_documents: int, n_tokens: int, rounds: int, n_threads: int) -> None:
    """Time reranking beside llama-server."""
    engine = LlamaEngine(model, EngineConfig(n_threads=n_threads))
    with Reranker(engine, model.stem) as reranker:
        tried: dict[str, float] = {}
        for name, flags in FLAGS.items():
            with llama_server(program, model, flags, n_threads) as rank:
                rank(*texts(reranker, 2, 32, seed=0))
                tried[name] = n_documents / timed(rank, *texts(reranker, n_documents, n_tokens, seed=1))
            click.echo(f"llama-server, {name}: {tried[name]:.2f} candidates/s ({flags})", err=True)
        best = max(tried, key=tried.__getitem__)
        ours, theirs = [], []
        with llama_server(program, model, FLAGS[best], n_threads) as rank:
            rank(*texts(reranker, 2, 32, seed=0))
            reranker.rank(*texts(reranker, 2, 32, seed=0))
            before = engine.counts
            for number in range(rounds):
                question = texts(reranker, n_documents, n_tokens, seed=2 + number)
                ours.append(n_documents / timed(reranker.rank, *question))
                theirs.append(n_documents / timed(rank, *question))
            after = engine.counts
    click.echo(
        f"{n_documents} documents of {n_tokens} tokens, {rounds} rounds in turn, {n_threads} threads, {model.name}"
    )
    ratios = [one / other for one, other in zip(ours, theirs, strict=True)]
    for what, figures in (("q3e-local", ours), (f"llama-server, {best}", theirs), ("ratio", ratios)):
        unit = "" if figures is ratios else " candidates/s"
        click.echo(f"{what:<38s}{statistics.median(figures):6.2f}{unit} ({min(figures):.2f} to {max(figures):.2f})")
    n_computed, n_reused = after.n_tokens - before.n_tokens, after.n_reused - before.n_reused
    click.echo(f"{n_computed:,} tokens computed, {n_reused:,} of the shared part spared")


def timed(work: Rank, query: str, documents: list[str]) -> float:
    began = time.perf_counter()
    work(query, documents)
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
