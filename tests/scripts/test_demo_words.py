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


def test_a_capitalized_form_counts_half_as_much_as_a_word_that_is_used_often_and_a_tenth_of_others(words):
    weighed = words.weigh_words(Counter({"router": 60, "invoice": 59}))
    # 8 times the square root of 60, and 20 million times its frequency at large.
    router = 62 + int(2e7 * wordfreq.word_frequency("router", "en", wordlist="large"))
    assert weighed["router"] == router
    assert weighed["Router"] == router // 2
    invoice = 62 + int(2e7 * wordfreq.word_frequency("invoice", "en", wordlist="large"))
    assert weighed["invoice"] == invoice
    assert weighed["Invoice"] == invoice // 10


def test_a_word_that_is_in_no_text_of_ours_counts_a_seventh(words):
    weighed = words.weigh_words(Counter({"kettle": 2}))
    frequency = {word: wordfreq.word_frequency(word, "en", wordlist="large") for word in ("kettle", "teapot")}
    assert weighed["kettle"] == 12 + int(2e7 * frequency["kettle"])
    assert weighed["teapot"] == int(0.15 * 2e7 * frequency["teapot"])
