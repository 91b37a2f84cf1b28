"""`q3e-local tune`: measure, show, and keep what `q3e_local.checks.tune` finds."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from q3e_local.cli.computing.loading import locate
from q3e_local.cli.computing.model_options import model_option, offline_option
from q3e_local.cli.progress import is_shown, status
from q3e_local.cli.stopping import stopping_cleanly
from q3e_local.cli.terminal import say
from q3e_local.cli.writing.show import print_boxed, print_json
from q3e_local.errors import OptionError, OutputError

if TYPE_CHECKING:
    from q3e_local.checks.measured import Row
    from q3e_local.checks.tune import TuneResult
    from q3e_local.llama.settings.defaults import Tuned
    from q3e_local.llama.settings.kept import Platform


@click.command()
@model_option
@click.option(
    "--seconds", type=click.FloatRange(0), default=50, show_default=True, help="How long to measure, at most."
)
@click.option("--reset", is_flag=True, help="Forget what was found for this model, and measure nothing.")
@offline_option
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@click.option("-q", "--quiet", is_flag=True, help="No progress.")
def tune(model: str, seconds: float, reset: bool, offline: bool, as_json: bool, quiet: bool) -> None:
    """Find the settings a model is fastest with on this machine, and use them from now on.

    Measures threads, and then the size of a batch. A setting is changed only where that wins clearly and nearly every
    time, or where llama.cpp ends the process without the change. Leave the machine alone meanwhile. What is found is
    kept for this CPU, these kernels, this model file and this version of llama.cpp; where there is no time now, what
    was found before stays. Ctrl-C keeps nothing new.
    """
    if reset:
        _reset(model)
        return
    from q3e_local.checks.tune import tune as measured
    from q3e_local.llama.settings.kept import keep

    def tell(what: str) -> None:
        if is_shown(quiet):
            say(what)

    with stopping_cleanly():
        located = locate(model, offline, quiet)
        if located.inspect().kind == "reranker":
            raise OptionError(
                f"{located.name} is a reranker, and tune measures embedding models only; a reranker runs with the "
                "default settings, or with those that you give, such as --threads"
            )
        tell(f"loading {located.name}")
        with status("measuring", quiet, seconds):
            result, platform = measured(located.path, seconds, tell)
    digest = located.inspect().digest
    rows = [asdict(row) for row in result.rows]
    kept, best = None, result.best
    if result.contest is not None and result.contest.kept is not None:
        with _kept():
            keep(digest, result.contest.platform, result.contest.kept, rows)
    if result.is_anything:
        with _kept():
            file, best = keep(digest, platform, result.best, rows)
            kept = str(file)
    if as_json:
        facts: dict[str, Any] = {"model": located.name, "digest": digest, "place": asdict(platform), "kept_in": kept}
        facts |= {"best": asdict(result.best), "from_before": _from_before(result, best)}
        facts |= {"rows": rows, "left_out": result.left_out, "seconds": result.seconds}
        print_json(facts)
    else:
        _print(located.name, platform, result, best)


@contextmanager
def _kept() -> Iterator[None]:
    """Say as an OutputError that something cannot be kept."""
    try:
        yield
    except OSError as error:
        raise OutputError(f"cannot keep what was found: {error}") from None


def _reset(model: str) -> None:
    from q3e_local.llama.settings.kept import forget
    from q3e_local.models.names import resolve

    located = resolve(model).located
    n_files = forget(located.inspect().digest)
    say(f"{located.name}: {'defaults from now on' if n_files else 'nothing was tuned'}")


def _from_before(result: TuneResult, best: Tuned) -> dict[str, Any]:
    """The settings that are kept from an earlier run, as this one had no time for them."""
    from q3e_local.llama.settings.defaults import TUNABLE

    values = {name: getattr(best, name) for name in TUNABLE if getattr(result.best, name) is None}
    return {name: value for name, value in values.items() if value is not None}


def _print(model: str, platform: Platform, result: TuneResult, best: Tuned) -> None:
    from q3e_local.llama.settings.defaults import TUNABLE
    from q3e_local.llama.settings.placement import CPU

    click.echo(
        f"{model} on {platform.cpu}, {platform.n_cores} cores, kernels {platform.kernels}, "
        f"llama-cpp-python {platform.binding}"
    )
    if platform.place != CPU:
        click.echo(f"layers: {platform.place}")
    if result.contest is not None and result.contest.cpu_is_faster:
        click.echo(f"the CPU is faster: {result.contest.platform.place} is left alone unless --device names it")
    _print_rows(result.rows)
    for what in result.left_out:
        click.echo(f"left out: {what}")
    if not result.is_anything:
        click.echo(f"nothing new is kept: --seconds is too few, about --seconds {result.enough_s} is enough")
        return
    values = {name: getattr(result.best, name) for name in TUNABLE}
    click.echo(f"kept after {result.seconds:.0f} s: {_listed(values)}")
    if before := _from_before(result, best):
        click.echo(f"kept from before: {_listed(before)}")


def _print_rows(rows: list[Row]) -> None:
    sizes = list(dict.fromkeys(size for row in rows for size in row.speeds))
    # In the caption: on a terminal of 80 columns, a column for it would leave no room for the figures.
    ended = [f"{row.setting} {row.value} ends the process here" for row in rows if row.crash]
    cells = [
        [
            row.setting,
            str(row.value),
            *(f"{row.speeds[size]:,.0f}" if size in row.speeds else "" for size in sizes),
            "" if row.ratio is None else f"{row.ratio:.2f}",
            str(row.n_rounds),
            "best" if row.is_best else "",
        ]
        for row in rows
    ]
    print_boxed(
        ["setting", "value", *sizes, "ratio", "rounds", ""], cells, n_left=2,
        title="tokens a second, by length of the texts", title_justify="left",
        caption="\n".join(ended) or None, caption_justify="left", padding=(0, 0, 0, 1),
    )  # fmt: skip


def _listed(values: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items() if value is not None)
