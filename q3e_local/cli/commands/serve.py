"""`q3e-local serve`: turn options into settings, and join the server's parts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from q3e_local.cli import candidates
from q3e_local.cli.computing.engine_options import ENGINE_PARAMETERS, EngineOptions, ModelCommand, engine_options
from q3e_local.cli.computing.model_options import cache_option
from q3e_local.errors import OptionError

if TYPE_CHECKING:
    from q3e_local.server.settings import ServerSettings

# The variables that have settings of a server.
SERVER_VARIABLES = (
    "Q3E_HOST", "Q3E_PORT", "Q3E_MODELS", "Q3E_INDEXES", "Q3E_KEEP_ALIVE", "Q3E_MAX_LOADED", "Q3E_API_KEY",
    "Q3E_ORIGINS", "Q3E_MAX_QUEUE", "Q3E_MAX_ITEMS", "Q3E_MAX_BODY_BYTES", "Q3E_UNIX_SOCKET", "Q3E_LOG_FORMAT",
    "OLLAMA_HOST", "OLLAMA_KEEP_ALIVE", "OLLAMA_ORIGINS", "Q3E_CACHE", "Q3E_CACHE_SIZE", "Q3E_KERNELS",
)  # fmt: skip


@click.command(cls=ModelCommand)
@click.option("--host", help="The address to listen on. [env: Q3E_HOST, OLLAMA_HOST] [default: 127.0.0.1]")
@click.option("--port", type=int, help="0 is any free port. [env: Q3E_PORT, OLLAMA_HOST] [default: 11434]")
@click.option(
    "-m", "--model", "models", metavar="MODEL", multiple=True, shell_complete=candidates.model_or_file,
    help="Load this model at the start; may be repeated. Others load on first use. [env: Q3E_MODELS]",
)  # fmt: skip
@click.option(
    "--index", "indexes", metavar="INDEX", multiple=True, shell_complete=candidates.index_or_file,
    help="Answer searches in this index, a name or a .q3e file, at /api/search; may be repeated. [env: Q3E_INDEXES]",
)  # fmt: skip
@click.option(
    "--keep-alive", "keep_alive_s", metavar="TIME",
    help="How long an unused model stays loaded: 5m, 1h30m, seconds; -1 is for ever. "
    "[env: Q3E_KEEP_ALIVE, OLLAMA_KEEP_ALIVE] [default: 5m]",
)  # fmt: skip
@click.option("--max-loaded", type=int, help="Models in memory at once. [env: Q3E_MAX_LOADED] [default: 2]")
@click.option(
    "--api-key", "api_keys", metavar="KEY", multiple=True,
    help="Ask clients for this key; several with commas between them. Safer in the variable. [env: Q3E_API_KEY]",
)  # fmt: skip
@click.option(
    "--origins", metavar="LIST",
    help="Web pages that may use the server, beside those of this machine: https://a.example,https://*.b.example "
    "[env: Q3E_ORIGINS, OLLAMA_ORIGINS]",
)  # fmt: skip
@click.option("--max-queue", type=int, help="Texts that may wait. [env: Q3E_MAX_QUEUE] [default: 4096]")
@click.option("--max-items", type=int, help="Texts in one request. [env: Q3E_MAX_ITEMS] [default: 2048]")
@click.option(
    "--max-body-bytes", type=int, metavar="BYTES",
    help="Size of one request. [env: Q3E_MAX_BODY_BYTES] [default: 33554432]",
)  # fmt: skip
@cache_option
@click.option(
    "--unix-socket", type=click.Path(path_type=Path), help="Listen on this socket instead. [env: Q3E_UNIX_SOCKET]"
)
@click.option(
    "--log-format", type=click.Choice(["text", "json"]), help="Lines on stderr. [env: Q3E_LOG_FORMAT] [default: text]"
)
@engine_options
def serve(engine: EngineOptions, **options: Any) -> int:
    """Serve embeddings to Ollama's, OpenAI's, llama-server's and TEI's clients on this machine.

    Ctrl-C or SIGTERM finishes what runs, then ends. A second one ends at once.

    \b
      q3e-local serve
      q3e-local serve -m qwen3-embedding:4b --keep-alive -1
      q3e-local serve --index default --index papers.q3e
      q3e-local serve --host 0.0.0.0 --api-key "$KEY"
    """
    from q3e_local.embedding.engine import EngineConfig
    from q3e_local.llama import forecast
    from q3e_local.llama.kernels import choice

    choice.wanted()  # raises for kernels that no worker could use
    chosen = replace(chosen_settings(options), explain=engine.explain)
    config = EngineConfig(self_tuning=True, **engine.config)
    forecast.check(config)  # raises for a GPU that no worker could use
    # After everything that can fail quickly.
    from q3e_local.server.local.local_service import LocalService
    from q3e_local.server.run import serve as run

    return run(chosen, partial(LocalService, config=config))


def chosen_settings(options: Mapping[str, Any], environ: Mapping[str, str] | None = None) -> ServerSettings:
    """The settings for the options of `serve` and this environment. Raises OptionError."""
    from q3e_local.server.settings import settings

    origins = tuple(part.strip() for part in (options["origins"] or "").split(",") if part.strip())
    # An empty key stays, and is refused: `--api-key "$KEY"` without that variable must not serve everybody.
    keys = tuple(part.strip() for key in options["api_keys"] for part in key.split(","))
    of_server = {name: value for name, value in options.items() if name not in ENGINE_PARAMETERS}
    lists = {"origins": origins, "api_keys": keys}
    return settings({**of_server, "host": _host(options["host"]), **lists}, environ)


def _host(text: str | None) -> str | None:
    if text is not None and (text.count(":") == 1 or "/" in text):
        raise OptionError(f"--host is a name or an address, got {text!r}; the port has an option of its own, --port")
    return None if text is None else text.strip("[]")
