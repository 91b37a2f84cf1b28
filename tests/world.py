"""A machine for the tests of what happens to models: two hubs on loopback, and a user's card for a tiny model.

The hubs have `tiny:1b-f16` and `tiny:1b-q8_0`; `tiny:1b` itself is Q4_K_M and has to be made.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from command import listing, run
from hub import Hub, go_online, serve

# These are on every machine: they ship with the program.
BUNDLED = ["demo", "demo-reranker"]
# As a server lists them.
BUNDLED_LATEST = [f"{name}:latest" for name in BUNDLED]

REPO, REVISION = "Someone/Tiny-1B-GGUF", "0123456789abcdef0123456789abcdef01234567"
F16, Q8_0, Q4_K_M = "Tiny-1B-f16.gguf", "Tiny-1B-Q8_0.gguf", "Tiny-1B-Q4_K_M.gguf"
QUERIES = ["What is the capital of China?", "Explain gravity"]
DOCUMENTS = ["The capital of China is Beijing.", "Gravity is a force that attracts two bodies."]

CARD = r"""
name = "tiny:1b"
aliases = ["Tiny-1B", "Someone/Tiny-1B-GGUF"]
description = "random weights"
license = "MIT"
default = "q4_k_m"

[sizes]
parameters = 2_000_000
n_layer = 3
n_embd = 256
n_vocab = 1021
n_ctx = 2048

[prompts]
query = "Instruct: {instruction}\nQuery:{text}"
instruction = "Find it"

[source]
repo = "Someone/Tiny-1B-GGUF"
revision = "0123456789abcdef0123456789abcdef01234567"

[files.q4_k_m]
made_from = "f16"
file = "Tiny-1B-Q4_K_M.gguf"
size_bytes = 1_400_000

[files.q8_0]
file = "Tiny-1B-Q8_0.gguf"
size_bytes = Q8_0_SIZE
sha256 = "Q8_0_SHA256"

[files.f16]
file = "Tiny-1B-f16.gguf"
size_bytes = F16_SIZE
sha256 = "F16_SHA256"
"""


@dataclass(frozen=True)
class World:
    """`home` is Q3E_HOME, `cache` the hub cache; `f16` and `q8_0` are good files that no command has seen yet."""

    hub: Hub
    modelscope: Hub
    home: Path
    cache: Path
    f16: Path
    q8_0: Path

    @property
    def card(self) -> Path:
        return self.home / "config" / "models" / "tiny.toml"

    def write_card(self, *changes: tuple[str, str], scores: list[list[float]] | None = None) -> None:
        """The card, with some texts of it replaced. A card is read once: call this before any command."""
        text = CARD
        for name, path in (("F16", self.f16), ("Q8_0", self.q8_0)):
            text = text.replace(f"{name}_SIZE", str(path.stat().st_size)).replace(f"{name}_SHA256", digest(path))
        for old, new in changes:
            assert old in text
            text = text.replace(old, new)
        if scores is not None:
            table = {"queries": QUERIES, "documents": DOCUMENTS, "expected": scores}
            text += "\n[scores]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in table.items())
        self.card.parent.mkdir(parents=True, exist_ok=True)
        self.card.write_text(text, encoding="utf-8")

    def requests(self) -> list[str]:
        """The files whose contents were asked for, by either hub."""
        requests = [*self.hub.contents_asked(), *self.modelscope.contents_asked()]
        return [request.path.rsplit("/", 1)[1] for request in requests]

    def models(self) -> list[str]:
        """The names of all model files of ours and in the cache, and of what should not be left of them."""
        found = [Path(name) for folder in (self.home / "data", self.cache) for name in listing(folder)]
        return sorted(
            path.name for path in found if path.suffix not in (".json", ".lock") and "blobs" not in path.parts
        )


@contextmanager
def world_of(monkeypatch: pytest.MonkeyPatch, folder: Path, gguf: Callable[..., Path]) -> Iterator[World]:
    """Two hubs that have the files, and a clean home that has the card."""
    go_online(monkeypatch, folder)
    with serve() as hub, serve() as modelscope:
        world = World(hub, modelscope, folder / "q3e", folder / "hub", gguf("f16"), gguf("q8_0"))
        for server in (hub, modelscope):
            server.add(REPO, REVISION, F16, world.f16.read_bytes())
            server.add(REPO, REVISION, Q8_0, world.q8_0.read_bytes())
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        monkeypatch.setenv("Q3E_MODELSCOPE_ENDPOINT", modelscope.url)
        world.write_card()
        yield world


def flip_bit(path: Path, place: int = -1) -> None:
    """Damage a file, whose size stays."""
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def rows() -> dict[str, dict[str, Any]]:
    """What `list` has, by name, the bundled models left out."""
    result = run("list", "--json")
    assert result.exit_code == 0
    return {row["name"]: row for row in json.loads(result.stdout) if row["name"] not in BUNDLED}


def origins() -> dict[str, str]:
    return {name: row["origin"] for name, row in rows().items()}
