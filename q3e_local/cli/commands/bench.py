"""`q3e-local bench`: prints what `q3e_local.checks.bench` measures."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from q3e_local.cli.computing.engine_options import EngineOptions, ModelCommand, engine_options, explained
from q3e_local.cli.computing.loading import in_use, load, load_reranker, locate
from q3e_local.cli.computing.model_options import any_model_option, offline_option
from q3e_local.cli.progress import is_shown, status
from q3e_local.cli.stopping import stopping_cleanly
from q3e_local.cli.terminal import say
from q3e_local.cli.writing.gpus import on_gpus
from q3e_local.cli.writing.show import print_boxed, print_json
from q3e_local.embedding.embedder import Embedder
from q3e_local.gguf.model_file import ModelInfo
from q3e_local.reranking.reranker import Reranker
from q3e_local.wording.counts import size

if TYPE_CHECKING:
    from q3e_local.checks.bench import Cell
    from q3e_local.checks.bench_reranker import RankCell


@click.command(cls=ModelCommand)
@any_model_option
@click.option(
    "--seconds", type=click.FloatRange(0), default=30, show_default=True, help="How long to measure, about."
)
@engine_options
@offline_option
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@click.option("-q", "--quiet", is_flag=True, help="No progress.")
def bench(model: str, seconds: float, engine: EngineOptions, offline: bool, as_json: bool, quiet: bool) -> None:
    """Measure how fast a model is on this machine.

    Texts of about 16, 128 and 2,048 tokens, one at a time and many in a call: tokens and texts a second, how long a
    single text takes, and the most memory used. Of a reranker: a question with 10 documents of about 64, 256 and
    1,024 tokens, in tokens and documents a second. Texts are made of the model's own vocabulary, the same in every
    run. Ctrl-C prints what was measured so far.
    """
    from q3e_local.checks.bench import about

    with stopping_cleanly():
        info = locate(model, offline, quiet).inspect()
    open_it = load_reranker if info.kind == "reranker" else load
    with stopping_cleanly(), explained(engine), in_use(open_it(model, offline, quiet, **engine.config)) as opened:
        cells: list[Any] = []
        facts, is_whole = about(opened, info), False
        try:
            with status("measuring", quiet, seconds):
                for cell in _cells(opened, info, seconds):
                    cells.append(cell)
                    if is_shown(quiet):
                        say(_line(cell))
            is_whole = True
        finally:
            # After Ctrl-C too: each cell is right by itself.
            if as_json:
                results = [asdict(cell) for cell in cells]
                print_json({**facts, "seconds": seconds, "complete": is_whole, "cells": results})
            else:
                _print(facts, cells)


def _cells(model: Embedder | Reranker, info: ModelInfo, seconds: float) -> Iterator[Cell | RankCell]:
    from q3e_local.checks import bench, bench_reranker

    texts = bench.Texts(info.path, model.engine.tokenize)
    if isinstance(model, Reranker):
        return bench_reranker.measure(model, texts, seconds)
    return bench.measure(model, texts, seconds)


def _line(cell: Any) -> str:
    what = f"{cell.size} texts, {cell.mode}" if hasattr(cell, "mode") else f"{cell.size} documents"
    return f"{what}: {cell.tokens_per_s:,.0f} tokens/s"


def _print(facts: dict[str, Any], cells: list[Any]) -> None:
    machine, versions, model, settings = (facts[part] for part in ("machine", "versions", "model", "settings"))
    click.echo(f"{model['name']} ({model['quantization']}, {size(model['size_bytes'])})")
    click.echo(
        f"{machine['cpu']}, {machine['cores']} cores, {settings['n_threads']} threads, "
        f"q3e-local {versions['q3e-local']}, llama-cpp-python {versions['llama-cpp-python']}"
    )
    for line in on_gpus(facts["placement"]):
        click.echo(line)
    kernels = facts["kernels"]
    click.echo(f"kernels {kernels['variant']} ({kernels['why']})")
    if model["kind"] == "reranker":
        headings = ["documents", "tokens", "in a\ncall", "tokens/s", "documents/s", "peak\nmemory"]
        print_boxed(headings, map(_rank_row, cells), n_left=1, padding=(0, 0, 0, 1))
    else:
        # Long headings take two lines, so that a terminal of 80 columns has room for all figures.
        times = ["p50 ms", "p90 ms", "p99 ms"]
        headings = ["texts", "tokens", "in a\ncall", "tokens/s", "texts/s", *times, "peak\nmemory"]
        print_boxed(headings, map(_row, cells), n_left=1, padding=(0, 0, 0, 1))
    taken = [sum(getattr(cell.kernels, kind) for cell in cells) for kind in ("products", "attentions")]
    click.echo("our kernels computed {:,} matrix products and {:,} attentions of it".format(*taken))
    for hint in kernels["faster"]:
        click.echo(f"for more speed, {hint}")


def _row(cell: Cell) -> list[str]:
    latency = cell.latency_ms or {}
    return [
        cell.size,
        f"{cell.tokens_per_text:,}",
        f"{cell.texts_per_call:,}",
        f"{cell.tokens_per_s:,.0f}",
        f"{cell.texts_per_s:,.2f}",
        *(f"{latency[name]:,.1f}" if name in latency else "" for name in ("p50", "p90", "p99")),
        size(cell.peak_bytes),
    ]


def _rank_row(cell: RankCell) -> list[str]:
    return [
        cell.size,
        f"{cell.tokens_per_document:,}",
        f"{cell.documents_per_call:,}",
        f"{cell.tokens_per_s:,.0f}",
        f"{cell.documents_per_s:,.2f}",
        size(cell.peak_bytes),
    ]
