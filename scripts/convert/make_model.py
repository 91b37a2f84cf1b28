"""Make a Qwen3-Embedding GGUF from the authors' checkpoint, end to end, and print its lines for the model card.

    python scripts/convert/make_model.py --size 4b -o Qwen3-Embedding-4B-Q4_K_M.gguf

Downloads the checkpoint (at the card's revision, into the hub cache, through HF_ENDPOINT if that is set), or takes
a folder that is here already; converts and quantizes it; holds the sizes against the card; writes TOML to stdout.
"""

import sys
from pathlib import Path

import click

import q3e_local
from q3e_local.checks.verify import check_scores
from q3e_local.cli.progress import bar
from q3e_local.convert import DEFAULT, QUANTIZATIONS, convert
from q3e_local.errors import Q3EError
from q3e_local.files import sha256
from q3e_local.gguf.model_file import ModelInfo
from q3e_local.models.card import ModelCard
from q3e_local.models.catalog import resolve
from q3e_local.models.download.hub import fetch_checkpoint


def download(card: ModelCard) -> Path:
    """The checkpoint's folder in the hub cache."""
    if card.checkpoint is None:
        raise click.ClickException(f"the card of {card.name} names no checkpoint; give --from-folder")
    repo, revision = card.checkpoint.repo, card.checkpoint.revision
    click.echo(f"downloading {repo} at {revision}", err=True)
    return fetch_checkpoint(repo, revision)


def differences(info: ModelInfo, card: ModelCard) -> list[str]:
    """What of the model is not as the card says."""
    found = {"n_layer": info.n_layer, "n_embd": info.n_embd, "n_vocab": info.n_vocab, "n_ctx": info.n_ctx_train}
    return [
        f"{name} is {value}, the card of {card.name} says {getattr(card.sizes, name)}"
        for name, value in found.items()
        if getattr(card.sizes, name) != value
    ]


def wrong_scores(path: Path, card: ModelCard, quantization: str) -> list[str]:
    """The published scores that the new file does not give, within the tolerance of its quantization."""
    if card.scores is None:
        return []
    with q3e_local.load(path) as embedder:
        found = check_scores(embedder, card.scores, quantization)
    return [
        f"{score.query!r} scores {score.got:.4f}, published is {score.expected:.4f} (tolerance {score.tolerance})"
        for score in found
        if not score.is_ok
    ]


@click.command()
@click.option("--size", type=click.Choice(["0.6b", "4b", "8b"]), required=True, help="Which model.")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="[default: the model's name and type]")
@click.option("--type", "quantization", type=click.Choice(QUANTIZATIONS), default=DEFAULT, show_default=True)
@click.option("--from-folder", type=click.Path(path_type=Path), help="Take this checkpoint; download nothing.")
@click.option("--force", is_flag=True, help="Replace the output file if it exists.")
def main(size: str, output: Path | None, quantization: str, from_folder: Path | None, force: bool) -> None:
    """Download, convert, quantize, check and describe a Qwen3-Embedding model."""
    card, _ = resolve(f"qwen3-embedding:{size}")
    name = f"Qwen3-Embedding-{size.upper()}"
    output = output or Path(f"{name}-{quantization.upper()}.gguf")
    try:
        with bar(quiet=False) as show:
            folder = from_folder or download(card)
            info = convert(folder, output, quantization, progress=show, force=force)
            digest = sha256(output, lambda done: show("checksum", done, info.size_bytes))
    except Q3EError as error:
        raise click.ClickException(str(error)) from None
    click.echo(f'[files.{quantization}]\nfile = "{output.name}"\nsize_bytes = {info.size_bytes}\nsha256 = "{digest}"')
    wrong = [*differences(info, card), *wrong_scores(output, card, quantization)]
    for line in wrong:
        click.echo(f"warning: {line}", err=True)
    if wrong and from_folder is None:
        sys.exit(1)
    click.echo("not what the card says" if wrong else "right", err=True)


if __name__ == "__main__":
    main()
