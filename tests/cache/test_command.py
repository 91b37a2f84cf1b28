"""`q3e-local embed` with a cache: what it keeps, what it reports, and that a broken cache costs no vector."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from alike import assert_alike
from command import embed, expected, run, write

from q3e_local.files import cache_folder


def report(*arguments: object) -> str:
    result = embed(*arguments)
    assert result.exit_code == 0, result.output
    return result.stderr.splitlines()[0]


def test_embed_keeps_vectors_and_says_how_many_were(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path, {"a.txt": "one\ntwo\nthree\n", "b.txt": "two\nthree\nfour\nfive\n"})
    assert re.fullmatch(r"3 texts, 6 tokens in [\d.]+ s: [\d,]+ tokens/s", report("--lines", "a.txt"))
    line = report("--lines", "b.txt", "-o", "b.npy")
    assert re.fullmatch(r"4 texts \(2 from the cache\), 8 tokens in [\d.]+ s, the others at [\d,]+ tokens/s", line)
    assert_alike(np.load("b.npy"), expected(["two", "three", "four", "five"]).vectors)
    line = report("--lines", "b.txt", "-d", 64, "-o", "b64.npy")
    assert re.fullmatch(r"4 texts \(4 from the cache\), 8 tokens in [\d.]+ s", line)
    assert_alike(np.load("b64.npy"), expected(["two", "three", "four", "five"], dim=64).vectors)
    assert "cache" not in report("--lines", "b.txt", "--no-cache")
    assert run("cache", "stats").stdout.splitlines()[0].split(": ")[1].startswith("5 vectors")


@pytest.mark.parametrize(
    ("variable", "flag", "is_kept"),
    [(None, "--no-cache", False), ("off", None, False), ("off", "--cache", True), ("mine.sqlite", None, True),
     ("mine.sqlite", "--no-cache", False)],
)  # fmt: skip
def test_the_flag_and_the_variable(tmp_path, monkeypatch, variable, flag, is_kept):
    monkeypatch.chdir(tmp_path)
    if variable is not None:
        monkeypatch.setenv("Q3E_CACHE", variable)
    flags = [] if flag is None else [flag]
    lines = [report("--text", "one", *flags) for _ in range(2)]
    assert ["1 from the cache" in line for line in lines] == [False, is_kept]
    assert Path("mine.sqlite").exists() == (is_kept and variable == "mine.sqlite")
    assert (cache_folder() / "vectors.sqlite").exists() == (is_kept and variable != "mine.sqlite")


def test_a_server_has_its_own_cache():
    for flag in ("--cache", "--no-cache"):
        result = embed("--text", "one", "--server", "http://127.0.0.1:9", flag)
        assert result.exit_code == 2
        assert "the server has its own" in result.stderr


def test_a_cache_that_means_nothing_is_wrong_usage(monkeypatch):
    monkeypatch.setenv("Q3E_CACHE", "http://here")
    assert embed("--text", "one").exit_code == 2


def test_a_damaged_cache_costs_a_warning_and_no_vector(monkeypatch, tmp_path, caplog):
    monkeypatch.chdir(tmp_path)
    wanted = expected(["one", "two"]).vectors
    write(cache_folder(), {"vectors.sqlite": "no database"})
    for n_kept in (0, 2):
        result = embed("--text", "one", "--text", "two", "-o", "out.npy", "--force")
        assert result.exit_code == 0
        assert_alike(np.load("out.npy"), wanted)
        assert ("2 from the cache" in result.stderr) == (n_kept == 2)
    assert caplog.text.count("is damaged") == 1
