"""The best sentence of a passage: by shared words, else by meaning, as far as the tokens go."""

from __future__ import annotations

import pytest
from fake import FakeEngine

from q3e_local import Embedder
from q3e_local.search.best_sentence import Best, by_vectors, by_words
from q3e_local.search.database.query_words import terms_of

TEXT = "The pool was full. The report job held a lock. Nobody saw the alert at night."


@pytest.mark.parametrize(
    ("query", "text", "expected"),
    [
        ("why was the pool full?", TEXT, "The pool was full."),
        ("who saw the alert?", TEXT, "Nobody saw the alert at night."),
        # "the" is in every sentence and is short, so that it tells no sentence apart.
        ("the of a", TEXT, None),
        ("giraffe", TEXT, None),
        ("超支多少", "参加人：林敏。预算超支百分之六。会议结束。", "预算超支百分之六。"),
        ("猫", "这里有一只大狗在院子里。那里有一只小猫在睡觉。", "那里有一只小猫在睡觉。"),
        # A short word that is meant to the letter counts as a long word does.
        ("B-17", "We met in room A-12 today. We met in room B-17 before.", "We met in room B-17 before."),
        # A title is the best sentence only where the text has nothing else.
        (
            "actions", "**Actions**\n\n- The actions were agreed by all.\n- Nothing else was said.",
            "- The actions were agreed by all.",
        ),
        # The lines of code stand in for sentences.
        ("sum_by_month", "def sum_by_month(rows):\n" + "    do(something)\n" * 5, "def sum_by_month(rows):"),
        ("anything", "", None),
    ],
)  # fmt: skip
def test_by_words(query, text, expected):
    best = by_words(query, text)
    assert (best and text[best.start : best.end]) == expected


def test_half_of_a_code_that_no_chunk_has_marks_no_sentence():
    query, text = "PRJ-2042 lease", "PRJ-2041 and PRJ-2043 are done. The lease ends in May. Nothing else was said."
    code = next(term for term in terms_of(query) if term.exact == "PRJ-2042")
    best = by_words(query, text, [code])
    assert best is not None
    assert text[best.start : best.end] == "The lease ends in May."


def test_by_meaning_all_sentences_are_embedded_at_once_up_to_the_limit_of_tokens():
    engine = FakeEngine(n_batch=1000)
    embedder = Embedder(engine, "fake")
    query = embedder.embed_documents(["The report job held a lock."]).vectors[0]
    engine.batches.clear()
    n = len(TEXT)
    expected = Best(TEXT.index("The report"), TEXT.index(" Nobody"))
    assert by_vectors(embedder, query, [TEXT, "Only one sentence here."], n) == [expected, Best(0, 23)]
    assert [len(batch) for batch in engine.batches] == [3]
    assert by_vectors(embedder, query, [TEXT, TEXT], n) == [expected, None]
    assert by_vectors(embedder, query, [], n) == []
