"""How fast a model is on this machine: short, medium and long texts, one at a time and many in a call.

Measures an Embedder, and says what it was measured on. Prints nothing; knows no other runtime.
"""

from __future__ import annotations

import os
import platform
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np

from q3e_local import __version__, machine
from q3e_local.embedding.embedder import Embedder
from q3e_local.errors import ModelFileError
from q3e_local.gguf.header import read_header
from q3e_local.gguf.model_file import ModelInfo
from q3e_local.llama.kernels.choice import Taken
from q3e_local.llama.settings.defaults import TUNABLE
from q3e_local.reranking.reranker import Reranker

if TYPE_CHECKING:
    from q3e_local.llama.engine import LlamaEngine

SIZES = {"short": 16, "medium": 128, "long": 2048}  # tokens of a text, end token included
_BATCH = {"short": 256, "medium": 64, "long": 4}  # texts in a call
_GAIN = {"short": 4, "medium": 2, "long": 1}  # how much faster a text may be in a call of many than alone
_LEAST = 64  # tokens of a long text, however slow the machine
_N_WORDS = 2000

Mode = Literal["single", "batched"]
MakeTexts = Callable[[int, int], list[str]]
"""`make(n_texts, n_tokens)`: texts of exactly so many tokens, end token included, which no earlier call made."""


@dataclass(frozen=True)
class Cell:
    """A size of text in a mode. Latencies are those of a single text; memory is the process's peak so far."""

    size: str
    mode: Mode
    tokens_per_text: int
    texts_per_call: int
    n_texts: int
    n_tokens: int
    seconds: float
    tokens_per_s: float
    texts_per_s: float
    latency_ms: dict[str, float] | None  # p50, p90, p99
    peak_bytes: int
    kernels: Taken  # what our kernels computed of it


def about(model: Embedder | Reranker, info: ModelInfo) -> dict[str, Any]:
    """The machine, the versions, the model and the settings that figures belong to."""
    from q3e_local.llama import binding

    engine = _engine(model)
    return {
        "machine": {
            "cpu": machine.cpu_name(),
            "cores": machine.physical_cores(),
            "cpus": os.cpu_count(),
            "memory_bytes": machine.total_memory(),
            "system": f"{platform.system()} {platform.release()}, {platform.machine()}",
            "features": binding.system_info(),
        },
        "versions": {
            "q3e-local": __version__,
            "llama-cpp-python": version("llama-cpp-python"),
            "numpy": np.__version__,
            "python": platform.python_version(),
        },
        "model": {
            "name": model.model,
            "kind": info.kind,
            "quantization": info.quantization,
            "size_bytes": info.size_bytes,
            "digest": info.digest,
        },
        "settings": {
            **{name: getattr(engine.settings, name) for name in TUNABLE},
            "n_seq_max": engine.n_seq_max,
            "n_gpu_layers": engine.placement.n_on_gpu,
            "tap": engine.tap,
        },
        "placement": engine.placement.fields(),
        "kernels": engine.kernels.fields(),
    }


def measure(
    embedder: Embedder, make: MakeTexts, budget_s: float, clock: Callable[[], float] = time.perf_counter
) -> Iterator[Cell]:
    """Yield a cell for each size and mode as it is done, in about `budget_s` in all.

    Each cell makes at least one call. Where its share of the budget is too small, long texts are shorter, and calls
    have fewer texts.
    """
    embedder.embed_documents(make(2, SIZES["short"]))  # the first call makes buffers
    ends = clock() + budget_s
    n_left, speed = 2 * len(SIZES), 0.0
    for size, n_tokens in SIZES.items():
        n_tokens = min(n_tokens, embedder.engine.n_ctx_max)
        for mode in ("single", "batched"):
            share_s = max(0.0, ends - clock()) / n_left
            if speed and size == "long":
                n_tokens = max(_LEAST, min(n_tokens, int(speed * share_s)))
            n_call = 1
            if mode == "batched":
                n_call = max(2, min(_BATCH[size], int(_GAIN[size] * speed * share_s / n_tokens)))
            cell = _measured(embedder, make, size, n_tokens, mode, n_call, share_s, clock)
            n_left, speed = n_left - 1, cell.tokens_per_s
            yield cell


def _measured(
    embedder: Embedder,
    make: MakeTexts,
    size: str,
    n_tokens: int,
    mode: Mode,
    n_call: int,
    share_s: float,
    clock: Callable[[], float],
) -> Cell:
    """Calls of `n_call` texts until the share is used up."""
    calls: list[float] = []
    done = 0
    before = _engine(embedder).kernels_taken
    ends = clock() + share_s
    while not calls or clock() + calls[-1] <= ends:
        texts = make(n_call, n_tokens)
        began = clock()
        result = embedder.embed_documents(texts)
        calls.append(clock() - began)
        done += sum(result.prompt_tokens)
    seconds, n_texts = sum(calls), n_call * len(calls)
    latency = None
    if mode == "single":
        quantiles = np.quantile(calls, [0.5, 0.9, 0.99]) * 1000
        latency = dict(zip(("p50", "p90", "p99"), quantiles.tolist(), strict=True))
    return Cell(
        size=size,
        mode=mode,
        tokens_per_text=n_tokens,
        texts_per_call=n_call,
        n_texts=n_texts,
        n_tokens=done,
        seconds=seconds,
        tokens_per_s=done / seconds,
        texts_per_s=n_texts / seconds,
        latency_ms=latency,
        peak_bytes=_engine(embedder).peak_bytes,
        kernels=_engine(embedder).kernels_taken.since(before),
    )


def _engine(model: Embedder | Reranker) -> LlamaEngine:
    # On a GPU it is one in a process of its own, which says the same of itself.
    return cast("LlamaEngine", model.engine)


class Texts:
    """Texts of exact token counts, made of words of a model's own vocabulary. The same seed gives the same texts."""

    def __init__(self, path: Path, tokenize: Callable[[str], list[int]], seed: int = 0) -> None:
        self._tokenize, self._random = tokenize, random.Random(seed)  # noqa: S311
        words = _words(path)
        self._n_tokens = {word: len(tokenize(f" {word}")) for word in words}
        self._first = [word for word in words if len(tokenize(word)) == 1]
        # Where a space is a token by itself, a word costs two: a full stop takes a single one that is left.
        self._others = [word for word in words if self._n_tokens[word] == 1] or words
        if not self._first:
            raise ModelFileError(f"{path} has no vocabulary to make texts of")

    def __call__(self, n_texts: int, n_tokens: int, *, spaced: bool = False) -> list[str]:
        """Texts of `n_tokens`, end token included; `spaced` ones begin with a space, to go after a prompt."""
        return [self._text(n_tokens - 1, spaced) for _ in range(n_texts)]

    def _text(self, n_tokens: int, spaced: bool) -> str:
        pieces: list[str] = []
        left = n_tokens
        if not spaced and left:
            pieces.append(self._random.choice(self._first))
            left -= 1
        while left > 0:
            word = self._random.choice(self._others)
            if self._n_tokens[word] <= left:
                pieces.append(f" {word}")
                left -= self._n_tokens[word]
            elif left == 1:
                pieces.append(".")
                left = 0
        text = "".join(pieces)
        if (got := len(self._tokenize(text))) != n_tokens:
            raise ModelFileError(f"{text[:60]!r} has {got} tokens where {n_tokens} were to be made")
        return text


def _words(path: Path) -> list[str]:
    """Words of lower-case letters; those alone that are also tokens with a space before them, if there are any."""
    tokens = read_header(path).tokens
    spaced: list[str] = []
    bare: list[str] = []
    for text in map(tokens.__getitem__, range(len(tokens))):
        word = text.removeprefix("Ġ")  # how byte-level BPE writes a space
        if len(word) >= 3 and word.isascii() and word.isalpha() and word.islower():
            (bare if text == word else spaced).append(word)
    both = set(bare)
    return ([word for word in spaced if word in both] or bare)[:_N_WORDS]
