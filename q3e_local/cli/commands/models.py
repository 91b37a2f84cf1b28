"""`q3e-local pull`, `list`, `rm` and `import`: the models on this machine."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import click

from q3e_local.cli import candidates
from q3e_local.cli.asking import is_sure
from q3e_local.cli.computing.loading import announce, pull_with_bar
from q3e_local.cli.computing.model_options import kind_option
from q3e_local.cli.progress import bar
from q3e_local.cli.stopping import stopping_cleanly
from q3e_local.cli.writing.show import print_columns, print_json
from q3e_local.errors import ModelError, OptionError
from q3e_local.gguf.model_kind import ModelKind
from q3e_local.models import installed
from q3e_local.models.card import ModelCard, ModelFile
from q3e_local.models.catalog import as_option, files
from q3e_local.models.download.origins import is_offline
from q3e_local.models.installed import Installed
from q3e_local.models.names import Names
from q3e_local.models.own_names import read_aliases
from q3e_local.wording.counts import size


@click.command()
@click.argument("name", shell_complete=candidates.model)
@click.option(
    "--source", type=click.Choice(["auto", "hub", "modelscope"]), default="auto", show_default=True,
    help="Where to download from; auto tries the hub, then ModelScope.",
)  # fmt: skip
@click.option("--offline", is_flag=True, help="No network: take what is here, or fail.")
@click.option("--keep", is_flag=True, help="Keep the file that a quantization was made from.")
@click.option("--to", "folder", type=click.Path(path_type=Path), help="Also copy model, card and checksums here.")
@click.option("-q", "--quiet", is_flag=True, help="No progress.")
def pull(name: str, source: Any, offline: bool, keep: bool, folder: Path | None, quiet: bool) -> None:
    """Download a model, or make it from a download, and check it.

    \b
      q3e-local pull qwen3-embedding:4b
      q3e-local pull qwen3-embedding:0.6b --source modelscope
      q3e-local pull qwen3-embedding:4b --to /media/stick

    --to is for a machine without a network. There: q3e-local import /media/stick
    """
    card, file = Names().to_pull(name)
    if not (quiet or offline or is_offline()):
        announce(card, file, source)
    with stopping_cleanly():
        model = pull_with_bar(card, file, source, offline, keep, quiet)
    click.echo(f"{model.name} is at {model.path}")
    if folder is not None:
        from q3e_local.models import bundle

        with stopping_cleanly(), bar(quiet) as show:
            target = bundle.export(model, card, folder, lambda done, total: show("copying", done, total))
        click.echo(f"copied to {target}, with {bundle.SUMS}")


@click.command("list")
@click.option("--all", "with_missing", is_flag=True, help="Also those that can be pulled, and the memory each needs.")
@click.option("--json", "as_json", is_flag=True, help="A JSON list.")
def list_(with_missing: bool, as_json: bool) -> None:
    """List the models on this machine, or with --all every model that can be had by its name.

    \b
      q3e-local list
      q3e-local list --all

    The memory is for texts of up to 512 tokens, on the CPU with default settings. `show NAME` has that of longer
    texts, and with what was tuned or a GPU.
    """
    models = installed.installed()
    if with_missing:
        _list_all(models, as_json)
    elif as_json:
        print_json([_fields(model) for model in models])
    else:
        rows = [
            (model.name, installed.kind_of(model) or "", size(model.size_bytes), model.origin, str(model.path))
            for model in models
        ]
        print_columns(["name", "kind", "size", "origin", "path"], rows, right=["size"])
        to_pull = {name for name, (_, file) in _of_cards().items() if not file.is_converted}
        n_missing = len(to_pull - {model.name for model in models})
        if n_missing:
            click.echo(f"{n_missing} more can be pulled: q3e-local list --all", err=True)
    if not as_json:
        for model in installed.gone():
            click.echo(f"{model.name} is gone: {installed.what_is_gone(model)}", err=True)


def _list_all(models: list[Installed], as_json: bool) -> None:
    """Print a line or an object for each model that has a card or is here."""
    from q3e_local import machine
    from q3e_local.models import fitting

    here, usable = {model.name: model for model in models}, machine.usable_memory()
    rows: list[dict[str, Any]] = []
    for name, (card, file) in _of_cards().items():
        if name in here:
            about = _with_memory(here.pop(name))
        else:
            about = {"name": name, "kind": card.kind, "size_bytes": file.size_bytes, "origin": None, "path": None}
            about |= {"memory_bytes": fitting.needed_bytes(card, file.size_bytes)}
        rows.append({**about, "description": card.description})
    rows += [{**_with_memory(model), "description": None} for model in here.values()]
    for row in rows:
        row["fits"] = None if row["memory_bytes"] is None else row["memory_bytes"] <= usable
    if as_json:
        print_json(rows)
        return
    converted = {name for name, (_, file) in _of_cards().items() if file.is_converted}
    lines = []
    for row in rows:
        way = "can be converted" if row["name"] in converted else "can be pulled"
        memory_bytes = row["memory_bytes"]
        lines.append(
            (
                row["name"],
                row["kind"] or "",
                size(row["size_bytes"]),
                "" if memory_bytes is None else size(memory_bytes),
                row["origin"] or (way if row["fits"] else f"{way}; too large for this memory"),
            )
        )
    print_columns(["name", "kind", "size", "memory", "on this machine"], lines, right=["size", "memory"])
    aliases = read_aliases()
    if aliases:
        click.echo(f"names of your own: {', '.join(aliases)}", err=True)


def _of_cards() -> dict[str, tuple[ModelCard, ModelFile]]:
    return {card.tag(file.quantization): (card, file) for card, file in files()}


@click.command()
@click.argument("name", shell_complete=candidates.installed_model)
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
def rm(name: str, yes: bool) -> None:
    """Remove a model that was pulled or made here; an imported one is only forgotten."""
    model = installed.removable(name)
    is_ours = model.origin in installed.OURS
    what = f"delete {model.path} ({size(model.size_bytes)})" if is_ours else f"forget it, and leave {model.path}"
    if is_sure(f"{model.name}: {what}?", yes):
        installed.remove(model.name)
        click.echo(f"removed {model.name}" if is_ours else f"forgot {model.name}; its file stays: {model.path}")


@click.command("import")
@click.argument("what", metavar="[FILE|FOLDER|ollama:NAME]", required=False, shell_complete=candidates.file)
@click.option("--name", help="The name to give it. [default: its card's, else made of its title]")
@kind_option
@click.option("-q", "--quiet", is_flag=True, help="No progress.")
def import_(what: str | None, name: str | None, kind: ModelKind | None, quiet: bool) -> None:
    """Take a model that is on this machine already, without a second copy.

    A reranker is told from an embedding model by what its file says; --as is for a file that does not say it. A
    reranker must put a right answer above a wrong one before it is taken.

    Without an argument, list what Ollama, LM Studio and the hub cache have. A folder is one that `pull --to` wrote:
    its models are checked and copied.
    """
    from q3e_local.models import bundle, importing, other_programs

    if what is None:
        others = other_programs.models_elsewhere()
        if not others:
            families = "Qwen3-Embedding or Qwen3-Reranker"
            click.echo(f"no {families} models of Ollama, LM Studio or the hub cache here", err=True)
        for other in others:
            about = f"{size(other.info.size_bytes)}  {other.info.quantization}  {other.info.kind}"
            click.echo(f"{other.name}  {about}  {other.program}")
        if others:
            click.echo("Take one with: q3e-local import NAME, as in the first column", err=True)
        return
    of_ollama = what.startswith("ollama:")
    path = other_programs.ollama_file(what.removeprefix("ollama:")) if of_ollama else Path(what).expanduser()
    with stopping_cleanly(), bar(quiet) as show:
        if path.is_dir():
            if name is not None or kind is not None:
                raise OptionError("a folder brings its names along; --name and --as are for a file")
            taken = bundle.take_folder(path, lambda done, total: show("copying", done, total))
        else:
            total = path.stat().st_size if path.exists() else 0
            taken = [importing.import_file(path, name, lambda done: show("checking", done, total), kind=kind)]
    for model in taken:
        click.echo(f"{model.name} is at {model.path}")
        use = as_option(model.name, installed.kind_of(model) or "embedder")
        click.echo(f"Use it with {use}; check it with: q3e-local verify {model.name}", err=True)


def _fields(model: Installed) -> dict[str, Any]:
    kind = installed.kind_of(model)
    return {
        "name": model.name, "kind": kind, "size_bytes": model.size_bytes, "origin": model.origin,
        "path": str(model.path),
    }  # fmt: skip


def _with_memory(model: Installed) -> dict[str, Any]:
    """The same, and the memory it needs by what its file says; None for a file that cannot be read."""
    from q3e_local.models import fitting

    fields = _fields(model) | {"memory_bytes": None}
    with suppress(ModelError):  # `doctor` and `verify` say what is wrong with it
        fields["memory_bytes"] = fitting.needed_by_file(model.inspect())
    return fields
