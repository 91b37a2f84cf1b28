"""Versions and failures: one sentence on stderr, the right exit code, never a traceback; and nothing heavy loaded."""

from __future__ import annotations

import os
import subprocess

import pytest
from command import PROGRAM, embed, listing, loaded_by, run, write

import q3e_local
from q3e_local.models.catalog import models_folder


def test_version():
    result = run("--version")
    assert (result.exit_code, result.stdout) == (0, f"q3e-local, version {q3e_local.__version__}\n")


@pytest.mark.parametrize("arguments", [["--version"], ["--help"], ["embed", "--help"]])
def test_python_m_is_the_command(arguments):
    got = subprocess.run([*PROGRAM, *arguments], capture_output=True, check=True)
    wanted = run(*arguments).stdout
    assert got.stdout.decode().replace("\r\n", "\n").split() == wanted.replace("main", "q3e-local").split()
    assert got.stderr == b""


HEAVY = {"llama_cpp", "huggingface_hub", "rich", "pyarrow", "psutil"}
OF_SERVER = {"starlette", "uvicorn", "uvloop", "prometheus_client", "llama_cpp"}


@pytest.mark.parametrize(
    ("arguments", "heavy"),
    [
        ("--help", HEAVY | OF_SERVER | {"numpy"}),
        ("--version", HEAVY | {"numpy"}),
        ("embed --help", HEAVY),
        ("embed --id x", HEAVY),
        ("serve --help", OF_SERVER),
        ("serve --port -1", OF_SERVER),
        ("service print", OF_SERVER),
        ("ps -h", OF_SERVER),
    ],
)
def test_help_and_refusals_load_nothing_heavy(arguments, heavy):
    assert not heavy & loaded_by(*arguments.split())


# Arguments of embed, exit code, what the sentence holds.
FAILURES = {
    "a model nobody knows": (
        ["-m", "bert", "--text", "one"], 2, ["there is no model 'bert'; all models: q3e-local list --all"],
    ),
    "a model's path that does not exist": (["-m", "nowhere/x.gguf", "--text", "one"], 1, ["nowhere/x.gguf"]),
    "a model's path is a folder": (["-m", "folder.gguf", "--text", "one"], 1, ["folder.gguf is a directory"]),
    "a folder by a path": (["-m", "./notes", "--text", "one"], 1, ["notes is a directory"]),
    "a model that is no GGUF": (["-m", "prose.gguf", "--text", "one"], 1, ["prose.gguf is not a GGUF file"]),
    "a file for a model, whatever its name": (["-m", "a.txt", "--text", "one"], 1, ["a.txt is not a GGUF file"]),
    "an empty model": (["-m", "empty.gguf", "--text", "one"], 1, ["empty.gguf"]),
    "half a model": (["-m", "half.gguf", "--text", "one"], 1, ["half.gguf"]),
    "a model's name too long for a file": (["-m", "x" * 300, "--text", "one"], 2, ["there is no model 'xxx"]),
    "no such file": (
        ["-m", "demo", "nowhere.txt"], 1,
        ["there is no file or folder nowhere.txt; to take the words themselves, give --text"],
    ),
    "a file that is there and one that is not": (["-m", "demo", "a.txt", "no.txt"], 1, ["no file or folder no.txt"]),
    "words for a file": (["-m", "demo", "What did we decide? " * 20], 1, ["What did we decide?", "cannot be read: "]),
    "a folder without files": (["-m", "demo", "empty"], 1, ["the folder empty has no files"]),
    "a folder without such files": (
        ["-m", "demo", "notes", "--glob", "*.rst"], 1, ["the folder notes has no files that match '*.rst'"],
    ),
    "a folder of hidden files": (["-m", "demo", "hidden"], 1, ["the folder hidden has no files"]),
    "nothing on stdin": (["-m", "demo"], 1, ["stdin has no text in it"]),
    "no lines": (["-m", "demo", "--lines", "blank.txt"], 1, ["there are no texts in the input"]),
    "no records": (["-m", "demo", "--jsonl", "text", "blank.txt"], 1, ["there are no texts in the input"]),
    "no rows": (["-m", "demo", "--csv", "text", "rows.csv"], 1, ["there are no texts in the input"]),
    "an argument that is no text": (
        ["-m", "demo", "--text", os.fsdecode(b"caf\xe9")], 1, ["text:1 character 3 is the lone surrogate"],
    ),
}  # fmt: skip


@pytest.mark.parametrize(("arguments", "code", "said"), FAILURES.values(), ids=FAILURES)
def test_a_failure_is_a_sentence_and_an_exit_code(arguments, code, said, tmp_path):
    model = (models_folder() / "demo.gguf").read_bytes()
    write(tmp_path, {
        "a.txt": "one\n", "notes/b.txt": "two", "hidden/.c": "three", "blank.txt": "\n \n", "rows.csv": "text\n",
        "prose.gguf": "Dear Sir or Madam", "empty.gguf": b"", "half.gguf": model[: len(model) // 2],
    })  # fmt: skip
    (tmp_path / "folder.gguf").mkdir()
    (tmp_path / "empty").mkdir()
    before = listing(tmp_path)
    result = run("embed", *arguments, "-o", "out.jsonl")
    assert result.exit_code == code
    assert result.stderr.startswith("Error: ")
    assert len(result.stderr.splitlines()) == 1
    assert [part for part in said if part not in result.stderr] == []
    assert listing(tmp_path) == before


def test_the_default_model_that_is_not_here_comes_with_the_ways_to_get_it():
    result = run("embed", "--text", "one")
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: qwen3-embedding:4b (2.5 GB) is not on this machine")
    for way in ("q3e-local pull qwen3-embedding:4b\n", "q3e-local import", "-m demo", "in Python load('demo')"):
        assert way in result.stderr


def test_a_failure_has_no_traceback_in_a_real_process(tmp_path):
    (tmp_path / "x.gguf").write_bytes(b"GGUF" + b"\xff" * 100)
    got = subprocess.run([*PROGRAM, "embed", "-m", "x.gguf", "--text", "one"], capture_output=True, check=False)
    assert got.returncode == 1
    assert got.stdout == b""
    assert got.stderr.startswith(b"Error: x.gguf ")
    assert got.stderr.count(b"\n") == 1


def test_a_fault_of_ours_is_not_hidden(monkeypatch):
    monkeypatch.setattr("q3e_local.load", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        embed("--text", "one")
