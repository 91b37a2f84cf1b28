"""How often words occur in our texts, and in the two languages at large: what the vocabulary is learned from."""

import logging
import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator

import jieba
import wordfreq
from vocabulary import HAN

MOST = 8000.0  # of one word, so that the tokens are not all parts of the commonest
CERTAIN = 5000  # added to the count of a character that is to be a token however rarely it occurs
OFTEN = 60  # occurrences in our texts; from there on notes are likely to begin with the word
# A word is a name if so many of its occurrences are capitalized, and more than this share of them: fewer may all
# have begun a sentence.
NAMED, NAME = 5, 0.8
OURS, ONCE_MORE = 8, 5  # times the square root of how often our texts have a word, and how often our examples
WORD = re.compile("[A-Za-z\u00c0-\u024f]+|[\u3400-\u9fff]+")


def count_words(texts: Iterable[str]) -> Counter[str]:
    """How often each word occurs; jieba finds the words of Chinese."""
    jieba.setLogLevel(logging.WARNING)
    counts: Counter[str] = Counter()
    for text in texts:
        for run in WORD.findall(text):
            counts.update(jieba.cut(run) if HAN.match(run) else [run])
    return counts


def common_characters() -> Iterator[str]:
    """The 3,755 characters of the first level of GB 2312."""
    for row in range(0xB0, 0xD8):
        last = 0xF9 if row == 0xD7 else 0xFE
        for cell in range(0xA1, last + 1):
            yield bytes((row, cell)).decode("gb2312")


def weigh_words(counts: Counter[str], of_examples: Counter[str]) -> Counter[str]:
    """Counts that balance the language at large (wordfreq) with the square root of the counts in our texts.

    Words of our examples, `of_examples`, are those of people's notes, and count once more.
    English weighs more than Chinese: a Chinese word that is no token is still two or three characters, an English one
    breaks into pieces without a meaning. A word of wordfreq that our texts do not have counts a seventh.

    wordfreq knows no capital letters. A word that our texts nearly always capitalize is a name, whose small form
    counts a tenth. The capitalized form of another word counts a tenth as much as the word, and as much if our texts
    use the word often: sentences begin with it, and where it is no token it falls into pieces that mean something
    else. Every character of GB 2312's first level is certain to be a token.
    """
    ours: Counter[str] = Counter()
    for word, n in counts.items():
        ours[word.lower()] += n
    weighed: Counter[str] = Counter(
        {
            word: math.ceil(OURS * math.sqrt(n) + ONCE_MORE * math.sqrt(of_examples[word]))
            for word, n in counts.items()
        }
    )
    for language, most in (("en", 2e7), ("zh", 4e6)):
        for word, frequency in wordfreq.get_frequency_dict(language, wordlist="large").items():
            if not WORD.fullmatch(word):
                continue
            capitalized = word.capitalize()
            weight = int(min(most * frequency * (1.0 if ours[word] >= 2 else 0.15), MOST))
            if language == "zh":
                weighed[word] += weight
            elif counts[capitalized] >= NAMED and counts[capitalized] > NAME * ours[word]:
                weighed[capitalized] += weight
                weighed[word] += weight // 10
            else:
                weighed[word] += weight
                weighed[capitalized] += weighed[word] if ours[word] >= OFTEN else weighed[word] // 10
    weighed.update(dict.fromkeys(common_characters(), CERTAIN))
    return weighed
