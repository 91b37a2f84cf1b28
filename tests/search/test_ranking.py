"""How rankings are fused, and when a search uses words. What both find together is tested in test_labelled.py."""

from __future__ import annotations

import itertools
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from q3e_local.search.database.query_words import Term, terms_of
from q3e_local.search.database.records import Counted
from q3e_local.search.ranking import fuse, reasons_for_words, sharing


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
        ("ประกัน", {"ปร": 3, "กั": 400}, ["'ปร' (in 3 of 1,000)"]),
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


def weights(query: str, counts: dict[str, int], n_chunks: int) -> tuple[dict[str, float], float]:
    terms = terms_of(query)
    of_query = {" ".join(term.tokens): term for term in terms}
    found = sharing(query, terms, Counted({of_query[text]: n for text, n in counts.items()}), n_chunks)
    return {" ".join(term.tokens): weight for term, weight in found.weights.items()}, found.enough


def test_a_word_weighs_what_it_tells_and_one_that_is_found_nowhere_counts_too() -> None:
    # "which", "have" and "the" are words of questions; log(1001 / 10.5), log(1001 / 100.5), log(1001 / 0.5).
    found, enough = weights("which invoices have the wrong amount", {"invoices": 10, "wrong": 100}, 1000)
    assert found == pytest.approx({"invoices": 4.5573, "wrong": 2.2986, "amount": 7.6019}, abs=1e-4)
    assert enough == pytest.approx(0.4 * (4.5573 + 2.2986 + 7.6019), abs=1e-4)


@pytest.mark.parametrize(
    ("query", "counts", "alone"),
    [
        ("when does Okonkwo start paying", {"okonkwo": 2, "start": 3, "paying": 3}, {"okonkwo"}),
        ("when does Okonkwo start paying", {"okonkwo": 90, "start": 3, "paying": 3}, set()),  # not rare
        ("Okonkwo starts paying the rent", {"okonkwo": 2, "starts": 3, "paying": 3}, set()),  # all sentences begin so
        ("Okonkwo 什么时候付房租", {"okonkwo": 2, "时候": 90}, {"okonkwo"}),
        ("is PRJ-2041 late", {"prj 2041": 3, "prj": 40, "2041": 3, "late": 90}, {"prj 2041"}),
        ("was steht im Vertrag zur Heizung", {"heizung": 3, "vertrag": 90, "steht": 90}, {"heizung"}),
    ],
)
def test_what_is_meant_to_the_letter_and_a_rare_name_are_enough_by_themselves(
    query: str, counts: dict[str, int], alone: set[str]
) -> None:
    found, enough = weights(query, counts, 1000)
    assert {text for text, weight in found.items() if weight == enough} == alone


def test_the_parts_of_a_code_do_not_count_beside_it() -> None:
    found, _ = weights("PRJ-2041 and max_tokens", {"prj 2041": 3, "prj": 40, "2041": 3}, 1000)
    assert set(found) == {"prj 2041", "max tokens"}
