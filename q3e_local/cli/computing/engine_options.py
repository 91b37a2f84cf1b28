"""The options that say how a model runs, the same for every command that loads one, and `--explain`."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import click

from q3e_local.cli.option_groups import as_one, group

_LOGGER = logging.getLogger("q3e_local.settings")


@dataclass(frozen=True)
class EngineOptions:
    """What was given; None is chosen for this machine. Names are EngineConfig's, but for `explain`."""

    n_threads: int | None = None
    n_gpu_layers: int | None = None
    n_batch: int | None = None
    explain: bool = False

    @property
    def config(self) -> dict[str, Any]:
        """EngineConfig's part of it."""
        return {name: value for name, value in vars(self).items() if name != "explain"}

    @property
    def is_given(self) -> bool:
        """Whether any of them was given."""
        return self.explain or self.has_settings

    @property
    def has_settings(self) -> bool:
        """Whether any but `explain` was given."""
        return any(value is not None for value in self.config.values())


ENGINE_PARAMETERS = frozenset(EngineOptions.__dataclass_fields__)

engine_options = group(
    click.option(
        "--threads", "n_threads", type=click.IntRange(1, 1024),
        help="CPU threads. [default: as tuned, or this process's physical cores]",
    ),
    click.option(
        "--gpu-layers", "n_gpu_layers", type=click.IntRange(0),
        help="Layers on the GPU. [default: all if llama.cpp was built for one]",
    ),
    click.option(
        "--batch-tokens", "n_batch", type=click.IntRange(32, 65_536),
        help="Tokens computed at once. [default: as tuned, or 512]",
    ),
    click.option("--explain", is_flag=True, help="Say on stderr what was chosen for this machine, and why."),
    as_one(EngineOptions, "engine"),
)  # fmt: skip


class ModelCommand(click.Command):
    """A command with `engine_options`, which stand behind its own options in the help."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        self.format_own_options(ctx, formatter)
        self.format_engine_options(ctx, formatter)

    def format_own_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        own = [one for one in self.get_params(ctx) if one.name not in ENGINE_PARAMETERS]
        _format("Options", own, ctx, formatter)

    def format_engine_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        of_engine = [one for one in self.get_params(ctx) if one.name in ENGINE_PARAMETERS]
        _format("How the model runs (chosen for this machine if not given)", of_engine, ctx, formatter)


def _format(
    title: str, parameters: Iterable[click.Parameter], ctx: click.Context, formatter: click.HelpFormatter
) -> None:
    options = [one for one in parameters if isinstance(one, click.Option)]  # an argument's help is its metavar alone
    records = [record for one in options if (record := one.get_help_record(ctx)) is not None]
    with formatter.section(title):
        formatter.write_dl(records)


@contextmanager
def explained(engine: EngineOptions) -> Iterator[None]:
    """Show what engines say of their settings, if that was asked for."""
    if not engine.explain:
        yield
        return
    handler, level = _OnStderr(), _LOGGER.level
    _LOGGER.addHandler(handler)
    _LOGGER.setLevel(logging.INFO)
    try:
        yield
    finally:
        _LOGGER.removeHandler(handler)
        _LOGGER.setLevel(level)


class _OnStderr(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        click.echo(record.getMessage(), err=True)
