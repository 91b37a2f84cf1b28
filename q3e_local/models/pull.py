"""Bring a model to this machine: download its pinned file, or make it from one, and remember it.

The steps in order, and what is kept when one fails; knows neither HTTP nor GGUF.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

from q3e_local import convert
from q3e_local.errors import CardError, ModelNotHereError, OutputError
from q3e_local.files import sha256, state_folder
from q3e_local.models import download, installed
from q3e_local.models.card import ModelCard, ModelFile
from q3e_local.models.download.origins import Source, own_folder
from q3e_local.models.installed import Installed


@dataclass(frozen=True)
class Step:
    """How far a pull is: `what` it does, in bytes; or `what` it waits for, while nothing comes."""

    what: str
    done: int
    total: int
    is_waiting: bool = False


OnStep = Callable[[Step], None]


def pull(
    card: ModelCard,
    file: ModelFile,
    *,
    source: Source = "auto",
    offline: bool = False,
    keep: bool = False,
    progress: OnStep = lambda step: None,
) -> Installed:
    """The model's file, verified; downloads and quantizes what is missing.

    The source of a file that is made here stays only with `keep`, or if it was here before. Raises DownloadError,
    ModelNotHereError when offline or for a file that only `convert` makes, NotEnoughDiskError, or what convert
    raises.
    """
    if file.is_converted:
        here = installed.find(card, file)
        if here is None:
            raise ModelNotHereError(card.to_convert(file))
        return here
    if file.made_from is not None:
        return installed.find(card, file) or _make(card, file, source, offline, keep, progress)
    return _bring(card, file, source, offline, False, progress)


def _bring(
    card: ModelCard, file: ModelFile, source: Source, offline: bool, temporary: bool, progress: OnStep
) -> Installed:
    """The pinned file. A file that is here stays as recorded, but is temporary no more unless `temporary`."""
    here = installed.find(card, file)
    if here is not None and here.origin != "found":
        return here if temporary or not here.temporary else installed.record(replace(here, temporary=False))

    def report(what: str, n_bytes: int, is_waiting: bool) -> None:
        progress(Step(what, n_bytes, file.size_bytes, is_waiting))

    path = download.fetch(file, source=source, offline=offline, progress=report)
    if here is not None:
        return here  # another program's, and now verified
    assert file.sha256 is not None
    name = card.tag(file.quantization)
    return installed.record(Installed(name, path, file.size_bytes, "pulled", file.sha256, temporary))


def _make(card: ModelCard, file: ModelFile, source: Source, offline: bool, keep: bool, progress: OnStep) -> Installed:
    """Quantize it, from a file that is remembered as temporary until this has worked."""
    pinned = card.origin(file)
    assert pinned is not None
    if file.quantization not in convert.QUANTIZATIONS:
        raise CardError(
            f"{card.path}: files.{file.quantization} cannot be made; only {', '.join(convert.QUANTIZATIONS)}"
        )
    name = card.tag(file.quantization)
    assert pinned.sha256 is not None
    # Beside what it is made from, or would be: a later version of that has another folder.
    target = own_folder() / pinned.sha256[:12] / PurePosixPath(file.file).name
    try:
        with download.turn(state_folder() / "locks" / f"made-{pinned.sha256}.lock", f"making {name}"):
            here = installed.find(card, file)  # another process may have made it while we waited
            if here is not None:
                return here
            origin = _bring(card, pinned, source, offline, not keep, progress)
            target.parent.mkdir(parents=True, exist_ok=True)
            for left in target.parent.glob("q3e-convert-*"):  # of a process that was killed
                shutil.rmtree(left, ignore_errors=True)
            convert.quantize(
                origin.path,
                target,
                file.quantization,
                progress=lambda what, done, total: progress(Step(f"{what} {target.name}", done, total)),
                force=True,  # a recorded file was found above: a file that lies here was left behind
            )
            size_bytes = target.stat().st_size
            digest = sha256(target, lambda done: progress(Step(f"checksum {target.name}", done, size_bytes)))
            made = installed.record(Installed(name, target, size_bytes, "made", digest))
            if origin.temporary:
                installed.remove(origin.name)
            return made
    except OSError as error:
        raise OutputError(
            f"cannot make {name} in {target.parent}: {error}; choose another folder with Q3E_HOME"
        ) from None
