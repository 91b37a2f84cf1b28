"""Time q3e-local beside `Llama.embed` of the same llama.cpp: same model file, same texts, in turn.

Each round is a process of its own for either side, so that peak memory is that side's alone; the ratio is taken
round by round, because a laptop's speed drifts. Prints a table; figures of one machine, to be read as ratios.

    python scripts/bench/against_llama_embed.py MODEL.gguf --rounds 3
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import click
import psutil

WORDS = "the meeting decided that next quarter budget grows because customers asked for faster search in notes"


def make_texts(n_texts: int, n_tokens: int) -> list[str]:
    """Texts of about `n_tokens` tokens in the real vocabulary, each different from the first word on."""
    words = WORDS.split()
    return [" ".join(words[(i * 7 + j * (i + 3)) % len(words)] for j in range(n_tokens - 1)) for i in range(n_texts)]


def run_q3e(model: Path, texts: list[str]) -> tuple[int, float]:
    """Tokens and seconds of the library, one call."""
    import q3e_local

    with q3e_local.load(model) as embedder:
        embedder.embed_documents(texts[:4])
        started = time.perf_counter()
        result = embedder.embed_documents(texts)
        return sum(result.prompt_tokens), time.perf_counter() - started


def run_llama(model: Path, texts: list[str]) -> tuple[int, float]:
    """Tokens and seconds of the binding's own class with its defaults, one call."""
    from llama_cpp import Llama

    llama = Llama(str(model), embedding=True, verbose=False)
    llama.embed(texts[:4])
    started = time.perf_counter()
    _, n_tokens = llama.embed(texts, return_count=True)
    return int(n_tokens), time.perf_counter() - started


SIDES = {"q3e-local": run_q3e, "Llama.embed": run_llama}


def peak_bytes() -> int:
    """Most memory this process ever held."""
    if sys.platform == "win32":
        return int(psutil.Process().memory_info().peak_wset)
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def one_round(side: str, model: Path, n_texts: int, n_tokens: int) -> dict[str, Any]:
    """Run a side in a process of its own."""
    command = [
        sys.executable,
        __file__,
        str(model),
        "--texts",
        str(n_texts),
        "--tokens",
        str(n_tokens),
        "--child",
        side,
    ]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    measured: dict[str, Any] = json.loads(lines[-1])
    return measured


@click.command()
@click.argument("model", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--texts", "n_texts", default=64, show_default=True, help="Texts in a round.")
@click.option("--tokens", "n_tokens", default=128, show_default=True, help="Tokens of a text, about.")
@click.option("--rounds", default=3, show_default=True, help="Rounds of either side, in turn.")
@click.option("--child", hidden=True, type=click.Choice(list(SIDES)))
def main(model: Path, n_texts: int, n_tokens: int, rounds: int, child: str | None) -> None:
    """Time q3e-local beside Llama.embed on MODEL."""
    if child is not None:
        tokens, seconds = SIDES[child](model, make_texts(n_texts, n_tokens))
        click.echo(json.dumps({"tokens_per_s": tokens / seconds, "peak": peak_bytes(), "tokens": tokens}))
        return
    found: dict[str, list[dict[str, Any]]] = {side: [] for side in SIDES}
    for _ in range(rounds):
        for side in SIDES:
            found[side].append(one_round(side, model, n_texts, n_tokens))
    click.echo(f"{model.name}: {n_texts} texts, {found['q3e-local'][0]['tokens']} tokens, {rounds} rounds in turn")
    for side, measured in found.items():
        speeds = [one["tokens_per_s"] for one in measured]
        peak = max(one["peak"] for one in measured) / 1e9
        spread = f"({min(speeds):.1f} to {max(speeds):.1f})"
        click.echo(f"  {side:<12} {statistics.median(speeds):7.1f} tokens/s {spread}, {peak:.2f} GB")
    ratios = [a["tokens_per_s"] / b["tokens_per_s"] for a, b in zip(*found.values(), strict=True)]
    click.echo(f"  ratio        {statistics.median(ratios):7.2f} ({min(ratios):.2f} to {max(ratios):.2f})")


if __name__ == "__main__":
    main()
