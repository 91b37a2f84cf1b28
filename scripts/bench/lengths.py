"""The curve over the length of a text: tokens a second of one text at a time, up to 32,768 tokens.

At each length the settings of this machine and those that are named have turns on the same texts. Every figure is
kept at once: the same command goes on where it was interrupted, and adds lengths, settings and rounds that are
missing.

    python scripts/bench/lengths.py --model synth-0.6b.gguf --with plain-f16-512 --with flash-f16-1024

Writes OUTPUT (JSON, all raw figures), and beside it a table (.md) and a plot (.png, needs the extra `bench`).
"""

from __future__ import annotations

import json
import os
import re
import statistics
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

import q3e_local
from q3e_local.bench import Texts, about
from q3e_local.cli.stopping import stopping_cleanly
from q3e_local.embedder import Embedder
from q3e_local.errors import NotEnoughMemoryError
from q3e_local.llama.engine import LlamaEngine
from q3e_local.tuning import LONG, Reason, Settings

LENGTHS = "128,512,1024,2048,4096,8192,16384,32768"
ONCE = 8192  # tokens of a text from which on a single round tells enough, minutes each
CHOSEN = "chosen"  # what this project runs with on this machine
_OTHER = re.compile(r"(flash|plain)-(f16|bf16)-(\d+)")
_GIVEN = Reason("given", "given")


def other(label: str, settings: Settings) -> Settings:
    """The settings that a name such as `plain-bf16-512` means for long texts: attention, type of KV, piece."""
    found = _OTHER.fullmatch(label)
    if found is None:
        raise click.BadParameter(f"{label!r} is not like flash-f16-512 or plain-bf16-1024")
    attention, kv_type, n_tokens = found.groups()
    for name, value in zip(LONG, (attention == "flash", kv_type, int(n_tokens)), strict=True):
        settings = settings.changed(name, value, _GIVEN)
    return settings


def numbers(_context: click.Context, _option: click.Parameter, value: str) -> list[int]:
    """Lengths as they are given, in order."""
    found = value.replace(" ", "").split(",")
    if not all(one.isdecimal() and int(one) for one in found):
        raise click.BadParameter(f"{value!r} is not like {LENGTHS}: tokens of a text, with commas between")
    return sorted({int(one) for one in found})


class Curve:
    """The figures in OUTPUT, and a model that adds to them."""

    def __init__(self, path: Path, embedder: Embedder, engine: LlamaEngine, output: Path) -> None:
        self.output, self.found = output, read(output)
        self._embedder, self._engine, self._path = embedder, engine, path
        self._before = engine.settings
        model = self.found.setdefault("model", {"name": path.stem, "digest": engine.digest})
        if model["digest"] != engine.digest:
            raise click.ClickException(f"{output} is of another model, {model['name']}; give another --output")
        here = about(embedder, path) | {"began": datetime.now(UTC).isoformat(timespec="seconds")}
        self.found["runs"].append(here)

    def measure(self, length: int, labels: Sequence[str], n_rounds: int) -> None:
        """All that is missing at a length, all labels in turn. Those without memory are left out."""
        cell = self.found["lengths"].setdefault(str(length), {})
        if length <= self._engine.n_batch:
            labels = labels[:1]  # a batch: the settings of long texts do not matter
        for number in range(n_rounds):
            texts = Texts(self._path, self._engine.tokenize, seed=number * 1_000_000 + length)
            text, *_ = texts(1, length)
            vectors: dict[str, NDArray[np.float32]] = {}
            order = labels if number % 2 == 0 else labels[::-1]
            for label in [one for one in order if len(cell.setdefault(one, [])) <= number]:
                try:
                    seconds, vectors[label] = self._timed(label, text, texts if number == 0 else None)
                except NotEnoughMemoryError as error:
                    tell(f"  {label}: left out: {error}")
                    continue
                cell[label].append(
                    {"run": len(self.found["runs"]) - 1, "seconds": seconds, "tokens_per_s": length / seconds}
                )
                write(self.output, self.found)
                tell(f"  {length:,} tokens, {label}: {length / seconds:,.1f} tokens/s")
            if CHOSEN in vectors:
                for label, vector in vectors.items():
                    cell[label][-1]["cosine"] = float(vector @ vectors[CHOSEN])
                write(self.output, self.found)

    def _timed(self, label: str, text: str, warm: Texts | None) -> tuple[float, NDArray[np.float32]]:
        settings = self._before if label == CHOSEN else other(label, self._before)
        self._engine.use(settings)
        if warm is not None:  # weights are read in, and a processor that slept is awake
            self._embedder.embed_documents(warm(1, 64))
        began = time.perf_counter()
        result = self._embedder.embed_documents([text])
        return time.perf_counter() - began, result.vectors[0]


def read(path: Path) -> dict[str, Any]:
    """What was measured before, or nothing yet."""
    if not path.exists():
        return {"runs": [], "lengths": {}}
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def write(path: Path, found: dict[str, Any]) -> None:
    """Whole or not at all."""
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    partial.write_text(json.dumps(found, indent=1), encoding="utf-8")
    partial.replace(path)


def curves(found: dict[str, Any]) -> dict[str, dict[int, float]]:
    """Of each label the median speeds by length, in order."""
    lengths = {int(length): cell for length, cell in found["lengths"].items()}
    speeds: dict[str, dict[int, float]] = {}
    for length, cell in sorted(lengths.items()):
        for label, rounds in cell.items():
            if rounds:
                median = statistics.median(one["tokens_per_s"] for one in rounds)
                speeds.setdefault(label, {})[length] = median
    return speeds


def markdown(found: dict[str, Any]) -> str:
    """A row for each length; beside the speed of others its ratio to what is chosen."""
    speeds = curves(found)
    lengths = sorted({length for of_label in speeds.values() for length in of_label})
    lines = [f"| tokens | {' | '.join(speeds)} |", "|---" * (len(speeds) + 1) + "|"]
    for length in lengths:
        cells = []
        for label, of_label in speeds.items():
            text = f"{of_label[length]:,.0f}" if length in of_label else ""
            if text and label != CHOSEN and (base := speeds[CHOSEN].get(length)):
                text += f" ({of_label[length] / base:.2f})"
            cells.append(text)
        lines.append(f"| {length:,} | {' | '.join(cells)} |")
    lines.append("")
    for label in speeds:
        cosines = [
            one["cosine"] for cell in found["lengths"].values() for one in cell.get(label, []) if "cosine" in one
        ]
        if label != CHOSEN and cosines:
            lines.append(f"- {label}: cosine to {CHOSEN} {min(cosines):.5f} or more")
    for run in found["runs"]:
        machine, settings = run["machine"], json.dumps(run["settings"])
        lines.append(
            f"- {run['began']}: {found['model']['name']}, {machine['cpu']}, {machine['cores']} cores; "
            f"{CHOSEN}: `{settings}`"
        )
    return "\n".join(lines) + "\n"


def plot(found: dict[str, Any], path: Path) -> None:
    """A line for each label. Needs matplotlib."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, panel = plt.subplots(figsize=(8, 4.5), layout="constrained")
    for label, of_label in curves(found).items():
        width = 2.5 if label == CHOSEN else 1.2
        panel.plot(list(of_label), list(of_label.values()), marker="o", markersize=4, lw=width, label=label)
    lengths = sorted(int(length) for length in found["lengths"])
    panel.set_xscale("log", base=2)
    panel.set_xticks(lengths, [f"{length:,}" for length in lengths], fontsize=8)
    panel.set_ylim(bottom=0)
    panel.set_xlabel("tokens of the text")
    panel.set_ylabel("tokens/s")
    panel.set_title(found["model"]["name"])
    panel.spines[["top", "right"]].set_visible(False)
    panel.grid(axis="y", alpha=0.3)
    panel.legend(fontsize=8, frameon=False)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def tell(line: str) -> None:
    click.echo(line, err=True)


@click.command()
@click.option("--model", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="A model file.")
@click.option(
    "--lengths", default=LENGTHS, show_default=True, callback=numbers, help="Tokens of a text, with commas between."
)
@click.option(
    "--with", "others", multiple=True, help="Settings of long texts to measure too, such as plain-bf16-1024."
)
@click.option("--rounds", default=3, show_default=True, help=f"Texts of each length; one from {ONCE:,} tokens on.")
@click.option(
    "--output", type=click.Path(path_type=Path), default=Path("lengths.json"), show_default=True, help="Results."
)
def main(model: Path | None, lengths: list[int], others: tuple[str, ...], rounds: int, output: Path) -> None:
    """Measure a --model; without one, make table and plot of what is in OUTPUT."""
    if model is not None:
        with stopping_cleanly(), q3e_local.load(model) as embedder:
            engine = embedder.engine
            assert isinstance(engine, LlamaEngine)
            for label in others:
                other(label, engine.settings)
            curve = Curve(model, embedder, engine, output)
            for length in lengths:
                if length > engine.n_ctx_max:
                    tell(f"  {length:,} tokens: left out: the model takes {engine.n_ctx_max:,}")
                    continue
                curve.measure(length, [CHOSEN, *others], 1 if length >= ONCE else rounds)
    found = read(output)
    if model is None and not found["lengths"]:
        raise click.UsageError(f"nothing is measured in {output} yet; give a --model")
    table = markdown(found)
    output.with_suffix(".md").write_text(table, encoding="utf-8")
    click.echo(table, nl=False)
    try:
        plot(found, output.with_suffix(".png"))
    except ImportError:
        tell("no plot: pip install 'q3e-local[bench]'")


if __name__ == "__main__":
    main()
