"""Readers of dictionaries: CC-CEDICT and WordNet."""

import gzip
import re
from collections import defaultdict
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

from lines import Line, Pair, Sentence

ENTRY = re.compile(r"(\S+) (\S+) \[([^\]]*)\] /(.*)/")
# What tells of a word instead of saying what it means.
ABOUT_WORDS = re.compile(
    r"\b(?:variants?|surname|abbr|abbreviation|used (?:in|before|after|for|to form)|erhua|also written|"
    r"also pr|old form|same as|equivalent (?:to|of)|Kangxi|interjection|"
    r"transliteration|Taiwan pr|classifier|place name|prefecture|dynasty|brand of|bound form)\b"
    r"|^see\b|\bparticle\)|\d{3}|CL:"
)
LABELS = re.compile(r"\([^()]*\b(?:Tw|vulgar|coarse|derog|profane|taboo|archaic|old|dialect|Cantonese|onom)\b")
REFERENCES = re.compile(r"[\u3400-\u9fff|]*[\u3400-\u9fff]+\[[^\]]*\]|\[[^\]]*\]|\([^()]*\)")
N_SENSES = 3
MOST_SYNONYMS = 4  # more words of one meaning: it is too broad

OFFENSIVE = re.compile(r"\b(?:slurs?|obscene|offensive|derogatory|vulgar|disparaging)\b", re.I)
GENUS = re.compile(r"\b(?:genus|genera|family [A-Z]|order [A-Z])")
INSTANCE = " @i "


def senses(definitions: str) -> list[str]:
    """The first meanings of a CC-CEDICT entry, without notes and references to other words."""
    kept = []
    for sense in definitions.split("/"):
        text = re.sub(r"\s+(?=[;,.])|^(?:lit|fig)\. ", "", REFERENCES.sub("", sense).strip(" ;,"))
        if text and not ABOUT_WORDS.search(text) and not LABELS.search(sense):
            kept.append(text)
    return kept[:N_SENSES]


def by_frequency(path: Path) -> dict[str, int]:
    """Words with their rank, the most frequent first.

    The files of wordfreq are msgpack: words in this order, with bytes between that are no part of UTF-8.
    """
    text = gzip.decompress(path.read_bytes()).decode(errors="replace")
    words = re.findall(r"[a-z']+|[\u4e00-\u9fff]+", text)
    return {word: rank for rank, word in enumerate(dict.fromkeys(words))}


def rank_of(words: str, ranks: dict[str, int]) -> int:
    """The rank of the rarest of the words; a word that is not known is rarer than all."""
    return max((ranks.get(word, len(ranks)) for word in re.split(r"[ -]", words.lower())), default=0)


def cedict(tree: Path, beside: Path, files: str, frequencies: str, most: int) -> Iterator[Pair]:
    """Frequent Chinese words with their English meanings, and those of the same meaning.

    Names, whose pinyin is capitalized, are left out.
    """
    (path,), (ranked,) = tree.glob(files), beside.glob(frequencies)
    ranks = by_frequency(ranked)
    same: defaultdict[str, list[str]] = defaultdict(list)
    for line in gzip.decompress(path.read_bytes()).decode().splitlines():
        entry = ENTRY.match(line)
        if entry and ranks.get(entry[2], most) < most and entry[3] == entry[3].lower():
            meaning = "; ".join(senses(entry[4]))
            if meaning:
                yield Pair("definition", "zh", entry[2], "en", meaning)
                same[meaning] += [entry[2]] if len(entry[2]) > 1 else []
    for meaning, words in same.items():
        if " " in meaning and len(words) <= MOST_SYNONYMS:
            yield from (Pair("synonym", "zh", one, "zh", other) for one, other in pairwise(words))


def synset_words(fields: list[str]) -> list[str]:
    """The words of a line of WordNet; its fourth field is their number, in base 16. Names are left out."""
    words = fields[4 : 4 + 2 * int(fields[3], 16) : 2]
    return [re.sub(r"\([a-z]+\)$", "", word).replace("_", " ") for word in words if word == word.lower()]


def synset(words: list[str], gloss: str) -> Iterator[Line]:
    """What a line of WordNet says. Its gloss is a definition, and then examples in quotes."""
    if words:
        yield Pair("definition", "en", words[0], "en", gloss.partition('"')[0].rstrip(" ;:,-"))
    for one, other in pairwise(words):
        yield Pair("synonym", "en", one, "en", other)
    for example in re.findall(r'"([^"]+)"', gloss):
        yield Sentence("en", example)


def wordnet(tree: Path, beside: Path, files: str, frequencies: str, most: int) -> Iterator[Line]:
    """Frequent words with their definitions, words that mean the same, and the sentences that show their use."""
    (ranked,) = beside.glob(frequencies)
    ranks = by_frequency(ranked)
    for path in sorted(tree.glob(files)):
        for line in path.read_text(encoding="utf-8").splitlines():
            data, bar, gloss = line.partition(" | ")
            if bar and INSTANCE not in data and not OFFENSIVE.search(gloss) and not GENUS.search(gloss):
                words = [word for word in synset_words(data.split(" ")) if rank_of(word, ranks) < most]
                yield from synset(words, gloss.replace("`", "'"))
