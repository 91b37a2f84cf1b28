"""`q3e-local ps` and `stop`: what a running server has loaded, and unloading it."""

from __future__ import annotations

import time
from contextlib import closing
from datetime import UTC, datetime
from typing import Any

import click

from q3e_local.cli import candidates
from q3e_local.cli.exit_codes import DONE, FAILED
from q3e_local.cli.writing.gpus import on_gpus
from q3e_local.cli.writing.show import print_columns, print_json
from q3e_local.errors import ModelNotHereError
from q3e_local.wording.counts import size

_PATIENCE_S = 300.0  # with a model that computes
_FOREVER_S = 10 * 365 * 86_400  # Ollama's date for it is 292 years ahead
_SERVER = click.option(
    "--server", metavar="URL", help="[env: Q3E_SERVER, OLLAMA_HOST] [default: http://127.0.0.1:11434]"
)


@click.command()
@_SERVER
@click.option("--json", "as_json", is_flag=True, help="A JSON list.")
def ps(server: str | None, as_json: bool) -> None:
    """List the models that a running server has loaded."""
    models = _ask(server, "GET", "/api/ps")["models"]
    if as_json:
        print_json(models)
        return
    if not models:
        click.echo("no model is loaded", err=True)
        return
    kernels = [model.get("kernels", {}) for model in models]  # empty where Ollama answers
    rows = [
        (
            model["name"],
            size(model["size"]),
            _processor(model),
            of_model.get("variant", ""),
            model.get("context_length", 0),
            _until(model.get("expires_at")),
        )
        for model, of_model in zip(models, kernels, strict=True)
    ]
    print_columns(["name", "size", "processor", "kernels", "context", "until"], rows, right=["size"])
    for model in models:
        for line in on_gpus(model.get("placement")):
            click.echo(f"{model['name']}: {line}", err=True)
    for hint in dict.fromkeys(hint for of_model in kernels for hint in of_model.get("faster", ())):
        click.echo(f"for more speed, {hint}", err=True)


@click.command()
@click.argument("name", shell_complete=candidates.installed_model)
@_SERVER
def stop(name: str, server: str | None) -> int:
    """Unload a model from a running server. It finishes its work first, and the server goes on."""
    from q3e_local.remote.connection import ServerRefusedError

    until, is_waiting = time.monotonic() + _PATIENCE_S, False
    while True:
        try:
            answer = _ask(server, "POST", "/q3e/stop", {"model": name})
        except ServerRefusedError as error:
            if error.status != 404:
                raise
            raise ModelNotHereError(str(error)) from None
        if answer["is_gone"]:
            click.echo(f"{name} is unloaded" if answer["was_loaded"] or is_waiting else f"{name} was not loaded")
            return DONE
        if time.monotonic() > until:
            click.echo(f"Error: {name} is still at work; it is unloaded once it has finished", err=True)
            return FAILED
        if not is_waiting:
            click.echo(f"{name} is at work; waiting until it has finished", err=True)
            is_waiting = True


def _ask(server: str | None, method: str, path: str, body: Any = None) -> dict[str, Any]:
    from q3e_local.remote.connection import Server, server_address

    with closing(Server(server_address(server))) as connection:
        return connection.ask(method, path, body)


def _processor(model: dict[str, Any]) -> str:
    """As Ollama's command says it: by the share of the memory."""
    on_gpu = round(100 * model.get("size_vram", 0) / max(1, model["size"]))
    placement = model.get("placement")
    if placement is not None and placement["on_gpu"] == placement["layers"]:
        return "GPU"  # what llama.cpp keeps in the machine's memory beside it is no layer
    if on_gpu in (0, 100):
        return "GPU" if on_gpu else "CPU"
    return f"{100 - on_gpu}%/{on_gpu}% CPU/GPU"


def _until(text: Any) -> str:
    """The time until an unloading, such as `in 4 min`."""
    try:
        seconds = (datetime.fromisoformat(str(text)) - datetime.now(UTC)).total_seconds()
    except (ValueError, TypeError):
        return "unknown"
    if seconds > _FOREVER_S:
        return "for ever"
    if seconds <= 0:
        return "now"
    for unit, length in (("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"in {seconds / length:.0f} {unit}"
    return f"in {seconds:.0f} s"
