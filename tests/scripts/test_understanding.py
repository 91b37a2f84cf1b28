"""The questions that share no word with their answers, and the script that counts how often they are answered."""

from __future__ import annotations

import json
import re
import runpy
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from click.testing import CliRunner
from paths import ROOT

FOLDER = ROOT / "scripts" / "bench" / "understanding"
QUESTIONS = [json.loads(line) for line in (FOLDER / "questions.jsonl").read_text(encoding="utf-8").splitlines()]
FUNCTION_PAIRS = {"什么", "怎么", "多少", "可以", "没有", "不能", "是不", "的时", "时候", "以后", "之前"}
PAIRS = [json.loads(line) for line in (FOLDER / "pairs.jsonl").read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def script():
    return runpy.run_path(str(FOLDER / "hits.py"))


def one_hot(places: list[int], n: int) -> np.ndarray:
    return np.eye(n, dtype=np.float32)[places]


def test_the_set_has_as_many_of_each_kind_as_its_page_says():
    assert len({question["id"] for question in QUESTIONS}) == len({question["text"] for question in QUESTIONS}) == 100
    kinds = Counter((question["lang"], question["topic"].partition("/")[0]) for question in QUESTIONS)
    assert kinds == dict.fromkeys([(lang, topic) for lang in ("en", "zh") for topic in ("everyday", "technical")], 25)
    splits = Counter((question["split"], question["lang"]) for question in QUESTIONS)
    assert splits == {("dev", "en"): 30, ("dev", "zh"): 30, ("held-out", "en"): 20, ("held-out", "zh"): 20}
    assert set(Counter(pair["kind"] for pair in PAIRS).values()) == {15}


def test_a_question_shares_no_content_word_with_its_document():
    assert {question["id"]: shared for question in QUESTIONS if (shared := shared_words(question))} == {}


def shared_words(question: dict[str, str]) -> set[str]:
    """Beginnings of English words of 5 letters or more, and pairs of Chinese characters, without function words."""
    text, same, across = question["text"], question["same"], question["across"]
    is_chinese = [bool(re.search("[\u4e00-\u9fff]", part)) for part in (text, same, across)]
    assert is_chinese == ([False, False, True] if question["lang"] == "en" else [True, True, False])
    if question["lang"] == "en":
        of_text, of_question = ({word[:5] for word in re.findall("[a-z]{5,}", part.lower())} for part in (text, same))
        return of_text & of_question - {"after", "about", "again", "where", "which", "there", "since", "still"}
    of_text, of_question = ({a + b for a, b in pairwise(part) if (a + b).isalnum()} for part in (text, same))
    return of_text & of_question - FUNCTION_PAIRS


@pytest.mark.parametrize(("shift", "hit_at_1", "hit_at_3"), [(0, 1, 1), (1, 0, 1), (3, 0, 0)])
def test_a_question_hits_where_its_document_is_among_the_nearest(script, shift, hit_at_1, hit_at_3):
    def embed(texts, kind):
        """Documents at right angles; a question nearest to the `shift` next documents, then to its own."""
        n = len(texts)
        own = np.arange(n)
        rows = one_hot(list(own), n) * np.float32(0.1)
        for step in range(shift if kind == "query" else 0):
            rows += one_hot(list((own + 1 + step) % n), n)
        return rows

    for row in script["hits"](embed):
        if row["direction"] == "across, alone":  # which leaves out some of the documents between
            continue
        assert (row["hit@1"], row["hit@3"], row["questions"]) == (
            hit_at_1,
            hit_at_3,
            {"dev": 60}.get(row["split"], 40),
        )


@pytest.mark.parametrize("row", [np.ones(4), np.full(4, np.nan), np.zeros(4)])
def test_a_model_whose_vectors_tell_nothing_apart_finds_nothing(script, row):
    found = script["hits"](lambda texts, kind: np.tile(row.astype(np.float32), (len(texts), 1)))
    assert {figure for each in found for figure in (each["hit@1"], each["hit@3"])} == {0}


def test_across_alone_leaves_out_the_documents_in_the_questions_own_language(script):
    """A model that sees nothing but the language: in its own the question finds 30 documents that are as near."""
    n = 6
    questions = [
        {"text": f"{place}", "across": f"q{place}", "lang": "en" if place < 3 else "zh"} for place in range(n)
    ]

    def embed(texts, kind):
        own = np.eye(n, dtype=np.float32)[[int(text.removeprefix("q")) for text in texts]]
        is_english = np.array([int(text.removeprefix("q")) < 3 for text in texts])
        other = np.where(is_english, 1, 0) if kind == "document" else np.where(is_english, 0, 1)
        return np.hstack([own, 9 * np.eye(2, dtype=np.float32)[other]])

    assert (script["ranks"](embed, questions, "across") >= 3).all()
    assert (script["ranks"](embed, questions, "across, alone") == 0).all()


def test_the_script_prints_the_figures_of_a_model(script):
    result = CliRunner().invoke(script["main"], ["-m", "demo", "--json"], catch_exceptions=False)
    found = json.loads(result.stdout)
    assert [(row["split"], row["direction"]) for row in found["hits"]] == [
        (split, direction) for split in ("dev", "held-out") for direction in ("same", "across", "across, alone")
    ]
    assert found["cosines"].keys() == {"paraphrase", "unrelated", "negation", "across"}
    assert "hit@1" in CliRunner().invoke(script["main"], ["-m", "demo", "-d", "64"], catch_exceptions=False).stdout
