"""Models that other programs on this machine already have: Ollama, LM Studio, the hub cache.

Knows where those programs keep models; only looks, and changes nothing of theirs.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from q3e_local.errors import ModelError, ModelFileError
from q3e_local.gguf.model_file import ModelInfo, inspect
from q3e_local.models.download.origins import hub_cache

# Where Ollama's installer for Linux lets the service keep its models.
OLLAMA_SERVICE = Path("/usr/share/ollama/.ollama/models")
_OLLAMA_HOST, _OLLAMA_NAMESPACE = "registry.ollama.ai", "library"
_OLLAMA_MODEL = "application/vnd.ollama.image.model"


@dataclass(frozen=True)
class Elsewhere:
    """A model file of another program that runs here. `name` is what `import` takes."""

    name: str
    program: str
    path: Path
    info: ModelInfo


def models_elsewhere() -> list[Elsewhere]:
    """All of them, without broken files and models of another kind: they are not ours to judge."""
    models = []
    for name, program, path in (*_ollama(), *_lm_studio(), *_hub_cache()):
        try:
            models.append(Elsewhere(name, program, path, inspect(path)))
        except ModelError:
            continue
    return models


def ollama_file(name: str) -> Path:
    """The file behind a name in Ollama's store. Raises ModelFileError when it is not there."""
    wanted = name if ":" in name.rsplit("/", 1)[-1] else f"{name}:latest"
    for listed, _, path in _ollama():
        if listed.lower() == f"ollama:{wanted}".lower():
            return path
    places = " or ".join(map(str, _ollama_folders()))
    raise ModelFileError(f"Ollama has no model {name!r} in {places}; `ollama list` shows what it has")


def _ollama_folders() -> list[Path]:
    chosen = os.environ.get("OLLAMA_MODELS")
    return [Path(chosen).expanduser()] if chosen else [Path("~/.ollama/models").expanduser(), OLLAMA_SERVICE]


def _ollama() -> Iterator[tuple[str, str, Path]]:
    manifests = [
        path
        for folder in _ollama_folders()
        if os.path.isdir(folder)  # noqa: PTH112 - Path's raises where the service's folder is closed to us
        for path in sorted(folder.glob("manifests/*/*/*/*"))
    ]
    for manifest in manifests:
        folder, (host, namespace, model, tag) = manifest.parents[4], manifest.parts[-4:]
        try:
            layers = json.loads(manifest.read_text(encoding="utf-8"))["layers"]
            digests = [layer["digest"] for layer in layers if layer["mediaType"] == _OLLAMA_MODEL]
        except (OSError, ValueError, KeyError, TypeError):
            continue
        short = [] if (host, namespace) == (_OLLAMA_HOST, _OLLAMA_NAMESPACE) else [namespace]
        if host != _OLLAMA_HOST:
            short.insert(0, host)
        for digest in digests:
            blob = folder / "blobs" / str(digest).replace(":", "-")
            if os.path.isfile(blob):  # noqa: PTH113 - as above
                yield f"ollama:{'/'.join([*short, model])}:{tag}", "Ollama", blob


def _lm_studio() -> Iterator[tuple[str, str, Path]]:
    for folder in ("~/.lmstudio/models", "~/.cache/lm-studio/models"):
        for path in sorted(Path(folder).expanduser().glob("**/*.gguf")):
            yield str(path), "LM Studio", path


def _hub_cache() -> Iterator[tuple[str, str, Path]]:
    for path in sorted(hub_cache().glob("models--*/snapshots/*/**/*.gguf")):
        yield str(path), "hub cache", path
