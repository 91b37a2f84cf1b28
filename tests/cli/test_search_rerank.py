"""`q3e-local search --rerank`: what is read, what is shown of it, and which reranker it is.

The reranker is a fake: "!" in a document speaks for it, "?" against it. The notes have neither, so a test that wants
another order indexes texts of its own.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import rerankers
from command import assert_refused, failed, run, write
from fake_reranker import FakeRerankEngine
from fake_service import served
from notes import found, names

import q3e_local
from q3e_local.cache.choose import open_cache
from q3e_local.cli.commands import rerank_options
from q3e_local.models import kinds
from q3e_local.reranking.rank_model import probability
from q3e_local.reranking.reranker import Reranker
from q3e_local.server.local.local_service import LocalService
from q3e_local.server.settings import ServerSettings

pytestmark = pytest.mark.usefixtures("notes")

# By meaning the first is the nearest to the question; by eye the order is e, d, b, c, a.
TEXTS = {
    "a.txt": "who fed the cat??", "b.txt": "the neighbour fed the cat!", "c.txt": "a cat slept all day?",
    "d.txt": "beans are planted in May!!", "e.txt": "the pool was full at noon!!!",
}  # fmt: skip
QUESTION = ("who fed the cat?", "--name", "few", "--vector-only")
BY_EYE = ["e.txt", "d.txt", "b.txt", "c.txt", "a.txt"]


@pytest.fixture
def fake(notes: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, Any]:
    """An index named `few`, and a reranker that every command finds loaded: its `engine`, `model` and options."""
    found: dict[str, Any] = {}

    def load(model: str, *, cache: str, **options: Any) -> Reranker:
        engine = FakeRerankEngine(bad=found.get("bad"))
        found.update(engine=engine, model=model, cache=cache, options=options)
        return Reranker(engine, "fake-reranker", cache=open_cache(cache))

    monkeypatch.setattr("q3e_local.load_reranker", load)
    write(tmp_path / "few", TEXTS)
    assert run("index", "few", "-m", "demo", "--name", "few", "-q").exit_code == 0
    return found


def test_without_it_nothing_is_read_and_fields_are_null(fake):
    hits = found(*QUESTION)
    assert "engine" not in fake
    assert {(hit["rerank"], hit["rank_before"]) for hit in hits} == {(None, None)}


def test_the_first_hits_are_read_and_ordered(fake):
    before = found(*QUESTION)
    hits = found(*QUESTION, "--rerank")
    assert names(hits) == BY_EYE != names(before)
    for hit in hits:
        assert hit["rank_before"] == names(before).index(Path(hit["file"]).name) + 1
        assert hit["rerank"] == pytest.approx(probability(hit["text"].count("!") - hit["text"].count("?")))
        assert hit["score"] == pytest.approx(before[hit["rank_before"] - 1]["score"], abs=1e-5)
    assert names(found(*QUESTION, "--rerank", "-k", 2)) == ["e.txt", "d.txt"]


def test_as_many_as_are_asked_for_are_read_and_the_rest_follows(fake):
    before = names(found(*QUESTION))
    hits = found(*QUESTION, "--rerank", 3)
    assert names(hits) == [*sorted(before[:3], key=BY_EYE.index), *before[3:]]
    assert [hit["rerank"] is None for hit in hits] == [False] * 3 + [True] * 2
    assert [hit["rank_before"] for hit in hits[3:]] == [4, 5]
    assert len(fake["engine"].read) == 3
    assert names(found(*QUESTION, "--rerank", 3, "-k", 1)) == names(hits)[:1]


def test_a_limit_of_time_reads_the_first_at_least(fake):
    before = names(found(*QUESTION))
    write(Path.cwd() / "few", {name: f"{text} {'very ' * 210}" for name, text in TEXTS.items()})  # each is read alone
    assert run("index", "few", "-m", "demo", "--name", "few", "-q").exit_code == 0
    hits = found(*QUESTION, "--rerank", "--rerank-seconds", 1e-9)
    assert len(before) == len(hits) == 5
    assert [hit["rerank"] is None for hit in hits] == [False, *[True] * 4]
    assert [hit["rank_before"] for hit in hits] == [1, 2, 3, 4, 5]
    assert all(hit["rerank"] is not None for hit in found(*QUESTION, "--rerank", "--rerank-seconds", 60))


def test_candidates_below_the_least_score_make_place_for_others(fake):
    scores = sorted((hit["score"] for hit in found(*QUESTION)), reverse=True)
    least = (scores[2] + scores[3]) / 2  # three of five have more
    kept = [hit for hit in found(*QUESTION, "--rerank") if hit["score"] > least]
    assert len(kept) == 3
    found_now = found(*QUESTION, "--rerank", "-k", 2, "--min-score", least)
    assert names(found_now) == names(kept)[:2]


def test_by_words_alone_a_reranker_reads_too(fake):
    hits = found("cat", "--name", "few", "--words-only", "--rerank")
    assert names(hits) == ["b.txt", "c.txt", "a.txt"]
    assert {hit["score"] for hit in hits} == {None}


def test_pairs_that_were_read_before_come_from_the_cache(fake):
    first = found(*QUESTION, "--rerank")
    assert len(fake["engine"].read) == 5
    assert names(found(*QUESTION, "--rerank")) == names(first)
    assert fake["engine"].read == []
    found(*QUESTION, "--rerank", "--no-cache")
    assert len(fake["engine"].read) == 5


def test_which_reranker_it_is(fake, monkeypatch):
    found(*QUESTION, "--rerank")
    assert fake["model"] == kinds.DEFAULT_RERANKER
    monkeypatch.setenv("Q3E_RERANKER", "qwen3-reranker:8b")
    found(*QUESTION, "--rerank")
    assert fake["model"] == "qwen3-reranker:8b"
    found(*QUESTION, "--rerank", "--reranker", "mine.gguf", "--threads", 2)
    assert (fake["model"], fake["options"]["n_threads"]) == ("mine.gguf", 2)
    assert fake["engine"].closed


def test_the_instruction_is_the_rerankers_too(fake):
    found(*QUESTION, "--rerank", "--instruction", "Find the feeder", "--no-cache")
    assert "<Instruct>: Find the feeder\n<Query>: who fed the cat?\n" in fake["engine"].prompts[0]


def test_people_and_explain_say_the_places_before(fake):
    hits = found(*QUESTION, "--rerank", 4)
    result = run("search", *QUESTION, "--rerank", 4, "--text", "--no-best", "--explain")
    heads = [line for line in result.stdout.splitlines() if re.match(r"\d  ", line)]
    ordinals = {1: "1st", 2: "2nd", 3: "3rd", 4: "4th", 5: "5th"}
    for number, (head, hit) in enumerate(zip(heads, hits, strict=True), 1):
        read = "not read" if hit["rerank"] is None else f"rerank {hit['rerank']:.3f}"
        reason = f"{read}, was {ordinals[hit['rank_before']]}"
        assert head == f"{number}  {hit['score']:.3f} ({reason})  few/{Path(hit['file']).name}:1"
    assert "second stage: fake-reranker read 4 of 4 candidates\n" in result.stderr
    places = ", ".join(f"{hit['rank_before']} has {hit['rerank']:.3f}" for hit in hits[:4])
    assert f"new order, by the old places, with the reranker's scores: {places}\n" in result.stderr


def test_the_ranks_that_explain_the_first_stage_are_shown_beside_the_second(fake):
    """`--hybrid` puts hits before others with a higher score, which people are told of without a reranker too."""
    arguments = ("search", "pool who fed", "--name", "few", "--hybrid", "--no-best", "--text")
    ranks = {}
    for line in run(*arguments).stdout.splitlines():
        if head := re.match(r"\d  [\d.]+ \((.*)\)  few/(.*):1", line):
            ranks[head[2]] = head[1]
    assert len(ranks) == 5
    assert any("words 1st" in of_hit for of_hit in ranks.values())
    heads = re.findall(
        r"^\d  [\d.]+ \(rerank 0\.\d{3}, was \d(?:st|nd|rd|th): (.*)\)  few/(.*):1",
        run(*arguments, "--rerank").stdout,
        re.MULTILINE,
    )
    assert {name: of_hit for of_hit, name in heads} == ranks


def test_a_hit_by_words_alone_shows_what_the_reranker_says(fake):
    heads = [
        line
        for line in run("search", "cat", "--name", "few", "--words-only", "--rerank", 2, "--text").stdout.splitlines()
        if re.match(r"\d  ", line)
    ]
    assert len(heads) == 3
    assert re.fullmatch(r"1  rerank 0\.\d{3} \(was \d(st|nd) by words\)  few/.\.txt:1", heads[0])
    assert re.fullmatch(r"3  not read \(was 3rd by words\)  few/.\.txt:1", heads[2])


def test_progress_says_how_many_are_read(monkeypatch):
    lines = []
    monkeypatch.setattr(rerank_options, "live", lambda line, quiet: nullcontext(lines.append(line)))
    with rerank_options.reading(quiet=False) as show:
        assert lines[0](80) == ""  # nothing is read yet
        show(0, 10)
        assert "reading 10 candidates" in lines[0](80)
        show(5, 10)
        n_done, n_open = (lines[0](80).count(character) for character in "━─")
        assert n_done == n_open > 0


def test_a_candidate_that_cannot_be_read_ends_the_search(fake):
    fake["bad"] = "beans"
    assert "the fake has no number for this text" in failed("search", *QUESTION, "--rerank")


FAILURES = {
    "a question behind it": (
        ["search", "--rerank", "who fed the cat?"], 2,
        ["'who fed the cat?' is no number of candidates; put the question before --rerank"],
    ),
    "no candidates": (["search", "cat", "--rerank", "0"], 2, ["0 is not in the range 1<=x<=10000"]),
    "no number": (["search", "cat", "--rerank", "2.5"], 2, ["'2.5' is no number of candidates"]),
    "no time": (["search", "cat", "--rerank", "--rerank-seconds", "0"], 2, ["0.0 is not in the range x>0"]),
    "a reranker without a second stage": (
        ["search", "cat", "--reranker", "a.gguf"], 2, ["--reranker is for the second stage", "give --rerank too"],
    ),
    "a time without a second stage": (["search", "cat", "--rerank-seconds", "1"], 2, ["--rerank-seconds is for"]),
}  # fmt: skip


@pytest.mark.parametrize(("arguments", "code", "parts"), FAILURES.values(), ids=FAILURES)
def test_failures_say_what_to_do(arguments, code, parts):
    assert_refused(arguments, code, parts)


def test_a_variable_alone_asks_for_no_second_stage(fake, monkeypatch):
    monkeypatch.setenv("Q3E_RERANKER", "qwen3-reranker:8b")
    assert json.loads(run("search", *QUESTION, "-k", 1).stdout)["rerank"] is None


def test_an_embedding_model_as_reranker_is_told(own_index):
    said = failed("search", "cat", "--rerank", "--reranker", "demo")
    assert "demo is an embedding model: it makes vectors and ranks nothing; take a reranker" in said


def test_a_reranker_that_is_not_here_is_named_with_the_option_that_takes_it(own_index, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert "--reranker demo-reranker in search" in failed("search", "cat", "--rerank")


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """A server that has the index's model, and rerankers."""
    with served(LocalService(ServerSettings(models=("demo", "demo-reranker")))) as client:
        yield str(client.base_url).rstrip("/")


def test_a_server_reads_the_candidates_with_its_reranker(fake, url, monkeypatch):
    hits = found(*QUESTION, "--rerank", 3, "--reranker", "demo-reranker", "--server", url)
    assert "engine" not in fake  # none was loaded here
    monkeypatch.undo()
    with q3e_local.load_reranker("demo-reranker") as reranker:
        read = hits[:3]
        ranked = reranker.rank("who fed the cat?", [hit["text"] for hit in read])
    assert [hit["rerank"] for hit in read] == pytest.approx([one.score for one in ranked], abs=2e-3)
    assert [one.index for one in ranked] == [0, 1, 2]
    assert [hit["rerank"] for hit in hits[3:]] == [None, None]


def test_what_the_server_says_of_its_reranker_is_told(fake, url):
    assert "the server: qwen3-reranker:0.6b is not " in failed("search", *QUESTION, "--rerank", "--server", url)
    said = failed("search", *QUESTION, "--rerank", "--reranker", "demo", "--server", url)
    assert "demo is an embedding model: it makes vectors and ranks nothing" in said


def test_offline_nothing_is_pulled(own_index):
    said = failed("search", "cat", "--rerank", "--offline")
    assert "Nothing is downloaded now, because --offline is given" in said


def test_explain_says_each_thing_once_beside_a_reranker_of_its_own(tmp_path):
    """The lines of the second model came twice."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "a.txt").write_text("The cat was fed by the neighbour.")
    assert run("index", tmp_path / "mine", "-m", "demo", "--name", "one", "-q").exit_code == 0
    path = rerankers.write_taught(tmp_path / "taught-reranker.gguf")
    result = run("search", "who fed it?", "--name", "one", "--rerank", "--reranker", path, "--explain")
    assert result.exit_code == 0, result.stderr
    said = [line for line in result.stderr.splitlines() if line.startswith("taught-reranker: ")]
    assert said
    assert len(said) == len(set(said))
