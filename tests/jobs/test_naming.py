"""The words that name groups: those of a theme, not of grammar; whole words where a script has no spaces."""

from __future__ import annotations

import math
import re

import pytest

from q3e_local.errors import OptionError
from q3e_local.jobs.naming import key_words
from q3e_local.search.database.query_words import tokens

THEMES = {
    "garden": [
        "The oak and the elm are in the garden.",
        "An oak is old.",
        "The garden has one oak.",
        "We cut the elm.",
    ],
    "money": [
        "The budget is small.",
        "The bank has the budget.",
        "A budget of the bank is large.",
        "We pay the bank.",
    ],
    "trips": ["The train to Lyon is late.", "A train is in Lyon.", "We take the train.", "The hotel is in Lyon."],
}
TEXTS = [text for texts in THEMES.values() for text in texts]
LABELS = [label for label, texts in enumerate(THEMES.values()) for _ in texts]


def test_each_group_has_its_words_best_first_and_none_of_grammar() -> None:
    assert key_words(TEXTS, LABELS, tokens, 2) == (("oak", "elm"), ("bank", "budget"), ("lyon", "train"))


def test_the_weights_are_those_of_the_formula() -> None:
    """Written out with the definition: the root of the share in the group, times log(1 + A / f)."""
    found = key_words(TEXTS, LABELS, tokens, 6)[0]
    texts = [set(re.findall(r"[a-z]+", text.lower())) for text in TEXTS]
    mean = sum(map(len, texts)) / 3

    def weight(word: str) -> float:
        in_group = sum(word in text for text in texts[:4]) / 4
        return math.sqrt(in_group) * math.log(1 + mean / sum(word in text for text in texts))

    assert list(found) == sorted(found, key=lambda word: (-weight(word), word))
    assert set(found) == {"oak", "elm", "garden"}  # the others stand in one text of four


def test_pairs_of_characters_become_the_words_that_they_are_of() -> None:
    texts = [
        "云服务器很贵。",
        "我们买云服务器。",
        "云服务器的日志。",
        "上海展会很大。",
        "去上海展会。",
        "上海展会结束。",
    ]
    assert [words[0] for words in key_words(texts, [0, 0, 0, 1, 1, 1], tokens)] == ["云服务器", "上海展会"]


def test_a_word_is_not_named_twice_as_a_part_of_another() -> None:
    texts = ["第三季度预算", "第三季度预算复盘", "其他内容", "其他事情"]
    first = key_words(texts, [0, 0, 1, 1], tokens, 3)[0]
    assert not any(word in other for word in first for other in first if word != other)


def test_a_group_whose_texts_have_no_words_has_none() -> None:
    # A is 4.5: of the tree it is 0.5 ** 0.5 * log(5.5) = 1.21, of the oak log(3.25) = 1.18.
    assert key_words(["1 2 3", "the and of", "oak", "oak tree"], [0, 0, 1, 1], tokens) == ((), ("tree", "oak"))
    assert key_words([], [], tokens) == ()


def test_there_is_a_label_for_each_text() -> None:
    with pytest.raises(OptionError, match="one label for each of the 2 texts, got 1"):
        key_words(["a", "b"], [0], tokens)
