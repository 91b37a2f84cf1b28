"""A pinned file of a small hub, and what tests of its download ask: what was requested, what lies where."""

from __future__ import annotations

import hashlib
import os
import random
import subprocess
import sys
from pathlib import Path

from hub import Hub

from q3e_local.models.card import ModelFile
from q3e_local.models.download import origins

CONTENT = random.Random(1).randbytes(300_000)
OTHER = random.Random(2).randbytes(300_000)
REPO, REVISION, NAME = "Qwen/Tiny-GGUF", "0123456789abcdef0123456789abcdef01234567", "tiny-Q4_K_M.gguf"
FILE = ModelFile("q4_k_m", NAME, REPO, REVISION, len(CONTENT), hashlib.sha256(CONTENT).hexdigest())


# A program that downloads the file as huggingface_hub does it, and a program that does it as we do.
HF_DOWNLOAD = """
import sys, huggingface_hub
repo, revision, file = sys.argv[1:]
print(huggingface_hub.hf_hub_download(repo, file, revision=revision))
"""
_FETCH = """
import sys
from q3e_local.models import download
from q3e_local.models.card import ModelFile
repo, revision, file, size, sha256, source = sys.argv[1:]
print(download.fetch(ModelFile("q", file, repo, revision, int(size), sha256), source=source))
"""


def partial(source: str) -> Path:
    """Where the part of the file lies that has come."""
    return origins.origins(origins.pin(FILE), source)[0].partial


def put_partial(source: str, content: bytes) -> None:
    partial(source).parent.mkdir(parents=True)
    partial(source).write_bytes(content)


def ranges(hub: Hub) -> list[str | None]:
    """The ranges that were asked for, None for the whole file."""
    return [request.range for request in hub.contents_asked()]


def everything_below(*folders: Path) -> list[Path]:
    return [path for folder in folders for path in folder.rglob("*") if not path.is_dir() and path.suffix != ".lock"]


def start_fetch(source: str) -> subprocess.Popen[str]:
    arguments = [REPO, REVISION, NAME, str(FILE.size_bytes), str(FILE.sha256), source]
    return subprocess.Popen(
        [sys.executable, "-c", _FETCH, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def run_python(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    return subprocess.run(
        [sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=True, env=environment
    )
