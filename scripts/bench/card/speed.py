"""Speeds on a card: this project with batches of a size, with flash attention or without; llama-server.

Yields a row for each round, or a row that says why there is none.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from card.plan import n_texts
from card.timing import timed
from q3e_local.checks.bench import Texts
from q3e_local.embedding.embedder import Embedder
from q3e_local.embedding.engine import EngineConfig
from q3e_local.errors import Q3EError
from q3e_local.llama import binding
from q3e_local.llama.engine import LlamaEngine

Row = dict[str, Any]
_N_BATCH = 1_024  # of llama-server
_SERVER_ROUNDS = 3


def ours(options: Row) -> Iterator[Row]:
    """With tokenizing, as a program calls it."""
    _force_flash_attention(on=options["flash"])
    n_batch = options["n_batch"]
    runtime = f"q3e-local, {n_batch:,}{'' if options['flash'] else ', no flash attention'}"
    config = EngineConfig(device=options["device"], n_batch=n_batch)
    path = Path(options["path"])
    with LlamaEngine(path, config) as engine:
        embedder, make = Embedder(engine, options["model"]), Texts(path, engine.tokenize, seed=n_batch)

        def measure(n_texts: int, n_tokens: int) -> list[float]:
            return timed(embedder.embed_documents, lambda: make(n_texts, n_tokens))

        yield from measured(options, runtime, n_batch, engine.n_ctx_max, measure)


def llama_server(options: Row) -> Iterator[Row]:
    """On the same file, all layers on the card. It tokenizes too, and answers over HTTP."""
    from comparison.contenders import DiedError, Server
    from comparison.workloads import Given, Workload

    path, work = Path(options["path"]), Path(options["work"])
    made = _made(path, options["lengths"], 1 + _SERVER_ROUNDS)
    for length in options["lengths"]:
        n_batch = max(_N_BATCH, length)
        flags = [
            "--embedding",
            "--pooling",
            "last",
            "-ngl",
            "99",
            "-fa",
            "on",
            "-b",
            str(n_batch),
            "-ub",
            str(n_batch),
        ]
        command = [options["llama_server"], "-m", str(path), *flags, "-c", str(4 * n_batch), "-np", "4", "-kvu"]
        server = Server(command, options["model"], work)
        workload = Workload(str(length), length, 0)
        try:
            server.start()

            def measure(
                n_texts: int, n_tokens: int, server: Server = server, workload: Workload = workload
            ) -> list[float]:
                of_length = made[n_tokens]
                rounds = [Given(texts, [], None) for texts in of_length["one" if n_texts == 1 else "many"]]
                return [server.measure(given, workload).seconds for given in rounds][1:]

            yield from measured(options | {"lengths": [length]}, "llama-server", _N_BATCH, 1 << 20, measure)
        except (DiedError, OSError, RuntimeError) as error:
            yield _row(options, "llama-server", length, why=str(error))
        finally:
            server.stop()


def write_texts(options: Row) -> Iterator[Row]:
    """The texts for a Python that has none of this, by length and mode."""
    made = _made(Path(options["path"]), options["lengths"], 1)
    texts = {length: {mode: rounds[0] for mode, rounds in of_length.items()} for length, of_length in made.items()}
    path = Path(options["work"]) / f"{options['model']}-texts.json"
    path.write_text(json.dumps(texts), encoding="utf-8")
    yield {"kind": "texts", "path": str(path)}


def modes(n_tokens: int, n_batch: int) -> list[tuple[str, int]]:
    """A text alone, and so many in a call; of long texts alone, as several of them gain nothing."""
    n = n_texts(n_tokens, n_batch)
    return [("one", 1), ("many", n)] if n > 1 else [("one", 1)]


def measured(
    options: Row,
    runtime: str,
    n_batch: int,
    n_ctx_max: int,
    measure: Callable[[int, int], list[float]],
) -> Iterator[Row]:
    """A row for each round of each length and mode. What fails is a row too, and the next length is tried.

    `measure(n_texts, n_tokens)` gives the seconds of rounds, none of which has a text of another.
    """
    for length in options["lengths"]:
        if length > n_ctx_max:
            yield _row(options, runtime, length, why=f"the model takes {n_ctx_max:,} tokens")
            continue
        for mode, n in modes(length, n_batch):
            try:
                for seconds in measure(n, length):
                    yield _row(options, runtime, length, mode=mode, texts=n, seconds=seconds)
            except Q3EError as error:
                yield _row(options, runtime, length, why=str(error))


def _made(path: Path, lengths: list[int], n_rounds: int) -> dict[int, dict[str, list[list[str]]]]:
    """Texts by length and mode, for each round others: a server may have a cache.

    They are made before the runtime starts, which has the card to itself.
    """
    with LlamaEngine(path, EngineConfig(n_gpu_layers=0, n_batch=64)) as engine:
        make = Texts(path, engine.tokenize, seed=7)
        return {
            length: {mode: [make(n, length) for _ in range(n_rounds)] for mode, n in modes(length, _N_BATCH)}
            for length in lengths
        }


def _row(options: Row, runtime: str, tokens: int, **others: Any) -> Row:
    return {"kind": "speed", "model": options["model"], "runtime": runtime, "tokens": tokens, **others}


def _force_flash_attention(*, on: bool) -> None:
    """llama.cpp decides by itself on a GPU; to compare, contexts get the one or the other."""
    make = binding.lib.llama_init_from_model
    kind = binding.lib.LLAMA_FLASH_ATTN_TYPE_ENABLED if on else binding.lib.LLAMA_FLASH_ATTN_TYPE_DISABLED

    def made(model: Any, params: Any) -> Any:
        params.flash_attn_type = kind
        return make(model, params)

    binding.lib.llama_init_from_model = made
