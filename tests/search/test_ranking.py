"""How rankings are fused, and when a search uses words. What both find together is tested in test_labelled.py."""

from __future__ import annotations

import itertools
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from q3e_local.search.database.query_words import Term, terms_of
from q3e_local.search.ranking import fuse, reasons_for_words, shares_enough, to_the_letter


def test_fusing_adds_the_reciprocals_of_ranks() -> None:
    # 1/61 + 1/63 for 7; 1/62 + 1/62 for 8; 1/61 for 9; 1/63 for 5.
    assert fuse([[7, 8, 5], [9, 8, 7]]) == [7, 8, 9, 5]
    assert fuse([[1, 2, 3]]) == [1, 2, 3]
    assert fuse([[1, 2], [2, 1]]) == [1, 2]  # among equal sums the first ranking decides
    assert fuse([[], []]) == []


@given(st.lists(st.lists(st.integers(0, 30), unique=True, max_size=20), min_size=1, max_size=3))
def test_fusing_orders_by_the_sum_whatever_the_rankings(rankings: list[list[int]]) -> None:
    def total(row: int) -> Fraction:
        return sum((Fraction(1, 61 + ranking.index(row)) for ranking in rankings if row in ranking), Fraction(0))

    fused = fuse(rankings)
    assert sorted(fused) == sorted({row for ranking in rankings for row in ranking})
    sums = [total(row) for row in fused]
    pairs = itertools.pairwise(sums)
    assert all(before >= after or float(before) == pytest.approx(float(after)) for before, after in pairs)


@pytest.mark.parametrize(
    ("query", "counts", "expected"),
    [
        ("what did we decide about the budget", {"budget": 90, "what": 2, "about": 3}, []),
        ("what about the zebra", {"zebra": 3, "what": 1, "about": 1}, ["'zebra' (in 3 of 1,000)"]),
        ("where is PRJ-2041", {"prj 2041": 2, "prj": 40, "2041": 3}, ["'PRJ-2041' (in 2 of 1,000)"]),
        ("where is PRJ 9999", {"prj": 40}, ["'PRJ' (in 40 of 1,000)"]),
        ("the API limit", {"api": 400, "limit": 200}, []),  # too common
        ("the SLA", {"sla": 30}, ["'SLA' (in 30 of 1,000)"]),
        ('"signed off" by whom', {"signed off": 9, "signed": 20}, ["'signed off' (in 9 of 1,000)"]),
        ("max_tokens 怎么设置", {"max tokens": 4, "max": 30, "tokens": 90}, ["'max_tokens' (in 4 of 1,000)"]),
        ("我们的预算是什么", {"们的": 2, "预算": 40, "的预": 3, "什么": 2}, []),
        ("王小明的预算", {"王小": 3, "小明": 3, "预算": 40}, ["'王小' (in 3 of 1,000)", "'小明' (in 3 of 1,000)"]),
        ("2024年", {"2024": 60}, ["'2024' (in 60 of 1,000)"]),
        ("猫", {"猫": 1}, []),
    ],
)
def test_words_are_searched_where_a_term_is_exact_or_rare(
    query: str, counts: dict[str, int], expected: list[str]
) -> None:
    of_query = {" ".join(term.tokens): term for term in terms_of(query)}
    found: dict[Term, int] = {of_query[text]: n for text, n in counts.items()}
    assert reasons_for_words(found, 1000) == expected


def test_a_code_that_is_everywhere_in_a_large_index_is_no_reason() -> None:
    (term,) = terms_of("B17")
    assert reasons_for_words({term: 19_999}, 1_000_000) == ["'B17' (in 19,999 of 1,000,000)"]
    assert reasons_for_words({term: 20_000}, 1_000_000) == []  # 20,000 or more: the count ends there


@pytest.mark.parametrize(
    ("query", "text", "enough"),
    [
        # invoices, wrong, amount: one of three words is less than two fifths, two are more.
        ("which invoices have the wrong amount", "The invoices are in the second drawer.", False),
        ("which invoices have the wrong amount", "Two invoices had a wrong date.", True),
        ("what did Rosa say", "Rosa has used it since autumn.", True),
        ("the invoice", "Invoices are in the second drawer.", False),  # another form is another word
        # 宽带, 带合, 合同, 同签, 没有: one of five pairs is less than two fifths.
        ("宽带合同签了没有", "宽带很慢。", False),
        ("宽带合同签了没有", "宽带的合同在抽屉里。", True),
        # A code is reason enough, whatever else is asked.
        ("which customers waited longest for PRJ-2041", "PRJ-2041 is late.", True),
        ("which customers waited longest for PRJ-2041", "PRJ-2042 is late.", False),
    ],
)
def test_a_text_shares_enough_with_a_query(query: str, text: str, enough: bool) -> None:
    terms = terms_of(query)
    letters = to_the_letter(dict.fromkeys(terms, 1), 1000)
    assert shares_enough(terms, letters, text) is enough
