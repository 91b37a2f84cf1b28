"""`q3e-local search` as people call it: what it finds, what it prints, where, and with which exit code."""

from __future__ import annotations

import json
import os
import re
import sys
from datetime import date, datetime, timedelta
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
from command import assert_refused, demo, expected, loaded_by, run, write
from notes import NOTES, found, names

from q3e_local import VectorIndex
from q3e_local.cli.commands import hits
from q3e_local.models.catalog import models_folder
from q3e_local.search import database, dates
from q3e_local.search.best_sentence import Best
from q3e_local.search.database import index_file

pytestmark = pytest.mark.usefixtures("notes")


FAILURES = {
    "search without an index": (
        ["search", "cat"], 1, ["there is no index named default; make it with: q3e-local index FOLDER"],
    ),
    "search in a file that is not there": (["search", "cat", "--db", "no.q3e"], 1, ["index FOLDER --db no.q3e"]),
    "search in no index": (["search", "cat", "--db", "notes/cat.txt"], 1, ["cat.txt"]),
    "no question": (["search", ""], 2, ["the question is empty"]),
    "a blank question": (["search", "-"], 2, ["the question is empty"]),
    "no date": (["search", "cat", "--since", "soon"], 2, ["'soon' is no date; give one such as", "12h"]),
    "no time ago": (["search", "cat", "--since", "0d"], 2, ["'0d' is no date"]),
    "two modes": (
        ["search", "cat", "--words-only", "--vector-only"], 2, ["--vector-only and --words-only exclude each other"],
    ),
    "a score of words": (["search", "cat", "--words-only", "--min-score", ".5"], 2, ["--min-score needs scores"]),
    "both outputs": (["search", "cat", "--json", "--text"], 2, ["--json and --text exclude each other"]),
}  # fmt: skip


@pytest.mark.parametrize(("arguments", "code", "parts"), FAILURES.values(), ids=FAILURES)
def test_failures_say_what_to_do(arguments, code, parts):
    assert_refused(arguments, code, parts)


@pytest.mark.parametrize("mode", [(), ("--hybrid",), ("--vector-only",), ("--words-only",), ("--exact",)])
def test_every_way_of_searching_finds_it(mode, indexed, shared):
    first = found("who fed the cat?", "-k", 2, *mode)[0]
    text = NOTES["cat.txt"]
    assert first["file"] == str(shared / "notes" / "cat.txt")
    assert first["id"] == f"{first['file']}#0"
    assert (first["text"], first["start"], first["end"]) == (text, 0, len(text))
    assert (first["line"], first["last_line"], first["page"], first["headings"]) == (1, 1, None, [])
    assert text[first["best"]["start"] : first["best"]["end"]] == "The neighbour fed the cat."
    if mode == ("--words-only",):
        assert (first["score"], first["words_rank"], first["vectors_rank"]) == (None, 1, None)
    else:
        score = demo().embed_query("who fed the cat?").vectors[0] @ expected([text]).vectors[0]
        assert first["score"] == pytest.approx(float(score), abs=1e-3)
        assert first["vectors_rank"] == 1


def test_chinese_is_found_and_marked(indexed):
    (hit,) = found("展会", "--words-only")
    assert (Path(hit["file"]).name, hit["headings"], hit["line"]) == ("budget.md", ["预算"], 3)
    assert hit["text"][hit["best"]["start"] : hit["best"]["end"]] == "展会的展台临时加大。"


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--path", "*.md"], {"outage.md", "budget.md"}),
        (["--path", "notes/papers/**"], {"plan.txt"}),
        (["--since", "1d"], {"outage.md", "budget.md", "plan.txt"}),
        (["--since", "2001-01-01"], {"outage.md", "budget.md", "plan.txt"}),
        (["--since", f"{date.today() - timedelta(days=1)}"], {"outage.md", "budget.md", "plan.txt"}),
        (["--since", (datetime.now() + timedelta(hours=1)).isoformat()], set()),
    ],
)
def test_filters(options, expected, tmp_path):
    os.utime(tmp_path / "notes" / "cat.txt", (0, 0))
    run("index", "notes", "-m", "demo", "-q")
    result = run("search", "anything", "-k", 10, *options, "--json")
    assert {Path(json.loads(line)["file"]).name for line in result.stdout.splitlines()} == expected
    assert result.stderr == ("" if expected else "nothing was found; look without --since\n")


def test_hits_below_a_score_are_left_out(indexed):
    scores = [hit["score"] for hit in found("beans", "--vector-only", "-k", 10)]
    above = found("beans", "--vector-only", "-k", 10, "--min-score", scores[2])
    assert [hit["score"] for hit in above] == scores[:3]
    assert "look without --min-score" in run("search", "beans", "--min-score", 1).stderr


def test_the_instruction_changes_the_question(indexed):
    scores = [
        [hit["score"] for hit in found("beans", "--vector-only", *more)]
        for more in ([], ["--task", "sts"], ["--instruction", "Find the gardener"])
    ]
    assert scores[0] != scores[1] != scores[2]


@pytest.mark.parametrize(
    "question",
    [
        "'; DROP TABLE chunks; --", '" OR 1=1', "NEAR(a b)", "*", "beans AND (", "\\", "%_%", "beans " * 2000, "🫘",
        "\0x",
    ],
)  # fmt: skip
@pytest.mark.parametrize("mode", ["--hybrid", "--words-only", "--vector-only"])
def test_any_question_is_only_a_question(question, mode, indexed):
    result = run("search", question, mode)
    assert result.exit_code == 0
    assert len(found("cat", "-k", 10)) == 5


@pytest.mark.parametrize(
    ("words", "stdin"),
    [(["-"], "who fed the cat?\n"), ([], "who fed the cat?\n"), (["who", "fed", "the", "cat?"], "")],
)
def test_a_question_may_come_from_stdin_or_be_several_words(words, stdin, indexed):
    assert names(found("-k", 1, *words, input=stdin)) == ["cat.txt"]


def test_dates_as_people_write_them():
    def day(text: str) -> tuple[int, ...]:
        return dates.moment(text).timetuple()[:5]

    assert day("2026/11/01") == day("2026-11-01") == (2026, 11, 1, 0, 0)
    assert (day("2019"), day("2026-11")) == ((2019, 1, 1, 0, 0), (2026, 11, 1, 0, 0))
    assert day("2026-11-01t09:30") == (2026, 11, 1, 9, 30)
    yesterday = date.today() - timedelta(days=1)
    assert day("Yesterday") == (yesterday.year, yesterday.month, yesterday.day, 0, 0)
    ago = datetime.now().astimezone() - dates.moment("30min")
    assert round(ago.total_seconds() / 60) == 30


@pytest.mark.parametrize("options", [[], ["--words-only"]])
def test_a_search_opens_its_index_once(options, indexed, monkeypatch):
    opening = Mock(wraps=index_file.IndexFile)
    monkeypatch.setattr(database, "IndexFile", opening)
    assert names(found("who fed the cat?", *options))[0] == "cat.txt"
    assert opening.call_count == 1


def test_words_alone_need_no_model(indexed):
    heavy = {"llama_cpp", "huggingface_hub", "rich", "pyarrow", "watchfiles", "pypdf"}
    assert not heavy & loaded_by("search", "cat", "--words-only")


def test_the_message_says_that_a_model_is_not_here_and_how_to_do_without(tmp_path):
    with VectorIndex("own.q3e", dim=32) as index:
        index.add_vectors(["a text"], np.eye(1, 32, dtype=np.float32), ["a"])
    result = run("search", "text", "--db", "own.q3e")
    assert (result.exit_code, "search it with --words-only" in result.stderr) == (2, True)
    assert found("text", "--db", "own.q3e", "--words-only")[0]["id"] == "a"

    model = tmp_path / "moved.gguf"
    model.write_bytes((models_folder() / "demo.gguf").read_bytes())
    assert run("index", "notes", "-m", model, "--db", "moved.q3e", "-q").exit_code == 0
    model.unlink()
    result = run("search", "cat", "--db", "moved.q3e")
    assert (result.exit_code, f"256-dim vectors of {model}, and that model cannot be" in result.stderr) == (1, True)
    assert "say where it is with --model, or search without a model: --words-only" in result.stderr
    assert names(found("who fed the cat?", "--db", "moved.q3e", "-m", "demo", "-k", 1)) == ["cat.txt"]


def test_the_message_names_the_model_of_the_option_that_cannot_be_used(indexed):
    result = run("search", "cat", "-m", "nope")
    assert result.exit_code == 2
    assert "vectors of demo, and the model nope cannot be used: there is no model 'nope'" in result.stderr
    result = run("search", "cat", "--rerank", "-m", "demo-reranker")
    assert result.exit_code == 1
    assert "the model demo-reranker cannot be used: demo-reranker is a reranker" in result.stderr
    assert "leave --model out to take the index's own model (a reranker is named with --reranker)" in result.stderr


def test_texts_with_an_instruction_are_searched_by_anyone(tmp_path):
    with VectorIndex(tmp_path / "mine.q3e", demo(), instruction="Find the gardener") as index:
        index.add(["roses are cut in March"])
    result = run("search", "--db", tmp_path / "mine.q3e", "--json", "roses")
    assert (result.exit_code, json.loads(result.stdout)["text"]) == (0, "roses are cut in March")


def test_an_empty_index(tmp_path):
    write(tmp_path, {"empty/a.txt": ""})
    assert "files: 1 new\n" in run("index", "empty", "-m", "demo").stderr
    result = run("search", "cat")
    assert (result.exit_code, result.stdout) == (0, "")
    assert result.stderr == "the index is empty; index a folder that has text in it\n"


# How hits are shown.


def test_text_for_people(indexed):
    result = run("search", "who fed the cat?", "-k", 1, "--text")
    assert re.fullmatch(
        r"1  0\.\d{3}  notes/cat.txt:1\n   »The neighbour fed the cat.« It was grey and slept all day.\n",
        result.stdout,
    )
    result = run("search", "PRJ-2041", "--words-only", "--text", "--no-best")
    assert result.stdout == (
        "1  words  notes/outage.md:7  Outage > Actions\n   Tomasz moves the report job PRJ-2041 to the replica.\n"
    )


def test_people_are_told_the_ranks_where_the_scores_do_not_explain_the_order(tmp_path):
    texts = {
        "a.txt": "The neighbour fed the cat.",
        "b.txt": "Ticket PRJ-2041 is about something else entirely: the cellar, and its door, and a lamp.",
        "c.txt": "A cat and a neighbour slept all day.",
    }
    write(tmp_path / "few", texts)
    assert run("index", "few", "-m", "demo", "--name", "few", "-q").exit_code == 0
    question = ("who fed the cat of the neighbour, PRJ-2041", "--name", "few", "--no-best")
    found_hits = found(*question)
    scores = [hit["score"] for hit in found_hits]
    assert scores != sorted(scores, reverse=True)
    lines = [line for line in run("search", *question, "--text").stdout.splitlines() if re.match(r"\d  ", line)]
    ordinals = {1: "1st", 2: "2nd", 3: "3rd"}
    for number, (line, hit) in enumerate(zip(lines, found_hits, strict=True), 1):
        ranks = {"exact words": hit["letters_rank"], "words": hit["words_rank"], "meaning": hit["vectors_rank"]}
        said = ", ".join(f"{name} {ordinals[rank]}" for name, rank in ranks.items() if rank)
        assert line == f"{number}  {hit['score']:.3f} ({said})  {'few/' + Path(hit['file']).name}:1"
    (exact,) = [hit for hit in found_hits if hit["file"].endswith("b.txt")]
    assert (exact["letters_rank"], exact["vectors_rank"]) == (1, 3)

    # By meaning alone the scores are the order, and say enough.
    plain = run("search", *question, "--text", "--vector-only").stdout
    assert "(" not in plain
    assert found(*question, "--vector-only")[0]["letters_rank"] is None
    assert "meaning" not in run("search", "cat", "--name", "few", "--text", "--words-only", "--no-best").stdout


@pytest.mark.parametrize(
    ("n", "said"),
    [(1, "1st"), (2, "2nd"), (3, "3rd"), (4, "4th"), (11, "11th"), (12, "12th"), (13, "13th"), (21, "21st"),
     (112, "112th"), (1003, "1,003rd")],
)  # fmt: skip
def test_places_are_said_as_people_say_them(n, said):
    assert hits._ordinal(n) == said  # a hit of rank 1,003 would need as many chunks


@pytest.mark.parametrize(
    ("text", "best", "shown"),
    [
        ("One. Two. Three.", (5, 9), "One. »Two.« Three."),
        ("a line of sixty characters or more that was wrapped there, in\na mail", None, None),
        ("第一行的文字很多，超过了六十个字节，所以在这里换行\n还没有结束。", None, None),
        ("    code = call(argument_one, argument_two, argument_three)\nreturn code", None, ...),
        ("x" * 2000, (900, 1000), "…" + "x" * 160 + "»" + "x" * 100 + "«" + "x" * 340 + "…"),
        ("what a\x1b[2Jtext\x07", None, "what a [2Jtext "),
        ("x" * 2000, (0, 1500), "»" + "x" * 600 + "«…"),
    ],
)
def test_a_passage_flows_and_is_shortened_around_the_best(text, best, shown):
    span = None if best is None else Best(*best)
    got = hits._passage(text, span, is_plain=True).plain  # indexing would cut and clean such texts first
    if shown is None:
        shown = text.replace("\n", "" if text[0] > "z" else " ")
    assert got == (text if shown is ... else shown)


def test_a_code_that_stands_nowhere_is_named_and_not_answered_by_another(indexed):
    result = run("search", "PRJ-9999", "--words-only")
    assert (result.exit_code, result.stdout) == (0, "")
    assert result.stderr == "PRJ-9999: found in no passage\nnothing was found\n"
    assert run("search", "PRJ-9999", "--words-only", "-q").stderr == ""
    explained = run("search", "PRJ-9999", "--words-only", "--explain").stderr
    assert explained.startswith("words: 'PRJ-9999' is in no chunk")
    assert names(found("prj-2041", "--words-only")) == ["outage.md"]


def test_explain_says_how(indexed):
    lines = run("search", "who fed the cat?", "--explain").stderr.splitlines()
    assert lines[0].startswith("demo: kernels")
    assert any(line.startswith("demo: n_threads") for line in lines)
    assert "exact: compared the full vectors of 5 chunks" in lines
    assert re.fullmatch(r"best sentences: \d by words, \d by meaning", lines[-1])


@pytest.mark.skipif(sys.platform == "win32", reason="names that Windows has not")
def test_a_hostile_name_steers_no_terminal(tmp_path):
    write(tmp_path / "notes", {"evil\x1b[31m\n\u202egpj.md": "# Head\n\nzebra crossing"})
    result = run("index", "notes", "-m", "demo", "--verbose")
    shown = run("search", "zebra", "--text", "--words-only").stdout
    assert shown.startswith("1  words  notes/evil [31m  gpj.md:3")
    assert not set(shown + result.output + run("index", "show", "--files").output) & set("\x1b\x07\u202e")
    (hit,) = found("zebra", "--words-only")
    assert hit["file"].endswith("evil\x1b[31m\n\u202egpj.md")
