"""The words of a text that are indexed, the terms that a query looks for, and that no query can break the search."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_indexes import SPACE, by_words, chunks, ids, vectors

from q3e_local.search.ask import Question, ask
from q3e_local.search.database import Database, word_table
from q3e_local.search.database.query_words import Term, folded, terms_of, tokens
from q3e_local.search.database.records import Counted, Filters


def put(database: Database, *texts: str) -> None:
    database.put([str(n) for n in range(len(texts))], chunks(*texts), vectors(len(texts)))


def found(database: Database, query: str) -> list[int]:
    return [int(name) for name in ids(database, by_words(database, query, 10))]


def counted(database: Database, terms: Sequence[Term]) -> Counted:
    with database.snapshot() as state:
        return state.counted(terms)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1,250 or 1.250.000, 12,50", ["1", "250", "1250", "or", "1", "250", "000", "1250000", "12", "50"]),
        ("1,250km 1,2504 租1,250元", ["1", "250km", "1", "2504", "租", "1", "250", "1250", "元"]),
        ("1'250 1’250.000", ["1", "250", "1250", "1", "250", "1250", "000"]),
        ("12,5 1,250,7", ["12", "5", "1", "250", "7"]),
        ("Hello, World! it's 3.5", ["hello", "world", "it", "s", "3", "5"]),
        ("第三季度预算复盘", ["第三", "三季", "季度", "度预", "预算", "算复", "复盘", "盘"]),
        ("用GPT-4写 猫", ["用", "gpt", "4", "写", "猫"]),
        ("ＡＢＣ１２３ ㎏ ﬁn", ["abc123", "kg", "fin"]),
        ("Crème BRÛLÉE Straße cre\u0300me", ["creme", "brulee", "strasse", "creme"]),
        ("max_tokens=5; fooBar::baz", ["max", "tokens", "5", "foobar", "baz"]),
        ("がが ﾃｽﾄ", ["がが", "が", "テス", "スト", "ト"]),
        ("한국어", ["한국", "국어", "어"]),
        ("हिन्दी भाषा", ["हिन्दी", "भाषा"]),
        ("שָׁלוֹם", ["שלום"]),
        ("naïve\x00tail\ud800", ["naive", "tail"]),
        ("x" * 100, ["x" * 64]),
        ("", []),
        ("!?—…🙂", []),
    ],
)
def test_tokens(text: str, expected: list[str]) -> None:
    assert tokens(text) == expected


@pytest.mark.parametrize(
    ("query", "matches", "exact"),
    [
        ("what about the budget", ['"what"', '"about"', '"the"', '"budget"'], []),
        ("预算 report", ['"预算"', '"report"'], []),
        ("预算复盘", ['"预算"', '"算复"', '"复盘"'], []),
        ("猫", ['"猫"*'], []),
        ("「第3季」", ['"第 3 季"*', '"第"*', '"3"', '"季"*'], ["第3季", "3"]),
        ("rent of 1,250 euros", ['"1250"', '"rent"', '"of"', '"euros"'], ["1,250"]),
        ("租金1,234,567.50元", ['"1234567 50"', '"租金"', '"元"*'], ["1,234,567.50"]),
        ("1.250 or 1'250", ['"1 250"', '"1250"', '"or"'], ["1.250"]),
        ("version 1.2.3", ['"1 2 3"', '"version"'], ["1.2.3"]),
        ("B-3.5 12,5%", ['"12 5"', '"b 3 5"', '"b"', '"3"', '"5"'], ["12,5", "B-3.5", "3", "5"]),
        ("2019,2020 v1.2", ['"2019 2020"', '"v1 2"', '"v1"', '"2"'], ["2019,2020", "v1.2", "v1", "2"]),
        ('"annual report" now', ['"annual report"', '"annual"', '"report"', '"now"'], ["annual report"]),
        ("「预算复盘」", ['"预算 算复 复盘"', '"预算"', '"算复"', '"复盘"'], ["预算复盘"]),
        ("“a b” «c d»", ['"a b"', '"c d"', '"a"', '"b"', '"c"', '"d"'], ["a b", "c d"]),
        ("PRJ-2041", ['"prj 2041"', '"prj"', '"2041"'], ["PRJ-2041", "PRJ", "2041"]),
        ("state-of-the-art", ['"state of the art"', '"state"', '"of"', '"the"', '"art"'], []),
        ("foo::bar x@y", ['"foo bar"', '"x y"', '"foo"', '"bar"', '"x"', '"y"'], ["foo::bar", "x@y"]),
        ("use max_tokens", ['"max tokens"', '"use"', '"max"', '"tokens"'], ["max_tokens"]),
        ("VectorIndex", ['"vectorindex"'], ["VectorIndex"]),
        ("the SLA of 2024", ['"sla"', '"the"', '"of"', '"2024"'], ["SLA", "2024"]),
        ("WHY DOES IT NOT WORK", ['"why"', '"does"', '"it"', '"not"', '"work"'], []),
        ("the the THE", ['"the"'], ["THE"]),
        ('"" ** ( ) - : ^ {', [], []),
    ],
)
def test_what_a_query_looks_for(query: str, matches: list[str], exact: list[str]) -> None:
    terms = terms_of(query)
    assert [term.match for term in terms] == matches
    assert [term.exact for term in terms if term.exact] == exact


TEXTS = (
    "第三季度预算复盘：支出超标，明年压缩。",
    "The budget of PRJ-2041 was cut in March; see max_tokens.",
    "GPT-4 的 API 限制是每分钟 40 次，café 里也一样",
    "annual report of the state-of-the-art review",
    "report, annual: nothing of the kind",
    "2041 reasons, and the PRJ of another",
)


@pytest.fixture(scope="module")
def of_texts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    """An index of TEXTS, which no test changes."""
    with Database.create(tmp_path_factory.mktemp("words") / "a.q3e", SPACE) as database:
        put(database, *TEXTS)
        yield database


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("预算", [0]),
        ("预", [0]),
        ("标", [0]),  # the last character of its run
        ("季度的预算", [0]),
        ("ＡＰＩ 限制", [2]),
        ("API限制", [2]),
        ("cafe", [2]),
        ("PRJ-2041", [1, 5]),  # the whole code ranks before its parts
        ('"annual report"', [3, 4]),
        ("MAX_TOKENS", [1]),
        ("nowhere", []),
        ("苹果", []),
    ],
)
def test_words_are_found_in_both_writings(of_texts: Database, query: str, expected: list[int]) -> None:
    assert found(of_texts, query) == expected


@pytest.mark.parametrize(
    "query",
    [
        'NEAR(a b, 5) AND NOT x* text : {a b} ^c - "',
        "a" * 10_000,
        "word " * 2_000,
        "预算" * 5_000,
        '"' * 10_000,
        "“" * 10_000,
        "a-" * 5_000,
        "aB" * 5_000,
        "x1 y2 " * 1_700,
        " ".join(f"w{n}" for n in range(2_000)),
    ],
    ids=lambda query: query[:8],
)
def test_a_hostile_or_huge_query_is_only_words(of_texts: Database, query: str) -> None:
    found(of_texts, query)
    assert found(of_texts, "预算") == [0]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("1,250", [0, 3, 4]),
        ("1250", [0, 3, 4]),
        ("1.250", [0, 3, 4]),
        ("1.2.3", [2]),
        ("250", [0, 1, 3]),  # the index has it as a part of 1,250, but a query for 1,250 does not look for it
        ("1.250,50", [3]),
    ],
)
def test_numbers_are_found_whole_however_they_are_written(
    database: Database, query: str, expected: list[int]
) -> None:
    put(database, "rent is 1,250 euros", "food 250 euros", "now 1.2.3, then 1.3.2", "1.250,50 EUR", "1250 in all")
    assert sorted(found(database, query)) == expected


@pytest.mark.parametrize(
    ("query", "expected", "absent"),
    [
        ("PRJ-2041", [1, 5], ()),
        ("PRJ-2042", [], ("PRJ-2042",)),  # its first half stands in two texts
        ("GPT-5, prj_2042, PRJ-2042", [], ("GPT-5", "prj_2042")),
        ('"PRJ-2042"', [], ("PRJ-2042",)),
        ("PRJ-2042 of the annual report", [1, 3, 4, 5], ("PRJ-2042",)),
        ("PRJ beside PRJ-2042", [1, 5], ("PRJ-2042",)),
        ("state-of-the-budget", [1, 3, 4, 5], ()),  # words with hyphens are no code
        ("ticket:PRJ-2041", [1, 5], ()),  # nor is a label before a code
        ("PRJ-2041/PRJ-2042", [1, 5], ()),
        ("40-day", [2], ()),  # a measure
        ("2041/40", [1, 2, 5], ()),
        ("2041-05-01", [1, 5], ()),
    ],
)
def test_half_a_code_does_not_answer_for_a_code_that_is_nowhere(
    of_texts: Database, query: str, expected: list[int], absent: tuple[str, ...]
) -> None:
    with of_texts.snapshot() as state:
        by_words = ask(state, Question(query, None, 9, "words", False, Filters()))
        both = ask(state, Question(query, vectors(1)[0], 9, "hybrid", False, Filters()))
    assert sorted(int(hit.id) for hit in by_words) == expected
    assert {int(hit.id) for hit in both if hit.words_rank is not None} == set(expected)
    assert by_words.absent == both.absent
    assert tuple(term.exact for term in by_words.absent) == absent
    for code in absent:
        assert f"words: {code!r} is in no chunk, so its parts do not count" in by_words.explained


def test_a_number_in_another_writing_is_not_absent(database: Database) -> None:
    put(database, "1250 in all", "part 250")
    with database.snapshot() as state:
        found = ask(state, Question("1.250", None, 9, "words", False, Filters()))
    assert ([hit.id for hit in found], found.absent) == (["0"], ())


def test_a_phrase_of_several_scripts_is_found_where_all_of_it_stands(database: Database) -> None:
    put(database, "第3季度", "第3章 和季")
    phrase, *_ = terms_of("「第3季」")
    assert counted(database, [phrase]).found == {phrase: 1}


def test_of_a_query_as_long_as_a_text_not_all_is_looked_up_and_that_is_told(
    of_texts: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = counted(of_texts, terms_of(" ".join(f"w{n}" for n in range(300)) + " budget"))
    assert (long.n_terms, long.n_passed_over) == (301, 45)
    assert long.explained == ("words: 45 of the query's 301 terms were not looked up: too many",)
    phrases = counted(of_texts, terms_of(" ".join(f'"in march {n}"' for n in range(100)) + " budget"))
    assert phrases.n_passed_over == 68
    assert counted(of_texts, terms_of("a-" * 500)).n_passed_over == 1  # a phrase of 500 words
    assert not counted(of_texts, terms_of("the budget")).explained
    monkeypatch.setattr(word_table, "_COUNTED_S", -1.0)
    assert counted(of_texts, terms_of("the budget")).n_passed_over == 2
    with of_texts.snapshot() as state:
        found = ask(state, Question("the budget", None, 5, "words", False, Filters()))
    assert found.explained == (
        "words: 2 of the query's 2 terms were not looked up: too many",
        "words: none of those looked up is in the index",
    )


@given(st.text(max_size=60))
def test_any_query_is_answered(of_texts: Database, query: str) -> None:
    for term in terms_of(query):
        assert '"' not in "".join(term.tokens)
    found(of_texts, query)


@given(st.data())
def test_whatever_stands_in_a_text_is_found_as_a_phrase(of_texts: Database, data: st.DataObject) -> None:
    run = "第三季度预算复盘"
    start = data.draw(st.integers(0, len(run) - 1))
    end = data.draw(st.integers(start + 1, len(run)))
    assert found(of_texts, f"「{run[start:end]}」") == [0]
    absent = data.draw(st.permutations(run[start:end]))
    if end - start > 1 and "".join(absent) not in run:
        phrase = terms_of(f"「{''.join(absent)}」")[0]
        assert phrase not in counted(of_texts, [phrase]).found


@given(st.text(max_size=80))
def test_folding_twice_changes_nothing_and_a_text_has_the_words_of_its_query(text: str) -> None:
    assert tokens(folded(text)) == tokens(text)
    indexed = set(tokens(text))
    for term in terms_of(text):
        if term.is_prefix:
            assert any(token.startswith(term.tokens[-1]) for token in indexed)


def test_common_words_are_left_out_where_they_would_cost_much(database: Database) -> None:
    put(database, "rare common", *["common"] * 60)
    counts = counted(database, terms_of("the common rare missing")).found
    assert {term.match: n for term, n in counts.items()} == {'"rare"': 1, '"common"': 61}
    large = {Term(("rare",)): 1, Term(("common",)): 100_000}
    with database.snapshot() as state:
        ranked = state.words(large, 5)
    assert len(ranked.rows) == 1
    assert ranked.explained == ("words: ranked the chunks with any of 1 terms by bm25, without 1 common ones",)
