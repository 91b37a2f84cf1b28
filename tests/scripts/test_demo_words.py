"""How the words are weighed that the demo model's vocabulary is learned from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
from demo_scripts import FOLDER, imported

pytest.importorskip("jieba", reason="jieba is installed for training only")
wordfreq = pytest.importorskip("wordfreq", reason="wordfreq is installed for training only")


@pytest.fixture(scope="module")
def words() -> Iterator[SimpleNamespace]:
    with imported(FOLDER, ("vocabulary", "words")) as found:
        yield found.words


def test_words_are_counted_as_they_are_written(words):
    assert words.count_words(["The router, the Router!", "打开路由器。"]) == Counter(
        {"The": 1, "router": 1, "the": 1, "Router": 1, "打开": 1, "路由器": 1}
    )


def large(weight: float, word: str, language: str = "en") -> int:
    """The weight of a word's frequency, which `wordfreq.word_frequency` would round."""
    return int(weight * wordfreq.get_frequency_dict(language, wordlist="large")[word])


def test_a_capitalized_form_counts_as_much_as_a_word_that_is_used_often_and_a_tenth_of_others(words):
    weighed = words.weigh_words(Counter({"router": 60, "invoice": 59}), Counter())
    # 8 times the square root of 60, and 20 million times its frequency at large.
    router = 62 + large(2e7, "router")
    assert weighed["router"] == router
    assert weighed["Router"] == router
    invoice = 62 + large(2e7, "invoice")
    assert weighed["invoice"] == invoice
    assert weighed["Invoice"] == invoice // 10


def test_a_word_that_our_texts_capitalize_is_a_name_whose_small_form_counts_a_tenth(words):
    counts = {"Oslo": 9, "oslo": 1, "Cobbler": 8, "cobbler": 2, "Kettle": 4}
    weighed = words.weigh_words(Counter(counts), Counter())
    oslo = large(2e7, "oslo")
    assert weighed["Oslo"] == 24 + oslo
    assert weighed["oslo"] == 8 + oslo // 10
    # Eight of ten is not above 0.8, and four may all have begun a sentence.
    cobbler = 12 + large(2e7, "cobbler")
    assert weighed["cobbler"] == cobbler
    assert weighed["Cobbler"] == 23 + cobbler // 10
    assert weighed["kettle"] == large(2e7, "kettle")


def test_words_of_the_examples_count_more_than_those_of_other_texts(words):
    weighed = words.weigh_words(Counter({"kettle": 4, "路由器": 4}), Counter({"kettle": 4, "路由器": 4}))
    # 8 and 5 times the square root of 4, and the frequency at large.
    assert weighed["kettle"] == 26 + large(2e7, "kettle")
    assert weighed["路由器"] == 26 + large(4e6, "路由器", "zh")


def test_a_word_that_is_in_no_text_of_ours_counts_a_seventh(words):
    weighed = words.weigh_words(Counter({"kettle": 2}), Counter())
    assert weighed["kettle"] == 12 + large(2e7, "kettle")
    assert weighed["teapot"] == large(0.15 * 2e7, "teapot")
