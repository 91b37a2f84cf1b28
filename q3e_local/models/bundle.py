"""Carry models to a machine without a network: a folder with model, card and checksums.

Knows files and checksums; nothing of hubs.
"""

from __future__ import annotations

import errno
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from q3e_local.errors import CardError, ModelFileError, NotEnoughDiskError, OutputError
from q3e_local.files import config_folder, land, landing, sha256
from q3e_local.gguf.model_file import inspect
from q3e_local.models import importing
from q3e_local.models.card import ModelCard
from q3e_local.models.card_file import read_card
from q3e_local.models.catalog import card_kind, cards
from q3e_local.models.download.origins import own_folder
from q3e_local.models.installed import Installed

SUMS = "SHA256SUMS"

OnBytes = Callable[[int, int], None]  # the bytes that are copied, and all there are

_LINE = re.compile(r"([0-9a-fA-F]{64}) [ *](.+)")


def export(model: Installed, card: ModelCard, folder: Path, progress: OnBytes = lambda n_bytes, total: None) -> Path:
    """Copy a model with its card and checksums into a folder. Answers the copy.

    Raises OutputError when the folder has it already or cannot be written, NotEnoughDiskError before copying.
    """
    target = folder / (model.path.name if model.path.suffix == ".gguf" else f"{_file_name(model.name)}.gguf")
    with _writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        if target.exists():
            raise OutputError(f"{target} exists; remove it, or choose another folder")
        digest = _copy(model.path, target, model.sha256, progress)
        copied_card = folder / card.path.name
        shutil.copyfile(card.path, copied_card)
        sums = _read_sums(folder) if (folder / SUMS).exists() else {}
        sums |= {target.name: digest, copied_card.name: sha256(copied_card)}
        land(folder / SUMS, "".join(f"{sums[name]}  {name}\n" for name in sorted(sums)))
    return target


def take_folder(folder: Path, progress: OnBytes = lambda n_bytes, total: None) -> list[Installed]:
    """Take the models that `export` left in a folder: checked against its checksums, then copied to our folder.

    Raises ModelFileError when a file or checksum is missing, or a checksum differs; models taken before that stay.
    """
    sums = _read_sums(folder)
    # Names that begin with a dot are macOS's, on disks that other systems read too.
    models = [path for path in sorted(folder.glob("*.gguf")) if not path.name.startswith(".")]
    for name in sums:
        if not (folder / name).is_file():
            raise ModelFileError(f"{folder} lacks {name}, which {SUMS} lists; copy it again")
    for path in models:
        if path.name not in sums:
            raise ModelFileError(f"{folder / SUMS} has no checksum of {path.name}; export it again with pull --to")
    if not models:
        raise ModelFileError(f"there is no .gguf file in {folder}")
    for path in sorted(folder.glob("*.toml")):
        if path.name in sums:
            _take_card(path, sums[path.name])
    taken = []
    for path in models:
        digest = sums[path.name]
        inspect(path, card_kind(digest))
        here = importing.shipped(digest)
        if here is not None:
            taken.append(here)
            continue
        target = own_folder() / digest[:12] / path.name  # two models may have one file name
        with _writing(target.parent):
            target.parent.mkdir(parents=True, exist_ok=True)
            _copy(path, target, digest, progress)
        taken.append(importing.adopt(target, digest))
    return taken


def _take_card(path: Path, digest: str) -> None:
    """Copy a user's card to the cards of this machine, unless a card has its name."""
    if sha256(path) != digest:
        raise ModelFileError(f"{path} is not what {SUMS} says; it was damaged or changed on the way, copy it again")
    card = read_card(path)
    if card.name in cards():
        return
    target = config_folder() / "models" / f"{_file_name(card.name)}.toml"
    with _writing(target.parent):
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.exists():
            raise OutputError(f"{target} exists, and is the card of another model; rename it")
        shutil.copyfile(path, target)
    try:
        cards()
    except CardError:  # it takes a name that another card has, and every command would fail
        target.unlink()
        raise


def _copy(source: Path, target: Path, expected: str, progress: OnBytes) -> str:
    """Copy and hash in one reading, and answer the SHA-256. A file with an unexpected SHA-256 gets no name."""
    needed, free = source.stat().st_size, shutil.disk_usage(target.parent).free
    if needed > free:
        raise NotEnoughDiskError(
            f"{target.name} needs {needed / 1e9:.2f} GB in {target.parent}, which has {free / 1e9:.2f} GB free"
        )
    with landing(target) as copy:
        digest = sha256(source, lambda n_bytes: progress(n_bytes, needed), copy)
        if expected and digest != expected:
            raise ModelFileError(
                f"{source} has SHA-256 {digest}, not {expected}: it is damaged; pull it or copy it again"
            )
    return digest


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    """Turn an error of the system's into a sentence."""
    try:
        yield
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise NotEnoughDiskError(f"the disk of {folder} is full; make room, or choose another folder") from None
        if error.errno == errno.EFBIG:
            raise OutputError(f"{folder} is on a disk that holds no file of this size (FAT32: 4 GB)") from None
        raise OutputError(f"cannot write to {folder}: {error.strerror or error}; choose another folder") from None


def _file_name(model: str) -> str:
    return re.sub(r"[:/]", "-", model)


def _read_sums(folder: Path) -> dict[str, str]:
    """The SHA-256 by file name, of a file that `sha256sum -c` reads too."""
    try:
        lines = (folder / SUMS).read_text(encoding="utf-8").splitlines()
    except OSError:
        raise ModelFileError(
            f"{folder} has no {SUMS}; name the .gguf file itself, or a folder made with: q3e-local pull NAME --to DIR"
        ) from None
    except UnicodeDecodeError:
        lines = ["?"]
    sums = {}
    for line in filter(str.strip, lines):
        parts = _LINE.fullmatch(line)
        if parts is None or "/" in parts[2] or "\\" in parts[2]:
            raise ModelFileError(f"{folder / SUMS} is damaged: no checksum and file name in {line[:80]!r}")
        sums[parts[2]] = parts[1].lower()
    return sums
