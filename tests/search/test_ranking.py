"""Fusing two rankings, and when words are asked at all; with a small collection in two languages that has answers."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from fractions import Fraction

import pytest
from command import demo
from hypothesis import given
from hypothesis import strategies as st

from q3e_local import VectorIndex
from q3e_local.search.database.query_words import Term, terms_of
from q3e_local.search.ranking import fuse, reasons_for_words


def test_fusing_adds_the_reciprocals_of_ranks() -> None:
    # 1/61 + 1/63 for 7; 1/62 + 1/62 for 8; 1/61 for 9; 1/63 for 5.
    assert fuse([[7, 8, 5], [9, 8, 7]]) == [7, 8, 9, 5]
    assert fuse([[1, 2, 3]]) == [1, 2, 3]
    assert fuse([[1, 2], [2, 1]]) == [1, 2]  # equal: as the first has them
    assert fuse([[], []]) == []


@given(st.lists(st.lists(st.integers(0, 30), unique=True, max_size=20), min_size=1, max_size=3))
def test_fusing_orders_by_the_sum_whatever_the_rankings(rankings: list[list[int]]) -> None:
    def total(row: int) -> Fraction:
        return sum((Fraction(1, 61 + each.index(row)) for each in rankings if row in each), Fraction(0))

    fused = fuse(rankings)
    assert sorted(fused) == sorted({row for each in rankings for row in each})
    sums = [total(row) for row in fused]
    assert all(one >= other or float(one) == pytest.approx(float(other)) for one, other in itertools.pairwise(sums))


@pytest.mark.parametrize(
    ("query", "counts", "expected"),
    [
        ("what did we decide about the budget", {"budget": 90, "what": 2, "about": 3}, []),
        ("what about the zebra", {"zebra": 3, "what": 1, "about": 1}, ["'zebra' (in 3 of 1,000)"]),
        ("where is PRJ-2041", {"prj 2041": 2, "prj": 40, "2041": 3}, ["'PRJ-2041' (in 2 of 1,000)"]),
        ("where is PRJ-9999", {"prj": 40}, ["'PRJ' (in 40 of 1,000)"]),
        ("the API limit", {"api": 400, "limit": 200}, []),  # everywhere
        ("the SLA", {"sla": 30}, ["'SLA' (in 30 of 1,000)"]),
        ('"signed off" by whom', {"signed off": 9, "signed": 20}, ["'signed off' (in 9 of 1,000)"]),
        ("max_tokens 怎么设置", {"max tokens": 4, "max": 30, "tokens": 90}, ["'max_tokens' (in 4 of 1,000)"]),
        ("我们的预算是什么", {"们的": 2, "预算": 40, "的预": 3, "什么": 2}, []),
        ("王小明的预算", {"王小": 3, "小明": 3, "预算": 40}, ["'王小' (in 3 of 1,000)", "'小明' (in 3 of 1,000)"]),
        ("2024年", {"2024": 60}, ["'2024' (in 60 of 1,000)"]),
        ("猫", {"猫": 1}, []),
    ],
)
def test_words_are_asked_where_something_is_exact_or_rare(
    query: str, counts: dict[str, int], expected: list[str]
) -> None:
    of_query = {" ".join(term.tokens): term for term in terms_of(query)}
    found: dict[Term, int] = {of_query[text]: n for text, n in counts.items()}
    assert reasons_for_words(found, 1000) == expected


def test_a_code_that_is_everywhere_in_a_large_index_is_no_reason() -> None:
    (term,) = terms_of("B17")
    assert reasons_for_words({term: 19_999}, 1_000_000) == ["'B17' (in 19,999 of 1,000,000)"]
    assert reasons_for_words({term: 20_000}, 1_000_000) == []  # or more: it is counted no further


# Notes as people have them, and questions with the one that answers.
NOTES = {
    "budget": "第三季度预算复盘：市场费用超支百分之十二，主要是展会。第四季度压缩差旅。",
    "minutes": "Minutes of 14 March: we postponed the move to the new office until the lease is signed.",
    "ticket": "PRJ-2041: the importer loses the last line of a CSV without a newline. Fixed in 1.8.3.",
    "ticket2": "PRJ-2042: the exporter writes the header of a CSV twice. Open.",
    "lease": "The lease of the office ends in June; the landlord asks for four per cent more.",
    "holiday": "年假制度：入职满一年有十天年假，未用完的可以顺延到次年三月。",
    "server": "服务器 db-03 的磁盘在周五写满，清理日志后恢复，需要增加监控。",
    "server2": "Server db-04 was moved to the new rack and got more memory.",
    "recipe": "Grandmother's plum cake: 300 g flour, 150 g butter, a pound of plums, bake for 40 minutes.",
    "trip": "去杭州出差的火车票和酒店由行政统一预订，发票交给财务报销。",
    "travel": "Travel: trains are booked by the office, hotels up to 120 euros a night, keep the receipts.",
    "api": "The API answers 429 when a client sends more than 40 requests a minute; wait for Retry-After.",
    "contract": "合同编号 HT-2024-017，甲方为华星科技，付款期限三十天。",
    "contract2": "合同编号 HT-2024-071，乙方负责安装，质保期两年。",
    "paper": "The paper compares reciprocal rank fusion with learned rankings on four collections.",
    "garden": "The roses are cut in March, the hedge in June and the apple trees in winter.",
}
QUESTIONS = {
    "第三季度的预算为什么超支": "budget",
    "how many days of 年假 do we get": "holiday",
    "PRJ-2042": "ticket2",
    "what happened to PRJ-2041?": "ticket",
    "HT-2024-071": "contract2",
    "合同 HT-2024-017 的甲方": "contract",
    "db-03": "server",
    "why does the API answer 429": "api",
    "when does the lease of the office end": "lease",
    "出差的酒店谁预订": "trip",
    "how long is the plum cake baked": "recipe",
    "reciprocal rank fusion": "paper",
    "when are the apple trees cut": "garden",
    "磁盘写满": "server",
    "hotels a night in euros": "travel",
    "until when was the move postponed": "minutes",
}


@pytest.fixture(scope="module")
def notes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VectorIndex]:
    with VectorIndex(tmp_path_factory.mktemp("notes") / "notes.q3e", demo()) as index:
        index.add(list(NOTES.values()), list(NOTES))
        yield index


def test_both_together_find_no_less_than_either_alone(notes: VectorIndex) -> None:
    def hits(mode: str, k: int) -> int:
        return sum(
            answer in [hit.id for hit in notes.search(query, k, mode=mode)] for query, answer in QUESTIONS.items()
        )

    for k in (1, 3):
        assert hits("hybrid", k) >= max(hits("vectors", k), hits("words", k))
        assert hits("auto", k) >= hits("vectors", k)
    assert hits("auto", 3) == len(QUESTIONS)


def test_a_hit_says_its_places_and_has_its_cosine_whoever_found_it(notes: VectorIndex) -> None:
    found = notes.search("HT-2024-071 payment", 16, mode="hybrid")
    by_vectors = {hit.id: hit for hit in notes.search("HT-2024-071 payment", 16, mode="vectors")}
    by_words = [hit.id for hit in notes.search("HT-2024-071 payment", 16, mode="words")]
    order = list(by_vectors)
    assert {hit.id for hit in found} == set(order)
    for hit in found:
        assert hit.score == by_vectors[hit.id].score
        assert hit.vectors_rank == order.index(hit.id) + 1
        assert hit.words_rank == (by_words.index(hit.id) + 1 if hit.id in by_words else None)
    for hit in notes.search("HT-2024-071 payment", 3, mode="words"):
        assert hit.score == by_vectors[hit.id].score
    assert found.hits[0].id == "contract2"
