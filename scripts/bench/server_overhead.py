"""Time the server beside the library: what a request costs above the engine, and many clients beside one batch.

The overhead is taken on the demo model: a text over HTTP less the same text in the library, in turn, a few at a
time. The throughput is taken on MODEL, where a text costs something: 64 clients that each send one text after the
other, beside one call of the library with texts of the same sizes, in turn, as a laptop's speed drifts. The server
is a child on a free port, and so are the clients, whose work is not the server's. Prints a table; figures of one
machine, to be read as ratios.

    python scripts/bench/server_overhead.py --model MODEL.gguf
"""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import click

import q3e_local
from q3e_local import Embedder
from q3e_local.models.installed import locate

WORDS = "the meeting decided that next quarter budget grows because customers asked for faster search in notes"
N_CLIENTS = 64
WARM_UP = 20  # requests and calls that are not counted
TRIES = 3
BLOCK = 20


def make_texts(n_texts: int, n_words: int, seed: int) -> list[str]:
    """Texts of about a token a word in the real vocabulary; none is another's, whatever the seed.

    None begins as another does either: one call of the library would compute that once, single requests cannot.
    """
    words = WORDS.split()
    return [
        f"{i} {seed} " + " ".join(words[(i * 7 + j * (i + 3)) % len(words)] for j in range(n_words - 4))
        for i in range(n_texts)
    ]


@contextmanager
def server(model: str) -> Iterator[int]:
    """`q3e-local serve` with this model loaded: its port."""
    command = [sys.executable, "-m", "q3e_local", "serve", "-m", model, "--host", "127.0.0.1", "--port", "0"]
    command.append("--no-cache")  # what is measured is computing
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("Q3E_", "OLLAMA_"))}
    environment |= {name: os.environ[name] for name in ("Q3E_HOME",) if name in os.environ}
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
    assert process.stderr is not None
    said = []
    with process, ThreadPoolExecutor(1) as pool:
        try:
            for line in process.stderr:
                said.append(line)
                if line.startswith("try: "):
                    break
            found = re.search(r" listens on http://127\.0\.0\.1:(\d+)$", "".join(said), re.MULTILINE)
            if found is None:
                raise click.ClickException("the server did not start:\n" + "".join(said))
            pool.submit(process.stderr.read)  # its log has to go somewhere
            yield int(found[1])
        finally:
            process.terminate()


def request_of(model: str, text: str) -> bytes:
    return json.dumps({"model": model, "input": text}).encode()


def overheads_ms(n_requests: int) -> list[tuple[float, float]]:
    """Milliseconds over HTTP and in the library, of each text, the best of TRIES on either side."""
    pairs = []
    with server("demo") as port, q3e_local.load("demo") as embedder:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)

        def over_http(text: str) -> None:
            connection.request("POST", "/api/embed", request_of("demo", text))
            answer = connection.getresponse()
            answer.read()
            if answer.status != 200:
                raise click.ClickException(f"the server answered {answer.status}")

        sides = (over_http, lambda text: embedder.embed_documents([text]))
        texts = make_texts(WARM_UP + n_requests, 20, 0)
        for first in range(0, len(texts), BLOCK):
            # Not text by text: the threads of the side that is done wait busily for a moment, on the other's cores.
            best = {(side, text): float("inf") for side in (0, 1) for text in texts[first : first + BLOCK]}
            # The best of a few, as another program's turn on a core costs more than what is measured.
            for _ in range(TRIES):
                for side, text in best:
                    began = time.perf_counter()
                    sides[side](text)
                    best[side, text] = min(best[side, text], (time.perf_counter() - began) * 1e3)
            pairs += [(best[0, text], best[1, text]) for text in texts[first : first + BLOCK]]
        connection.close()
    return pairs[WARM_UP:]


async def ask_all(port: int, model: str, texts: list[str]) -> float:
    """Seconds until all texts are answered, by clients that each have a connection of their own."""
    left = iter(texts)

    async def client() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for text in left:
            body = request_of(model, text)
            head = f"POST /api/embed HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
            writer.write(head.encode() + body)
            answer = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
            if not answer.startswith("http/1.1 200 "):
                raise click.ClickException(f"the server answered {answer.splitlines()[0]}")
            length = re.search(r"^content-length: (\d+)", answer, re.MULTILINE)
            assert length is not None
            await reader.readexactly(int(length[1]))
        writer.close()

    began = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(N_CLIENTS)))
    return time.perf_counter() - began


def ask_in_child(port: int, model: str, n_texts: int, n_words: int, seed: int) -> float:
    """The same, by a process of its own, so that the clients' work is not done by the one that has the library."""
    command = [sys.executable, __file__, "--texts", str(n_texts), "--words", str(n_words)]
    command += ["--child", json.dumps([port, model, seed])]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def throughputs(model: Path, n_texts: int, n_words: int, rounds: int) -> list[tuple[float, float, int]]:
    """Texts a second of the clients and of the library, in each round, and tokens of its texts."""
    name = locate(model).name
    found = []
    with server(str(model)) as port, q3e_local.load(model) as embedder:
        ask_in_child(port, name, WARM_UP, n_words, 9000)
        embedder.embed_documents(make_texts(WARM_UP, n_words, 9001))
        for number in range(rounds):
            # Whoever goes first in a round, goes second in the next.
            sides = [
                lambda number=number: ask_in_child(port, name, n_texts, n_words, 2 * number),
                lambda number=number: embed_all(embedder, make_texts(n_texts, n_words, 2 * number + 1)),
            ]
            seconds = [0.0, 0.0]
            for side in ((0, 1), (1, 0))[number % 2]:
                seconds[side] = sides[side]()
            n_tokens = sum(len(embedder.engine.tokenize(text)) + 1 for text in make_texts(n_texts, n_words, 0))
            found.append((n_texts / seconds[0], n_texts / seconds[1], n_tokens))
    return found


def embed_all(embedder: Embedder, texts: list[str]) -> float:
    began = time.perf_counter()
    embedder.embed_documents(texts)
    return time.perf_counter() - began


def spread(values: list[float], unit: str) -> str:
    """The median, and between what."""
    return f"{statistics.median(values):8.2f} {unit} ({min(values):.2f} to {max(values):.2f})"


@click.command()
@click.option(
    "--model", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Model for the throughput."
)
@click.option("--requests", default=300, show_default=True, help="Requests for the overhead.")
@click.option("--texts", default=192, show_default=True, help="Texts in a round of the throughput.")
@click.option("--words", default=28, show_default=True, help="Words of a text, about a token each.")
@click.option("--rounds", default=4, show_default=True, help="Rounds of either side, in turn.")
@click.option("--child", hidden=True)
def main(model: Path | None, requests: int, texts: int, words: int, rounds: int, child: str | None) -> None:
    """Time the server beside the library; without --model only its overhead, on the demo model."""
    if child is not None:
        port, name, seed = json.loads(child)
        click.echo(asyncio.run(ask_all(port, name, make_texts(texts, words, seed))))
        return
    pairs = overheads_ms(requests)
    over_http, in_library = ([pair[side] for pair in pairs] for side in (0, 1))
    click.echo(f"demo: {requests} requests of one text, one after the other")
    click.echo(f"  over HTTP    {spread(over_http, 'ms')}")
    click.echo(f"  library      {spread(in_library, 'ms')}")
    click.echo(f"  overhead     {spread([a - b for a, b in pairs], 'ms')}")
    if model is None:
        return
    found = throughputs(model, texts, words, rounds)
    click.echo(f"{model.name}: {texts} texts, {found[0][2]} tokens, {rounds} rounds in turn")
    click.echo(f"  {N_CLIENTS} clients   {spread([clients for clients, _, _ in found], 'texts/s')}")
    click.echo(f"  library      {spread([library for _, library, _ in found], 'texts/s')}")
    click.echo(f"  ratio        {spread([clients / library for clients, library, _ in found], '')}")


if __name__ == "__main__":
    main()
