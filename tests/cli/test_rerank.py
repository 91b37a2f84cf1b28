"""`q3e-local rerank` as people call it: what it reads, what it prints, where, and with which exit code.

The reranker is a fake: "!" in a document speaks for it, "?" against it.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import rerankers
from command import assert_refused, failed, run, write
from fake_reranker import FakeRerankEngine
from fake_service import FakeService, served
from paths import TESTS
from screen import on_screen

from q3e_local.cache.choose import open_cache
from q3e_local.reranking.rank_model import probability as sigmoid
from q3e_local.reranking.reranker import Reranker

LINES = "no??\nyes!!!\nperhaps!\n"


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Every command finds the fake loaded. Its last `engine`, and what it was loaded with, by `model` and options.

    `limit` and `bad`, where a test sets them, are the engine's.
    """
    monkeypatch.setenv("Q3E_HOME", str(tmp_path / "home"))
    found: dict[str, Any] = {}

    def load(model: str, *, cache: str, **options: Any) -> Reranker:
        engine = FakeRerankEngine(found.get("limit", 2000), bad=found.get("bad"))
        engine.decode = found.get("decode", engine.decode)
        found.update(engine=engine, model=model, cache=cache, options=options)
        return Reranker(engine, "fake-reranker", cache=open_cache(cache))

    monkeypatch.setattr("q3e_local.load_reranker", load)
    write(tmp_path, {"lines.txt": LINES, "docs/a.md": "# A\n\nyes!", "docs/b.txt": "no?"})
    return found


def ranked(*arguments: object, input: str | None = None) -> list[dict[str, Any]]:
    """The records of `q3e-local rerank QUESTION ARGUMENTS`."""
    result = run("rerank", "who?", *arguments, input=input)
    assert result.exit_code == 0, result.stderr
    return [json.loads(line) for line in result.stdout.splitlines()]


# What is read, and in which order it comes out


def test_lines_come_out_best_first(fake):
    n_fixed = len(rerankers.PREFIX) + len(rerankers.SUFFIX)
    n_body = len(f"<Instruct>: {rerankers.WEB}\n<Query>: who?\n<Document>: ")
    assert ranked("--lines", "lines.txt") == [
        {
            "index": index, "id": f"lines.txt:{index + 1}", "score": pytest.approx(1 / (1 + math.exp(-logit))),
            "logit": logit, "tokens": n_fixed + n_body + len(text), "truncated": False, "text": text,
        }
        for index, text, logit in [(1, "yes!!!", 3), (2, "perhaps!", 1), (0, "no??", -2)]
    ]  # fmt: skip
    assert [record["id"] for record in ranked("--lines", "lines.txt", "-k", 1)] == ["lines.txt:2"]
    assert len(ranked("--lines", "lines.txt", "--top", 99)) == 3


def test_equal_documents_stand_in_the_order_they_came_in(fake):
    assert [record["index"] for record in ranked("--text", "a!", "--text", "b", "--text", "c!")] == [0, 2, 1]


@pytest.mark.parametrize(
    ("arguments", "input", "ids"),
    [
        (["docs"], None, ["docs/a.md", "docs/b.txt"]),
        (["docs", "--glob", "*.txt"], None, ["docs/b.txt"]),
        (["docs/b.txt", "docs/a.md"], None, ["docs/a.md", "docs/b.txt"]),
        (["--lines", "-"], LINES, ["stdin:2", "stdin:3", "stdin:1"]),
        (["--lines"], LINES, ["stdin:2", "stdin:3", "stdin:1"]),
        (["--text", "x?", "--text", "y!"], None, ["text:2", "text:1"]),
        (["--csv", "text", "--id", "n"], "n;text\n7;no?\n8;yes!\n", ["8", "7"]),
        (["--jsonl", "t", "--id", "i"], '{"i": "a", "t": "?"}\n{"i": "b", "t": "!"}\n', ["b", "a"]),
    ],
)
def test_it_reads_what_embed_reads(fake, arguments, input, ids):
    assert [record["id"] for record in ranked(*arguments, input=input)] == ids


def test_its_own_output_is_an_input(fake):
    """Piped JSON Lines in, JSON Lines out."""
    first = run("rerank", "who?", "--lines", "lines.txt", "-q")
    assert first.stderr == ""
    again = ranked("--jsonl", "text", "--id", "id", "-k", 2, input=first.stdout)
    assert [record["id"] for record in again] == ["lines.txt:2", "lines.txt:3"]


def test_the_question_and_its_instruction_reach_the_reranker(fake):
    ranked("--text", "a", "--instruction", "Find names")
    assert "<Instruct>: Find names\n<Query>: who?\n<Document>: a<|im_end|>" in fake["engine"].prompts[0]
    ranked("--text", "a", "--task", "code")
    assert "<Instruct>: Given a question about coding" in fake["engine"].prompts[0]


def test_what_was_read_before_comes_from_the_cache(fake):
    first = ranked("--lines", "lines.txt")
    assert len(fake["engine"].read) == 3
    assert ranked("--lines", "lines.txt") == first
    assert fake["engine"].read == []
    ranked("--lines", "lines.txt", "--no-cache")
    assert len(fake["engine"].read) == 3


def test_which_reranker_and_how_it_runs(fake, monkeypatch):
    ranked("--text", "a")
    assert fake["model"] == "qwen3-reranker:0.6b"
    monkeypatch.setenv("Q3E_RERANKER", "qwen3-reranker:4b")
    ranked("--text", "a", "--threads", 3)
    assert (fake["model"], fake["options"]["n_threads"]) == ("qwen3-reranker:4b", 3)
    ranked("--text", "a", "-m", "qwen3-reranker:8b")
    assert fake["model"] == "qwen3-reranker:8b"


# What it says


def test_stderr_says_what_was_done_and_quiet_says_nothing(fake):
    result = run("rerank", "who?", "--lines", "lines.txt")
    assert result.stderr.startswith("3 documents, ")
    assert ", by fake-reranker, " in result.stderr
    assert run("rerank", "who?", "--lines", "lines.txt", "-q").stderr == ""
    assert "docs/b.txt is one document; for its parts give --lines" in run("rerank", "who?", "docs/b.txt").stderr
    assert "is one document" not in run("rerank", "who?", "--text", "a").stderr


def test_documents_that_are_cut_are_named_even_in_quiet(fake):
    fake["limit"] = 450
    result = run("rerank", "who?", "--text", "a!", "--text", "b " * 300, "-q")
    assert result.stderr == "1 document cut to the limit: text:2\n"
    assert [json.loads(line)["truncated"] for line in result.stdout.splitlines()] == [False, True]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no pseudo-terminals")
def test_people_see_rank_score_and_place(fake):
    command = [sys.executable, str(TESTS / "fake_reranker.py"), "rerank", "who?", "--lines", "lines.txt", "-q"]
    with on_screen(command) as screen:
        assert screen.end() == 0
    assert screen.lines == [
        f"1  {sigmoid(3):.3f}  lines.txt:2", "   yes!!!",
        f"2  {sigmoid(1):.3f}  lines.txt:3", "   perhaps!",
        f"3  {sigmoid(-2):.3f}  lines.txt:1", "   no??",
    ]  # fmt: skip
    with on_screen([*command, "--json", "-k", "1"]) as screen:
        assert screen.end() == 0
    assert '"id":"lines.txt:2"' in screen.text


# What goes wrong


FAILURES: dict[str, tuple[list[str], int, list[str]]] = {
    "no question": ([" ", "--text", "a"], 2, ["the question is empty"]),
    "no document": (["q", "-"], 1, ["has no text in it"]),
    "no file": (["q", "nowhere.txt"], 1, ["there is no file or folder nowhere.txt"]),
    "no such task": (["q", "--text", "a", "--task", "cooking"], 2, ["'cooking' is not one of"]),
    "two instructions": (
        ["q", "--text", "a", "--task", "code", "--instruction", "b"], 2, ["give task 'code' or an instruction"],
    ),
    "a question that leaves no room": (["q" * 5000, "--text", "a"], 2, ["the limit is 2000", "shorten the query"]),
    "top 0": (["q", "--text", "a", "-k", "0"], 2, ["0 is not in the range"]),
    "two layouts": (["q", "--lines", "--jsonl", "a"], 2, ["exclude each other"]),
}  # fmt: skip


@pytest.mark.parametrize(("arguments", "code", "parts"), FAILURES.values(), ids=FAILURES)
def test_failures_say_what_to_do(fake, arguments, code, parts):
    assert_refused(["rerank", *arguments], code, parts)


def test_a_document_that_fails_is_named_or_left_out_and_listed(fake):
    fake["bad"] = "worse"
    write(Path.cwd(), {"few.txt": "a!\nworse!!\nc!!!\n"})
    assert failed("rerank", "who?", "--lines", "few.txt") == "Error: few.txt:2 the fake has no number for this text\n"
    result = run("rerank", "who?", "--lines", "few.txt", "--skip-errors")
    assert result.exit_code == 3
    assert [json.loads(line)["index"] for line in result.stdout.splitlines()] == [2, 0]
    assert "1 skipped:\n  few.txt:2 the fake has no number for this text\n" in result.stderr
    assert "could be ranked" in failed("rerank", "who?", "--text", "worse", "--skip-errors")


def test_a_blank_document_is_told_before_a_model_is_loaded(fake):
    rows = "n;text\n1;yes!\n2;\n"
    result = run("rerank", "who?", "--csv", "text", "--id", "n", input=rows)
    assert (result.exit_code, result.stdout) == (1, "")
    assert "2 has no text in it (stdin:3); leave blank texts out with --blank skip" in result.stderr
    assert "engine" not in fake
    skipping = run("rerank", "who?", "--csv", "text", "--id", "n", "--skip-errors", input=rows)
    assert (skipping.exit_code, len(skipping.stdout.splitlines())) == (3, 1)


def test_blank_documents_are_left_out_where_that_is_asked_for(fake):
    rows = "n,text\n1,yes!\n2,\n3,  \n4,no?\n"
    asked = ("rerank", "who?", "--csv", "text", "--id", "n")
    result = run(*asked, "--blank", "skip", input=rows)
    assert (result.exit_code, [json.loads(line)["id"] for line in result.stdout.splitlines()]) == (0, ["1", "4"])
    assert [json.loads(line)["index"] for line in result.stdout.splitlines()] == [0, 3]
    assert result.stderr.endswith("\n2 blank documents left out\n")
    assert run(*asked, "--blank", "skip", "-q", input=rows).stderr == ""
    for options in ((), ("--blank", "error")):
        said = run(*asked, *options, input=rows).stderr
        assert said == "Error: 2 of 4 texts are blank: 2, 3; leave blank texts out with --blank skip\n"
    said = run(*asked, "--blank", "skip", input="n,text\n1,\n").stderr
    assert said == "Error: there are no texts in the input: all of them are blank\n"
    assert_refused([*asked, "--blank", "zeros"], 2, ["'zeros' is not one of 'skip', 'error'"])


def test_fields_that_are_kept_stand_behind_the_others(fake):
    lines = '{"t": "no?", "who": "ann", "when": {"day": 3}}\n{"t": "yes!", "who": null}\n'
    first, second = ranked("--jsonl", "t", "--keep", "who,when", input=lines)
    assert list(first)[-3:] == ["text", "who", "when"]
    assert (first["who"], first["when"], second["who"], second["when"]) == (None, None, "ann", {"day": 3})
    (row,) = ranked("--csv", "t", "--keep", "date", input="t,date\nyes!,2026-11-30\n")
    assert row["date"] == "2026-11-30"
    assert "no record has the field 'city' to keep" in run(
        "rerank", "who?", "--jsonl", "t", "--keep", "city", input=lines
    ).stderr  # fmt: skip
    assert_refused(["rerank", "q", "--jsonl", "t", "--keep", "score"], 2, ["a field 'score' already"])
    assert_refused(["rerank", "q", "--text", "a", "--keep", "who"], 2, ["--keep needs --jsonl or --csv"])


def test_ctrl_c_ends_with_130_and_says_where_it_goes_on(fake):
    def press(*arguments: object) -> None:
        raise KeyboardInterrupt

    fake["decode"] = press
    result = run("rerank", "who?", "--lines", "lines.txt")
    assert (result.exit_code, result.stdout) == (130, "")
    command = "q3e-local rerank 'who?' --lines lines.txt"
    assert result.stderr == f"Interrupted: what was read is in the cache; go on with: {command}\n"
    assert run("rerank", "who?", "--lines", "lines.txt", "--no-cache").stderr == "Interrupted.\n"
    assert fake["engine"].closed


# On a server


@pytest.fixture
def url() -> Iterator[str]:
    """A server whose reranker `judge` gives the number of times that a document has the question, less 1."""
    with served(FakeService(), max_items=2) as client:
        yield str(client.base_url).rstrip("/")


def test_a_server_ranks(fake, url):
    documents = ("--text", "a", "--text", "who? who? who?", "--text", "who?")
    result = run("rerank", "who?", *documents, "-m", "judge", "--server", url)
    assert "engine" not in fake
    found = [json.loads(line) for line in result.stdout.splitlines()]
    assert [(one["index"], one["logit"], one["tokens"]) for one in found] == [(1, 2, 19), (2, 0, 9), (0, -1, 6)]
    assert [one["score"] for one in found] == pytest.approx([sigmoid(2), 0.5, sigmoid(-1)])
    assert ", by judge, " in result.stderr


def test_what_is_for_a_model_in_this_process_does_not_go_with_a_server(fake, url):
    on = ("rerank", "who?", "--text", "a", "-m", "judge", "--server", url)
    assert_refused([*on, "--no-cache"], 2, ["the server has its own"])
    assert_refused([*on, "--threads", "2"], 2, ["the server has its own"])
    assert_refused(["rerank", "q" * 200, *on[2:]], 2, ["the query has 201 tokens, the limit is 100"])
    assert_refused([*on, "--server", "unix:/a"], 2, [f"a reranker reads on one server, got 2: {url}, unix:/a"])
    assert "no server answers at http://127.0.0.1:9" in failed(*on[:-1], "127.0.0.1:9")


# Models that are no rerankers


def test_an_embedding_model_ranks_nothing(tiny_gguf: Callable[..., Path]) -> None:
    said = failed("rerank", "who?", "--text", "a", "-m", tiny_gguf())
    assert "is an embedding model: it makes vectors and ranks nothing; take a reranker" in said


def test_the_bundled_models_name_each_other() -> None:
    said = failed("rerank", "who?", "--text", "a", "-m", "demo")
    assert (
        "demo is an embedding model: it makes vectors and ranks nothing; take a reranker, such as demo-reranker"
        in said
    )
    said = failed("embed", "--text", "a", "-m", "demo-reranker")
    assert "demo-reranker is a reranker: " in said
    assert said.endswith("; take an embedding model, such as demo\n")


def test_an_embedding_model_that_is_not_here_is_not_downloaded_to_be_refused(world):
    world.write_card()
    said = failed("rerank", "who?", "--text", "a", "-m", "tiny:1b-q8_0")
    assert "tiny:1b is an embedding model: it makes vectors and ranks nothing; take a reranker" in said
    assert world.requests() == []
    assert "is an embedding model" in failed("rerank", "who?", "--text", "a", "-m", "tiny:1b-q8_0", "--offline")


def test_a_reranker_that_is_not_here_is_named_with_the_ways_to_get_one():
    said = failed("rerank", "who?", "--text", "a", "--offline")
    assert (
        "Get it with: q3e-local pull qwen3-reranker:0.6b\nor take a file you have: q3e-local import; "
        "or begin with the demo model: -m demo-reranker (--reranker demo-reranker in search and eval), in Python "
        "load_reranker('demo-reranker')\n"
    ) in said
    assert "is a reranker" in failed("embed", "--text", "a", "-m", "qwen3-reranker:0.6b", "--offline")


def test_a_reranker_that_does_not_tell_right_from_wrong_is_refused(tmp_path):
    # Other tests note the file with a head of the usual order as proved.
    path = rerankers.write(tmp_path / "random-reranker.gguf", "turned")
    assert "is no reranker that works" in failed("rerank", "who?", "--text", "a", "-m", path)
