"""`q3e-local import` finds what Ollama, LM Studio and other users of the hub cache have, and only looks."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from command import failed, listing, run
from paths import ROOT
from world import Q8_0, digest, origins, rows

from q3e_local.models import other_programs

MakeGguf = Callable[..., Path]
KIND = "application/vnd.ollama.image."


def add_to_ollama(store: Path, name: str, model: Path) -> Path:
    """As `ollama pull` leaves it: a manifest by name, the layers by digest. Answers the blob."""
    blob = store / "blobs" / f"sha256-{digest(model)}"
    blob.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(model, blob)
    manifest = store / "manifests" / name
    manifest.parent.mkdir(parents=True, exist_ok=True)
    layers = [
        {"mediaType": f"{KIND}license", "digest": f"sha256:{'0' * 64}", "size": 1},
        {"mediaType": f"{KIND}model", "digest": f"sha256:{digest(model)}", "size": model.stat().st_size},
    ]
    manifest.write_text(json.dumps({"schemaVersion": 2, "config": {}, "layers": layers}))
    return blob


@pytest.fixture(autouse=True)
def _no_service(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("OLLAMA_MODELS", raising=False)
    monkeypatch.setattr(other_programs, "OLLAMA_SERVICE", tmp_path / "service")


@pytest.fixture
def ollama(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_gguf: MakeGguf) -> Path:
    store = tmp_path / "ollama"
    monkeypatch.setenv("OLLAMA_MODELS", str(store))
    add_to_ollama(store, "registry.ollama.ai/library/tiny-embedding/latest", tiny_gguf("f16", context_length=512))
    add_to_ollama(store, "registry.ollama.ai/someone/tiny/8b", tiny_gguf("q8_0", context_length=512))
    add_to_ollama(store, "hf.co/Someone/Tiny-1B-GGUF/Q8_0", tiny_gguf("q8_0"))
    add_to_ollama(store, "registry.ollama.ai/library/chat/latest", tiny_gguf("f32", pooling=None))
    (store / "manifests/registry.ollama.ai/library/broken").mkdir()
    (store / "manifests/registry.ollama.ai/library/broken/latest").write_text("{")
    return store


def test_nothing_there_is_said(world):
    result = run("import")
    assert (result.exit_code, result.stdout) == (0, "")
    assert "no Qwen3-Embedding or Qwen3-Reranker models of Ollama, LM Studio or the hub cache here" in result.stderr


def test_rerankers_are_listed_as_what_they_are(world, tmp_path):
    theirs = tmp_path / "home" / ".lmstudio" / "models" / "ranker.gguf"
    theirs.parent.mkdir(parents=True)
    shutil.copyfile(ROOT / "models" / "demo-reranker.gguf", theirs)
    assert run("import").stdout == f"{theirs}  3.9 MB  q4_0  reranker  LM Studio\n"


def test_the_folder_of_ollamas_service_may_be_closed_to_us(world, monkeypatch):
    looked = Path.stat

    def stat(path: Path, **options: bool) -> os.stat_result:
        if other_programs.OLLAMA_SERVICE in (path, *path.parents):
            raise PermissionError(13, "Permission denied")
        return looked(path, **options)

    monkeypatch.setattr(Path, "stat", stat)
    assert other_programs.models_elsewhere() == []


def test_all_three_are_listed_with_what_import_takes(world, ollama, tmp_path):
    theirs = tmp_path / "home" / ".lmstudio" / "models" / "someone" / "tiny" / "tiny q8.gguf"
    theirs.parent.mkdir(parents=True)
    shutil.copyfile(world.q8_0, theirs)
    (theirs.parent / "broken.gguf").write_bytes(b"GGUF")
    run("pull", "tiny:1b-q8_0")
    cached = rows()["tiny:1b-q8_0"]["path"]
    before = {**listing(ollama), **listing(theirs.parent)}
    result = run("import")
    assert result.exit_code == 0
    size = f"{world.q8_0.stat().st_size / 1e6:.1f} MB"
    assert result.stdout.splitlines() == [
        f"ollama:hf.co/Someone/Tiny-1B-GGUF:Q8_0  {size}  q8_0  embedder  Ollama",
        f"ollama:tiny-embedding:latest  {world.f16.stat().st_size / 1e6:.1f} MB  f16  embedder  Ollama",
        f"ollama:someone/tiny:8b  {size}  q8_0  embedder  Ollama",
        f"{theirs}  {size}  q8_0  embedder  LM Studio",
        f"{cached}  {size}  q8_0  embedder  hub cache",
    ]
    assert "Take one with: q3e-local import NAME" in result.stderr
    for line in result.stdout.splitlines():
        assert run("import", line.split(f"  {size}")[0].split("  ")[0], "-q").exit_code == 0
    assert {**listing(ollama), **listing(theirs.parent)} == before
    assert Q8_0 in world.models()


@pytest.mark.parametrize("name", ["tiny-embedding", "tiny-embedding:latest", "Tiny-Embedding"])
def test_import_takes_ollamas_blob_without_a_copy(world, ollama, tiny_gguf, name):
    blob = ollama / "blobs" / f"sha256-{digest(tiny_gguf('f16', context_length=512))}"
    result = run("import", f"ollama:{name}")
    assert result.stdout == f"tiny-qwen3-embedding is at {blob}\n"
    assert world.models() == []
    assert run("embed", "-m", "tiny-qwen3-embedding", "--text", "one").exit_code == 0
    assert run("rm", "tiny-qwen3-embedding", "-y").exit_code == 0
    assert blob.exists()


def test_import_knows_a_cards_file_in_ollamas_store(world, ollama):
    assert run("import", "ollama:hf.co/Someone/Tiny-1B-GGUF:Q8_0").exit_code == 0
    assert origins() == {"tiny:1b-q8_0": "imported"}


def test_import_gives_ollamas_model_the_name_asked_for(world, ollama):
    assert run("import", "ollama:someone/tiny:8b", "--name", "mine:8b").exit_code == 0
    assert origins() == {"mine:8b": "imported"}


def test_an_unknown_name_of_ollamas_says_where_was_looked(world, ollama):
    stderr = failed("import", "ollama:tiny-embedding:8b")
    assert f"Ollama has no model 'tiny-embedding:8b' in {ollama}; `ollama list` shows" in stderr


def test_a_chat_model_of_ollamas_is_refused(world, ollama):
    assert "states no pooling" in failed("import", "ollama:chat")


def test_ollamas_own_folder_and_its_services_are_found(world, tmp_path, tiny_gguf):
    add_to_ollama(tmp_path / "home/.ollama/models", "registry.ollama.ai/library/mine/latest", tiny_gguf("f16"))
    add_to_ollama(tmp_path / "service", "registry.ollama.ai/library/its/latest", tiny_gguf("q8_0"))
    lines = run("import").stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["ollama:mine:latest", "ollama:its:latest"]
