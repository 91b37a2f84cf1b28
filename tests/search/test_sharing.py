"""Which of the passages that words find count in a search that chooses for itself how to search.

Vectors are set by hand: the query is nearest to the first text of each index, so that all others come by words.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from q3e_local import VectorIndex
from q3e_local.search.ask import Question, ask
from q3e_local.search.database import Database
from q3e_local.search.database.records import NO_FILTERS
from q3e_local.search.hits import Found, Mode

# So many that two chunks of them are rare.
FILLER = [f"Entry {i}: nothing happened in town; haben wir die, dans la maison, ありました。" for i in range(600)]


def found_by(path: Path, texts: list[str], query: str, mode: Mode = "auto") -> Found:
    vectors = np.zeros((len(texts) + len(FILLER), 2), np.float32)
    vectors[:, 1] = 1
    vectors[0] = 1, 0
    with VectorIndex(path, dim=2) as index:
        index.add_vectors([*texts, *FILLER], vectors, [str(i) for i in range(len(vectors))])
    with Database(path) as database, database.snapshot() as state:
        return ask(state, Question(query, vectors[0], 3, mode, exact=True, filters=NO_FILTERS))


@pytest.mark.parametrize(
    ("query", "texts", "by_words"),
    [
        # One word of three is there by chance, two are not.
        ("which invoices have the wrong amount", ["Bills.", "The invoices lie in the drawer."], []),
        ("which invoices have the wrong amount", ["Bills.", "Two invoices had a wrong date."], ["1"]),
        ("car tax renewal", ["Road.", "Car tax: 180 euros, due in May.", "Library card renewal, front desk."], ["1"]),
        # Words of grammar, which every text has, tell nothing.
        ("Wann haben wir die Heizung reparieren lassen", ["Ofen.", "Die Heizung ist neu.", "Wir haben alle."], ["1"]),
        ("契約書はどこにありますか", ["紙。", "賃貸契約書は引き出しの中。", "駅の前にパン屋があります。"], ["1"]),
        # A pair of characters that lies across two words is in no chunk, and counts for nothing.
        ("宽带合同签了没有", ["网络。", "宽带的合同在抽屉里。"], ["1"]),
        ("公司年会预算超支", ["钱。", "年会的预算已经超支了。", "公司在三楼。"], ["1"]),
        ("宽带合同签字日期", ["网络。", "签合同的日期：宽带五月到期。", "日期待定。"], ["1"]),
        # A name and a code are enough, whatever else is asked.
        ("when does Okonkwo start to pay rent for it", ["Money.", "Okonkwo: first payment in June."], ["1"]),
        ("which customers waited longest for PRJ-2041", ["Trains.", "PRJ-2041 is late.", "PRJ-2042 is late."], ["1"]),
        ("PRJ-2041 什么时候完成", ["Trains.", "PRJ-2041 is late.", "PRJ-2042 is late."], ["1"]),
        # Whoever writes in capitals alone names nothing by it.
        ("WHICH INVOICES HAVE THE WRONG AMOUNT", ["Bills.", "The invoices lie in the drawer."], []),
        ("Which Invoices Have The Wrong Amount", ["Bills.", "The invoices lie in the drawer."], []),
    ],
)
def test_a_passage_counts_if_it_shares_enough_with_the_question(tmp_path, query, texts, by_words) -> None:
    found = found_by(tmp_path / "x.q3e", texts, query)
    assert [hit.id for hit in found.hits if hit.words_rank] == by_words
    assert found.mode == ("hybrid" if by_words else "vectors")
    assert found.hits[0].id == "0" or by_words


def test_whoever_asks_for_both_gets_every_passage_with_a_word(tmp_path) -> None:
    texts = ["Bills.", "The invoices lie in the drawer."]
    found = found_by(tmp_path / "x.q3e", texts, "which invoices have the wrong amount", mode="hybrid")
    assert "1" in [hit.id for hit in found.hits if hit.words_rank]


def test_a_passage_as_a_question_finds_itself_by_words(tmp_path) -> None:
    """Of so many words only the rarest are searched, and only these count."""
    passage = " ".join(f"word{i} and the" for i in range(300))
    found = found_by(tmp_path / "x.q3e", ["Bills.", passage], f"{passage} unless")
    assert [hit.id for hit in found.hits if hit.words_rank] == ["1"]
