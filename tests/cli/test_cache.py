"""`q3e-local cache`: what it shows and forgets."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest
from command import run, write
from paths import ROOT
from resp import fake_redis
from vectors_for_caches import SPACE, item, key

from q3e_local.cache import VectorCache
from q3e_local.cache.choose import chosen, open_cache
from q3e_local.cli import _GROUPS
from q3e_local.files import cache_folder, config_folder
from q3e_local.gguf.model_file import inspect
from q3e_local.models.installed import locate
from q3e_local.space import Space


def demo_space() -> Space:
    return Space(inspect(locate("demo").path).digest, 256)


@pytest.fixture(params=["file", "redis"])
def cache(request, monkeypatch) -> VectorCache:
    """The cache that commands use, with 3 vectors of demo and 2 of a model that is not on this machine."""
    with fake_redis() as server:
        if request.param == "redis":
            monkeypatch.setenv("Q3E_CACHE", server.url)
        cache = open_cache(chosen(None))
        cache.put_many([item(f"text {number}", space=demo_space()) for number in range(3)])
        cache.put_many([item("one"), item("two")])
        yield cache
        cache.close()


def test_stats(cache):
    result = run("cache", "stats")
    assert result.exit_code == 0
    first, head, *rows = result.stdout.splitlines()
    assert first.startswith(f"{cache.where}: 5 vectors, ")
    assert first.endswith(" of at most 1.07 GB") == ("redis" not in cache.where)
    assert head.split() == ["model", "space", "kept", "size"]
    assert sorted(row.split() for row in rows) == sorted(
        [["demo", str(demo_space()), "3", "vectors", "0.0", "MB"], [str(SPACE), "2", "vectors", "0.0", "MB"]]
    )


def test_the_scores_of_a_reranker_are_one_row_and_no_vectors(cache):
    """Each question is a space of its own in the cache."""
    digest = inspect(locate("demo-reranker").path).digest
    for question in ("who?", "when?"):
        space = Space(digest, 1, question)
        cache.put_many([item(f"text {number}", space=space) for number in range(2)])
    of_all, _, *rows = run("cache", "stats").stdout.splitlines()
    assert ": 5 vectors, 4 scores, " in of_all
    (row,) = (row.split() for row in rows if "scores" in row)
    together = f"q3e1-{digest[:16]}-1"
    assert (len(rows), row) == (3, ["demo-reranker", together, "4", "scores", "0.0", "MB"])
    facts = json.loads(run("cache", "stats", "--json").stdout)
    assert (facts["vectors"], facts["scores"], len(facts["spaces"])) == (5, 4, 3)
    (of_reranker,) = (entry for entry in facts["spaces"] if entry["space"] == together)
    assert of_reranker == {
        "space": together, "model": "demo-reranker", "vectors": 0, "scores": 4, "size_bytes": 4 * (4 + 20),
    }  # fmt: skip
    assert run("cache", "clear", "--yes", "--space", together).stdout == "forgot 4 scores\n"
    assert cache.stats().n_vectors == 5
    cache.put_many([item("text", space=Space(digest, 1, "who?"))])
    assert run("cache", "clear", "--yes").stdout == "forgot 6 vectors and scores\n"


def test_stats_as_json(cache):
    facts = json.loads(run("cache", "stats", "--json").stdout)
    assert facts.pop("size_bytes") >= 5 * 256
    assert sorted(facts.pop("spaces"), key=lambda space: space["vectors"]) == [
        {"space": str(SPACE), "model": "", "vectors": 2, "scores": 0, "size_bytes": 2 * (4 * 64 + 20)},
        {"space": str(demo_space()), "model": "demo", "vectors": 3, "scores": 0, "size_bytes": 3 * (4 * 256 + 20)},
    ]
    limit = None if "redis" in cache.where else 1 << 30
    assert facts == {"where": cache.where, "vectors": 5, "scores": 0, "limit_bytes": limit}


@pytest.mark.parametrize(
    ("arguments", "n_forgotten", "rest"),
    [
        ([], 5, 0), (["--model", "demo"], 3, 2), (["-m", "demo", "--space", str(SPACE)], 5, 0),
        (["--space", str(SPACE)], 2, 3), (["--space", "q3e1-another"], 0, 5),
    ],
)  # fmt: skip
def test_clear(cache, arguments, n_forgotten, rest):
    result = run("cache", "clear", "--yes", *arguments)
    assert (result.exit_code, result.stdout) == (0, f"forgot {n_forgotten} vectors\n")
    assert cache.stats().n_vectors == rest


@pytest.mark.parametrize(("answer", "n_left"), [("y\n", 2), ("n\n", 5), ("\n", 5)])
def test_clear_asks_and_says_how_many(cache, answer, n_left):
    result = run("cache", "clear", "-m", "demo", input=answer)
    assert result.exit_code == 0
    assert f"{cache.where}: forget 3 vectors? [y/N]" in result.stderr
    assert ("nothing was forgotten" in result.stderr) == (n_left == 5)
    assert cache.stats().n_vectors == n_left


def test_clear_without_an_answer_forgets_nothing(cache):
    result = run("cache", "clear")
    assert result.exit_code == 2
    assert "nobody answered, so nothing was forgotten; give --yes" in result.stderr
    assert cache.stats().n_vectors == 5


@pytest.mark.parametrize("name", ["demo-query", "DEMO:latest", "mine", "mine-query"])
def test_clear_knows_all_names_of_a_model(cache, name):
    write(config_folder(), {"config.toml": '[aliases]\nmine = {model = "demo", dim = 48}'})
    assert run("cache", "clear", "-m", name, "-y").stdout == "forgot 3 vectors\n"


@pytest.mark.parametrize(("name", "exit_code"), [("qwen3-embedding:4b", 1), ("gone.gguf", 1), ("nobody's", 2)])
def test_a_model_that_is_not_here_is_named_with_the_way_to_do_without_it(cache, name, exit_code):
    result = run("cache", "clear", "-m", name, "-y")
    assert result.exit_code == exit_code
    assert name.removesuffix(".gguf") in result.stderr
    assert "pull" not in result.stderr
    assert "named by --space, as q3e-local cache stats shows it" in result.stderr
    assert cache.stats().n_vectors == 5


def test_an_empty_cache_is_shown_and_not_made():
    result = run("cache", "stats")
    assert (result.exit_code, result.stdout) == (
        0, f"{cache_folder() / 'vectors.sqlite'}: 0 vectors, 0.0 MB of at most 1.07 GB\n",
    )  # fmt: skip
    assert run("cache", "clear").stdout == "forgot 0 vectors\n"
    assert not cache_folder().exists()


def test_help_names_the_commands_that_keep_vectors():
    (named,) = re.findall(r"before: ([\w\s,]+?)\s+and\s+the\s+jobs\s+keep", run("cache", "--help").stdout)
    names = [name for title, group in _GROUPS.items() if title != "Jobs with texts" for name in group]
    keep = [name for name in names if "--cache / --no-cache" in run(name, "--help").stdout]
    assert re.split(r",\s+", named) == keep


@pytest.mark.parametrize("command", ["stats", "clear"])
def test_a_cache_that_is_off(command, monkeypatch):
    monkeypatch.setenv("Q3E_CACHE", "off")
    result = run("cache", command)
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "the cache is off, says Q3E_CACHE\n")


@pytest.mark.parametrize("command", ["stats", "clear"])
def test_a_cache_that_cannot_be_loaded_is_not_called_off(command, monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "q3e_local.cache.sqlite", None)
    result = run("cache", command)
    assert (result.exit_code, result.stdout, "Q3E_CACHE" in result.stderr) == (1, "", False)
    assert "SQLite cannot be loaded" in caplog.text


@pytest.mark.parametrize("command", ["stats", "clear"])
@pytest.mark.parametrize("where", ["redis://127.0.0.1:9/0", "folder"])
def test_a_cache_that_cannot_be_read(command, where, monkeypatch, caplog):
    Path("folder").mkdir()
    monkeypatch.setenv("Q3E_CACHE", where)
    result = run("cache", command)
    assert (result.exit_code, result.stdout) == (1, "")
    assert where.partition("/")[0] in caplog.text


@pytest.mark.parametrize("command", ["stats", "clear"])
def test_settings_that_mean_nothing_are_wrong_usage(command, monkeypatch):
    monkeypatch.setenv("Q3E_CACHE", "http://here")
    assert run("cache", command).exit_code == 2
    monkeypatch.setenv("Q3E_CACHE", "on")
    monkeypatch.setenv("Q3E_CACHE_SIZE", "many")
    assert run("cache", command).exit_code == 2


def test_the_commands_of_the_docs_run():
    docs = (ROOT / "docs" / "cache.md").read_text(encoding="utf-8")
    commands = re.findall(r"^q3e-local (.*?) +#", docs, re.MULTILINE)
    assert len(commands) == 2
    for command in commands:
        assert run(*command.split()).exit_code == 0


def test_what_is_forgotten_is_not_found(cache):
    run("cache", "clear", "--yes", "--space", str(SPACE))
    assert cache.get_many([key("one"), key("two")]) == [None, None]
