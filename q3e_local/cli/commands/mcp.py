"""`q3e-local mcp`: turn options into settings, and speak with the assistant that has started this process."""

from __future__ import annotations

import sys
from dataclasses import replace
from functools import partial
from typing import Any

import click

from q3e_local.cli import candidates
from q3e_local.cli.commands.serve import chosen_settings
from q3e_local.cli.computing.engine_options import EngineOptions, ModelCommand, engine_options
from q3e_local.cli.computing.model_options import cache_option
from q3e_local.errors import OptionError

# The options of `serve` that a server without a network has no use for.
_OF_NETWORK = {"host": None, "port": None, "api_keys": (), "origins": None, "unix_socket": None}


@click.command(cls=ModelCommand)
@click.argument("indexes", metavar="[INDEX]...", nargs=-1, shell_complete=candidates.index_or_file)
@click.option(
    "-m", "--model", "models", metavar="MODEL", multiple=True, shell_complete=candidates.model_or_file,
    help="A model of an index, where it is not found by its name, or the reranker to use; may be repeated.",
)  # fmt: skip
@click.option(
    "--keep-alive", "keep_alive_s", metavar="TIME",
    help="How long an unused model stays loaded: 5m, 1h30m, seconds; -1 is for ever. [env: Q3E_KEEP_ALIVE] "
    "[default: 5m]",
)  # fmt: skip
@cache_option
@engine_options
def mcp(engine: EngineOptions, **options: Any) -> int:
    """Let an assistant search your indexes: a server of the Model Context Protocol over stdin and stdout.

    Assistants start this command themselves; docs/assistants.md has the lines for their settings. INDEX is a name or
    a .q3e file; without one it is every index that has a name. An assistant can search in them and read files that
    are indexed, and can change nothing. Models load when the first question needs them.

    \b
      q3e-local mcp
      q3e-local mcp default papers.q3e
    """
    from q3e_local.embedding.engine import EngineConfig
    from q3e_local.llama.kernels import choice

    if sys.stdin is None or sys.stdout is None:
        raise OptionError("an assistant speaks through stdin and stdout, and one of them is closed")
    if sys.stdin.isatty():
        click.echo(
            "waiting on stdin for an assistant, which starts this command itself (docs/assistants.md); Ctrl-C ends",
            err=True,
        )
    choice.wanted()  # raises for kernels that no worker could use
    settings = replace(chosen_settings({**options, **_OF_NETWORK}), explain=engine.explain)
    config = EngineConfig(self_tuning=True, **engine.config)
    from q3e_local.server.assistants.stdio import serve
    from q3e_local.server.local.local_service import LocalService

    return serve(settings, partial(LocalService, config=config))
