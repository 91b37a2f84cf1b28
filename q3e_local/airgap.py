"""Carry models to a machine without a network: a folder with model, card and checksums.

Knows files and checksums; nothing of hubs.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path

from q3e_local import store
from q3e_local.card import ModelCard, read_card
from q3e_local.catalog import cards
from q3e_local.errors import ModelFileError, NotEnoughDiskError, OutputError
from q3e_local.folders import config_folder
from q3e_local.model_file import inspect
from q3e_local.store import Installed

SUMS = "SHA256SUMS"

Progress = Callable[[int, int], None]
"""Called as `progress(n_bytes, total)`."""


def export(
    one: Installed, card: ModelCard | None, folder: Path, progress: Progress = lambda n_bytes, total: None
) -> Path:
    """Copy a model with its card and checksum into a folder.

    Raises OutputError when the folder has such files already, NotEnoughDiskError before copying.
    """
    folder.mkdir(parents=True, exist_ok=True)
    needed, free = one.size_bytes, shutil.disk_usage(folder).free
    if needed > free:
        raise NotEnoughDiskError(f"{folder} needs {needed / 1e9:.2f} GB and has {free / 1e9:.2f} GB free")
    target = folder / (one.path.name if one.path.suffix == ".gguf" else f"{one.name.replace(':', '-')}.gguf")
    if target.exists():
        raise OutputError(f"{target} exists; remove it first")
    partial = target.with_name(target.name + ".partial")
    try:
        digest = _copy(one.path, partial, progress)
        if one.sha256 and digest != one.sha256:
            raise ModelFileError(f"{one.path} changed since it was checked; pull it again")
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)
    with (folder / SUMS).open("a", encoding="utf-8") as sums:
        sums.write(f"{digest}  {target.name}\n")
    if card is not None:
        shutil.copyfile(card.path, folder / card.path.name)
    return target


def take_folder(folder: Path, progress: Progress = lambda n_bytes, total: None) -> list[Installed]:
    """Take the models that `export` left in a folder: checked against its checksums, then copied to our own.

    Raises ModelFileError when a checksum is missing or differs; what was taken before stays.
    """
    sums = _read_sums(folder)
    _take_cards(folder)
    taken = []
    for path in sorted(folder.glob("*.gguf")):
        if path.name not in sums:
            raise ModelFileError(f"{folder / SUMS} has no checksum of {path.name}; export it again with pull --to")
        inspect(path)
        target = store.own_folder() / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(target.name + ".partial")
        try:
            digest = _copy(path, partial, progress)
            if digest != sums[path.name]:
                raise ModelFileError(f"{path} is not what {SUMS} says; it was damaged on the way, copy it again")
            partial.replace(target)
        finally:
            partial.unlink(missing_ok=True)
        taken.append(store.adopt(target, digest))
    if not taken:
        raise ModelFileError(f"there is no .gguf file in {folder}")
    return taken


def _take_cards(folder: Path) -> None:
    """Cards of the user's own, that this machine does not know yet."""
    for path in sorted(folder.glob("*.toml")):
        card = read_card(path)
        if card.name not in cards():
            own = config_folder() / "models"
            own.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, own / path.name)


def _copy(source: Path, target: Path, progress: Progress) -> str:
    """Copy and hash in one reading. Answers the SHA-256 of what was copied."""
    digest, n_bytes, total = hashlib.sha256(), 0, source.stat().st_size
    with source.open("rb") as reading, target.open("wb") as writing:
        while piece := reading.read(1 << 22):
            digest.update(piece)
            writing.write(piece)
            n_bytes += len(piece)
            progress(n_bytes, total)
    return digest.hexdigest()


def _read_sums(folder: Path) -> dict[str, str]:
    try:
        lines = (folder / SUMS).read_text(encoding="utf-8").splitlines()
    except OSError:
        raise ModelFileError(
            f"{folder} has no {SUMS}; a folder to import is made with: q3e-local pull NAME --to DIR"
        ) from None
    return {name.lstrip("*"): digest.lower() for digest, _, name in (line.partition("  ") for line in lines) if name}
