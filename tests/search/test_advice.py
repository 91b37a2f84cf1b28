"""For an index of another model, `search` and `index` advise a command that works, whatever the model's path."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from command import failed, run, write

import q3e_local
from q3e_local import DEFAULT_MODEL, VectorIndex
from q3e_local.errors import SpaceMismatchError
from q3e_local.search.places import quoted

NOTES = {"cat.txt": "The neighbour fed the cat. It was grey.", "plan.txt": "We plant beans in May."}


@pytest.fixture(autouse=True)
def _notes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("Q3E_HOME", str(tmp_path / "home"))
    write(tmp_path / "notes", NOTES)


@pytest.fixture
def tiny(tmp_path: Path, tiny_gguf: Callable[..., Path]) -> Path:
    """A model file whose path needs quotes in a command line."""
    (tmp_path / "my models").mkdir()
    return Path(shutil.copy(tiny_gguf("f16"), tmp_path / TINY))


TINY = "my models/tiny one.gguf"
ADVICE = re.compile(r"anew with: q3e-local (.*)$")


@pytest.mark.skipif(sys.platform == "win32", reason="quotes of another kind")
@pytest.mark.parametrize(
    ("made_with", "asked_with", "dim", "where"),
    [
        (["-m", "demo"], ["-m", TINY], 256, []),
        (["-m", "demo", "-d", 64], ["-m", TINY], 64, ["--name", "work"]),
        (["-m", TINY, "-d", 64], ["-m", "demo"], 64, ["--db", "my notes.q3e"]),
        (["-m", TINY], ["-m", "my models/other.gguf"], 256, []),
    ],
)
def test_the_advice_for_an_index_of_another_model_is_a_command_that_works(
    made_with, asked_with, dim, where, tiny, tiny_gguf
):
    shutil.copy(tiny_gguf("q8_0"), tiny.with_name("other.gguf"))
    assert run("index", "notes", *made_with, *where, "-q").exit_code == 0
    advice = ADVICE.search(failed("search", "cat", *asked_with, *where).rstrip())
    assert run(*shlex.split(advice[1]), "-q").exit_code == 0
    for again in (asked_with, []):  # the index knows where its model is
        assert run("search", "cat", *again, *where, "-k", 1).exit_code == 0
    shown = json.loads(run("index", "show", "--json", *where).stdout)
    assert shown["dim"] == dim


@pytest.mark.skipif(sys.platform == "win32", reason="quotes of another kind")
def test_the_advice_where_indexing_is_refused_works_too(tiny):
    assert run("index", "notes", "-m", "demo", "-d", 64, "-q").exit_code == 0
    advice = ADVICE.search(failed("index", "notes", "-m", TINY).rstrip())
    assert run(*shlex.split(advice[1]), "-q").exit_code == 0
    assert run("index", "notes", "-m", TINY).stderr.startswith("files: 2 unchanged")


def test_the_library_gives_the_same_advice_for_a_model_by_its_path(tmp_path, tiny):
    with q3e_local.load("demo") as embedder, VectorIndex("own.q3e", embedder) as index:
        index.add(["a text about a cat"])
    with q3e_local.load(tiny) as embedder, pytest.raises(SpaceMismatchError) as caught:
        VectorIndex("own.q3e", embedder)
    command = f"q3e-local index rebuild --db {quoted(tmp_path / 'own.q3e')} -m {quoted(tiny)} -d 256"
    assert caught.value.command == command
    assert str(caught.value).endswith(command)


def test_an_index_of_ones_own_vectors_is_given_a_model_by_the_command_that_is_named(tmp_path):
    with VectorIndex("own.q3e", dim=3) as index:
        index.add_vectors(["the cat sleeps", "rivers and lakes"], np.eye(2, 3))
    refused = failed("search", "cat", "--db", "own.q3e", code=2)
    command = refused.rstrip().partition("with a model: q3e-local ")[2]
    assert command.endswith(f"-m {DEFAULT_MODEL}")
    assert run(*shlex.split(command.replace(DEFAULT_MODEL, "demo"))).exit_code == 0
    assert json.loads(run("search", "cat", "--db", "own.q3e", "-k", 1).stdout)["text"] == "the cat sleeps"


def test_a_model_that_was_moved_is_missed_when_something_is_to_be_embedded(tmp_path, tiny):
    assert run("index", "notes", "-m", tiny, "-q").exit_code == 0
    tiny.rename(tmp_path / "moved.gguf")
    write(tmp_path, {"notes/new.txt": "a new text"})
    said = failed("index", "notes")
    assert f"holds 256-dim vectors of {tiny}" in said
    assert said.endswith("say where it is with --model\n")
    assert run("index", "notes", "-m", tmp_path / "moved.gguf", "-q").exit_code == 0
