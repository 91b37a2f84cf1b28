"""`q3e-local convert` and `q3e-local quantize`: models from checkpoints, and from larger models."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import click

from q3e_local.cli import candidates
from q3e_local.cli.computing.model_options import kind_option, quiet_option
from q3e_local.cli.progress import bar
from q3e_local.cli.stopping import stopping_cleanly
from q3e_local.cli.terminal import say
from q3e_local.convert import DEFAULT, QUANTIZATIONS
from q3e_local.convert import convert as convert_checkpoint
from q3e_local.convert import quantize as quantize_gguf
from q3e_local.files import sha256
from q3e_local.gguf.model_file import ModelInfo
from q3e_local.gguf.model_kind import ModelKind
from q3e_local.models.catalog import cards

_REPO_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")


@click.command()
@click.argument("source", metavar="SRC", shell_complete=candidates.file)
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="The .gguf file to write.")
@click.option(
    "--type", "quantization", type=click.Choice(QUANTIZATIONS), default=DEFAULT, show_default=True,
    help="How weights are stored.",
)  # fmt: skip
@click.option("--name", metavar="TEXT", help="The model's name in the file. [default: made of the folder's name]")
@kind_option
@click.option("--force", is_flag=True, help="Replace the output file if it exists.")
@click.option("--offline", is_flag=True, help="Download nothing.")
@quiet_option
def convert(
    source: str,
    output: Path,
    quantization: str,
    name: str | None,
    kind: ModelKind | None,
    force: bool,
    offline: bool,
    quiet: bool,
) -> None:
    """Make a GGUF from a Qwen3-Embedding or Qwen3-Reranker checkpoint: a folder, or a repository on Hugging Face to
    download first.

    \b
      q3e-local convert Qwen/Qwen3-Embedding-0.6B -o 0.6B-Q4_K_M.gguf
      q3e-local convert Qwen/Qwen3-Reranker-4B -o reranker-4B-Q4_K_M.gguf
      q3e-local convert ./my-finetune -o my-finetune-Q8_0.gguf --type q8_0

    A reranker answers through two rows of its weights; they stay F32 in every type.
    """
    with stopping_cleanly():
        folder = _checkpoint_folder(source, offline, quiet)
    make = partial(convert_checkpoint, folder, output, quantization, name=name, kind=kind, force=force)
    _make(make, quantization, quiet)


@click.command()
@click.argument("source", metavar="IN", type=click.Path(path_type=Path))
@click.argument("output", metavar="OUT", type=click.Path(path_type=Path))
@click.argument("quantization", metavar="TYPE", type=click.Choice(QUANTIZATIONS))
@kind_option
@click.option("--force", is_flag=True, help="Replace the output file if it exists.")
@quiet_option
def quantize(source: Path, output: Path, quantization: str, kind: ModelKind | None, force: bool, quiet: bool) -> None:
    """Make a smaller GGUF from an f16, bf16 or f32 one. TYPE is q4_k_m, q5_k_m, q6_k, q8_0, f16, bf16 or f32.

    \b
      q3e-local quantize Qwen3-Embedding-4B-f16.gguf 4B-Q6_K.gguf q6_k

    A reranker's two rows for its answer stay F32; a file without them gets them.
    """
    _make(partial(quantize_gguf, source, output, quantization, kind=kind, force=force), quantization, quiet)


def _checkpoint_folder(source: str, offline: bool, quiet: bool) -> Path:
    """The folder of a checkpoint, or of a download at the revision that a card pins. Raises DownloadError."""
    folder = Path(source).expanduser()
    if folder.exists() or not _REPO_ID.fullmatch(source):
        return folder
    from q3e_local.models.download.hub import fetch_checkpoint

    tell = (lambda line: None) if quiet else say
    checkpoints = (card.checkpoint for card in cards().values() if card.checkpoint is not None)
    revision = next((pinned.revision for pinned in checkpoints if pinned.repo.lower() == source.lower()), "main")
    tell(f"Taking {source} at {revision} from the hub, unless it is here")
    with bar(quiet) as show:
        return fetch_checkpoint(source, revision, offline=offline, progress=show, on_wait=tell)


def _make(make: Callable[..., ModelInfo], quantization: str, quiet: bool) -> None:
    """Make a model file with a bar, and say what it is, how long that took, and its checksum."""
    with stopping_cleanly(), bar(quiet) as show:
        started = time.monotonic()
        info = make(progress=show)
        seconds = time.monotonic() - started
        if not quiet:
            digest = sha256(info.path, lambda done: show("checksum", done, info.size_bytes))
            what = f"{info.name}, {quantization.upper()}, {info.size_bytes:,} bytes"
            say(f"{info.path}: {what} in {seconds:.0f} s\nsha256 {digest}")
