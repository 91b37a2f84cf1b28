"""The options for how a model runs, the same for every command that loads one; and `--explain`."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from q3e_local.cli.option_groups import as_one, group
from q3e_local.errors import OptionError

if TYPE_CHECKING:
    from q3e_local.embedding.engine import KvType

_LOGGER = logging.getLogger("q3e_local.settings")


@dataclass(frozen=True)
class EngineOptions:
    """The values of these options, named as in EngineConfig but for `explain`. None: chosen for this machine."""

    n_threads: int | None = None
    device: str | None = None
    n_gpu_layers: int | None = None
    kv_type: KvType | None = None
    n_batch: int | None = None
    explain: bool = False

    @property
    def config(self) -> dict[str, Any]:
        """The values that EngineConfig takes."""
        given = {name: value for name, value in vars(self).items() if name != "explain"}
        # Of this one None is no value: it has a default that every machine shares.
        return {name: value for name, value in given.items() if name != "kv_type" or value is not None}


class Layers(click.ParamType[int | None]):
    """A number of layers from 0 on, or `auto`, which is None."""

    name = "layers"

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:
        return "N|auto"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | None:
        if value == "auto":
            return None
        if isinstance(value, int) or (value.isascii() and value.isdigit()):
            return int(value)
        self.fail(f"{value!r} is neither a number from 0 on nor auto.", param, ctx)


ENGINE_PARAMETERS = frozenset(EngineOptions.__dataclass_fields__)

engine_options = group(
    click.option(
        "--threads", "n_threads", type=click.IntRange(1, 1024),
        help="CPU threads. [default: as tuned, or this process's physical cores, 4 at most if a GPU has all layers]",
    ),
    click.option(
        "--device", metavar="NAME[,NAME]|none",
        help="GPUs that may compute, by their names in q3e-local doctor; none: the CPU alone. [default: chosen]",
    ),
    click.option(
        "--gpu-layers", "n_gpu_layers", type=Layers(),
        help="Layers on the GPU, the last ones of the model; auto: as many as fit into its memory. [default: auto]",
    ),
    click.option(
        "--kv-type", type=click.Choice(["f16", "q8_0"]),
        help="Of keys and values: q8_0 halves the memory of long texts, and changes vectors a little. [default: f16]",
    ),
    click.option(
        "--batch-tokens", "n_batch", type=click.IntRange(32, 65_536),
        help="Tokens computed at once. [default: as tuned, or 512]",
    ),
    click.option("--explain", is_flag=True, help="Say on stderr what was chosen for this machine, and why."),
    as_one(EngineOptions, "engine"),
)  # fmt: skip


class ModelCommand(click.Command):
    """A command whose help shows `engine_options` after all other options, and whose errors name options as typed."""

    def invoke(self, ctx: click.Context) -> Any:
        """As click's, but the text of an OptionError begins with the flag, not with the library's name."""
        try:
            return super().invoke(ctx)
        except OptionError as error:
            flags = {parameter.name: parameter.opts[-1] for parameter in self.params}
            if error.option not in flags:
                raise
            raise OptionError(error.under(flags[error.option])) from None

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        self.format_own_options(ctx, formatter)
        self.format_engine_options(ctx, formatter)

    def format_own_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        self._format(ctx, formatter, "Options", of_engine=False)

    def format_engine_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        self._format(ctx, formatter, "How the model runs (chosen for this machine if not given)", of_engine=True)

    def _format(self, ctx: click.Context, formatter: click.HelpFormatter, title: str, *, of_engine: bool) -> None:
        options = [
            option
            for option in self.get_params(ctx)
            # Arguments have no help but their name in the usage.
            if isinstance(option, click.Option) and (option.name in ENGINE_PARAMETERS) == of_engine
        ]
        with formatter.section(title):
            formatter.write_dl([record for option in options if (record := option.get_help_record(ctx)) is not None])


@contextmanager
def explained(engine: EngineOptions) -> Iterator[None]:
    """With --explain, show on stderr what engines log about their settings until the block ends."""
    if not engine.explain or any(isinstance(handler, _OnStderr) for handler in _LOGGER.handlers):
        yield  # a second model beside a first one: its lines are shown already
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
