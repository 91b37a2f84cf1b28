"""The curve over the length of a text: tokens a second of one text at a time, up to 32,768 tokens.

Every figure is kept at once: the same command goes on where it was interrupted, and adds lengths and rounds that are
missing.

    python scripts/bench/lengths.py --model synth-0.6b.gguf

Writes OUTPUT (JSON, all raw figures), and beside it a table (.md) and a plot (.png, needs the extra `bench`).
"""

from __future__ import annotations

import json
import statistics
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

import q3e_local
from q3e_local.checks.bench import Texts, about
from q3e_local.cli.stopping import stopping_cleanly
from q3e_local.embedding.embedder import Embedder
from q3e_local.errors import NotEnoughMemoryError
from q3e_local.files import land
from q3e_local.gguf.model_file import inspect
from q3e_local.llama.engine import LlamaEngine

LENGTHS = "128,512,1024,2048,4096,8192,16384,32768"
ONCE = 8192  # tokens of a text from which on a single round tells enough, minutes each


def numbers(_context: click.Context, _option: click.Parameter, value: str) -> list[int]:
    """The lengths of an option, in order."""
    parts = value.replace(" ", "").split(",")
    if not all(part.isdecimal() and int(part) for part in parts):
        raise click.BadParameter(f"{value!r} is not like {LENGTHS}: tokens of a text, with commas between")
    return sorted({int(part) for part in parts})


class Measured:
    """The figures in OUTPUT, and a model that adds to them."""

    def __init__(self, path: Path, embedder: Embedder, engine: LlamaEngine, output: Path) -> None:
        self.output, self.found = output, read(output)
        self._embedder, self._engine, self._path = embedder, engine, path
        model = self.found.setdefault("model", {"name": path.stem, "digest": engine.digest})
        if model["digest"] != engine.digest:
            raise click.ClickException(f"{output} is of another model, {model['name']}; give another --output")
        here = about(embedder, inspect(path)) | {"began": datetime.now(UTC).isoformat(timespec="seconds")}
        self.found["runs"].append(here)

    def measure(self, length: int, n_rounds: int) -> None:
        """All rounds that are missing at a length, or none where there is no memory for it."""
        rounds = self.found["lengths"].setdefault(str(length), [])
        for number in range(len(rounds), n_rounds):
            texts = Texts(self._path, self._engine.tokenize, seed=number * 1_000_000 + length)
            text, *_ = texts(1, length)
            # Weights are read in, and a processor that slept is awake.
            self._embedder.embed_documents(texts(1, 64))
            began = time.perf_counter()
            try:
                self._embedder.embed_documents([text])
            except NotEnoughMemoryError as error:
                tell(f"  {length:,} tokens: left out: {error}")
                return
            seconds = time.perf_counter() - began
            run = len(self.found["runs"]) - 1
            rounds.append({"run": run, "seconds": seconds, "tokens_per_s": length / seconds})
            land(self.output, json.dumps(self.found, indent=1))
            tell(f"  {length:,} tokens: {length / seconds:,.1f} tokens/s")


def read(path: Path) -> dict[str, Any]:
    """What was measured before, or nothing yet."""
    if not path.exists():
        return {"runs": [], "lengths": {}}
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def curve(found: dict[str, Any]) -> dict[int, float]:
    """The median speeds by length, in order."""
    rounds = sorted((int(length), of_length) for length, of_length in found["lengths"].items())
    return {
        length: statistics.median(measured["tokens_per_s"] for measured in of_length)
        for length, of_length in rounds
        if of_length
    }


def markdown(found: dict[str, Any]) -> str:
    """A row for each length."""
    lines = ["| tokens | tokens/s |", "|---|---|"]
    lines += [f"| {length:,} | {speed:,.0f} |" for length, speed in curve(found).items()]
    lines.append("")
    for run in found["runs"]:
        machine, settings = run["machine"], json.dumps(run["settings"])
        lines.append(
            f"- {run['began']}: {found['model']['name']}, {machine['cpu']}, {machine['cores']} cores; `{settings}`"
        )
    return "\n".join(lines) + "\n"


def plot(found: dict[str, Any], path: Path) -> None:
    """Speed over length. Needs matplotlib."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, panel = plt.subplots(figsize=(8, 4.5), layout="constrained")
    speeds = curve(found)
    panel.plot(list(speeds), list(speeds.values()), marker="o", markersize=4, lw=2.5)
    panel.set_xscale("log", base=2)
    panel.set_xticks(list(speeds), [f"{length:,}" for length in speeds], fontsize=8)
    panel.set_ylim(bottom=0)
    panel.set_xlabel("tokens of the text")
    panel.set_ylabel("tokens/s")
    panel.set_title(found["model"]["name"])
    panel.spines[["top", "right"]].set_visible(False)
    panel.grid(axis="y", alpha=0.3)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def tell(line: str) -> None:
    click.echo(line, err=True)


@click.command()
@click.option("--model", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="A model file.")
@click.option(
    "--lengths", default=LENGTHS, show_default=True, callback=numbers, help="Tokens of a text, with commas between."
)
@click.option("--rounds", default=3, show_default=True, help=f"Texts of each length; one from {ONCE:,} tokens on.")
@click.option(
    "--output", type=click.Path(path_type=Path), default=Path("lengths.json"), show_default=True, help="Results."
)
def main(model: Path | None, lengths: list[int], rounds: int, output: Path) -> None:
    """Measure a --model; without one, make table and plot of what is in OUTPUT."""
    if model is not None:
        with stopping_cleanly(), q3e_local.load(model) as embedder:
            engine = embedder.engine
            assert isinstance(engine, LlamaEngine)
            measured = Measured(model, embedder, engine, output)
            for length in lengths:
                if length > engine.n_ctx_max:
                    tell(f"  {length:,} tokens: left out: the model takes {engine.n_ctx_max:,}")
                    continue
                measured.measure(length, 1 if length >= ONCE else rounds)
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
