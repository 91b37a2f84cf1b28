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
    """The values of these options; None is chosen for this machine. Names are EngineConfig's, but for `explain`."""

    n_threads: int | None = None
    n_gpu_layers: int | None = None
    n_batch: int | None = None
    explain: bool = False

    @property
    def config(self) -> dict[str, Any]:
        """The values that EngineConfig takes."""
        return {name: value for name, value in vars(self).items() if name != "explain"}

    @property
    def is_given(self) -> bool:
        """Whether the user gave any of these options."""
        return self.explain or self.has_settings

    @property
    def has_settings(self) -> bool:
        """Whether the user gave any of these options but --explain."""
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
    """A command whose help shows `engine_options` behind all other options."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        self.format_own_options(ctx, formatter)
        self.format_engine_options(ctx, formatter)

    def format_own_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        others = [parameter for parameter in self.get_params(ctx) if parameter.name not in ENGINE_PARAMETERS]
        _format("Options", others, ctx, formatter)

    def format_engine_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        of_engine = [parameter for parameter in self.get_params(ctx) if parameter.name in ENGINE_PARAMETERS]
        _format("How the model runs (chosen for this machine if not given)", of_engine, ctx, formatter)


def _format(
    title: str, parameters: Iterable[click.Parameter], ctx: click.Context, formatter: click.HelpFormatter
) -> None:
    # An argument's help is its metavar alone.
    options = [parameter for parameter in parameters if isinstance(parameter, click.Option)]
    records = [record for option in options if (record := option.get_help_record(ctx)) is not None]
    with formatter.section(title):
        formatter.write_dl(records)


@contextmanager
def explained(engine: EngineOptions) -> Iterator[None]:
    """With --explain, show on stderr what engines say of their settings while the block runs."""
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
