"""Where model files are on this machine.

Knows folders and the hub cache that other tools share; nothing of what is in a file.
"""

from __future__ import annotations

import os
from pathlib import Path

from q3e_local.catalog import ModelCard, ModelFile, models_folder, resolve
from q3e_local.errors import ModelNotHereError


def locate(model: str | os.PathLike[str]) -> tuple[str, Path]:
    """The name to show and the file to load, for a model's name or a path.

    A path object, a name ending in `.gguf`, or anything that begins like a path or exists as a file is a path; it
    may turn out not to exist. Raises UnknownModelError, or ModelNotHereError with the ways to get the model.
    """
    if isinstance(model, os.PathLike) or _looks_like_path(model):
        path = Path(model).expanduser()
        return path.stem, path
    card, file = resolve(model)
    found = find(file)
    if found is None:
        raise ModelNotHereError(_ways_to_get(card, file))
    return card.name if file.quantization == card.default else f"{card.name}-{file.quantization}", found


def find(file: ModelFile) -> Path | None:
    """The file on this machine, or None: the package's own, or the pinned one in the hub cache, at its full size."""
    if file.repo is None:
        return models_folder() / file.file
    from huggingface_hub import try_to_load_from_cache  # not needed for a path or the demo model

    cached = try_to_load_from_cache(file.repo, file.file, revision=file.revision)
    if isinstance(cached, str) and Path(cached).stat().st_size == file.size_bytes:
        return Path(cached)
    return None


def _looks_like_path(model: str) -> bool:
    begins_like_one = model.startswith((".", "~", "/", "\\")) or (len(model) > 2 and model[1:3] in (":\\", ":/"))
    return begins_like_one or model.lower().endswith(".gguf") or Path(model).is_file()


def _ways_to_get(card: ModelCard, file: ModelFile) -> str:
    size = f"{(file.size_bytes or 0) / 1e9:.1f} GB"
    return (
        f"{card.name} is not on this machine ({file.file}, {size}). Get it with:\n"
        f"  hf download {file.repo} {file.file} --revision {file.revision}\n"
        "or behind a slow network through a mirror, with HF_ENDPOINT set to it;\n"
        "or name a file you have: -m PATH.gguf; or try the commands with the demo model: -m demo"
    )
