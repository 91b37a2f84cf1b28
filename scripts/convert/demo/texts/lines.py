"""What a reader gives: pairs of texts that mean the same or explain each other, and texts on their own."""

from dataclasses import dataclass
from typing import Literal

Language = Literal["en", "zh"]
Kind = Literal["translation", "definition", "title", "synonym", "code"]


@dataclass(frozen=True)
class Pair:
    kind: Kind
    la: Language
    a: str
    lb: Language
    b: str


@dataclass(frozen=True)
class Sentence:
    language: Language
    text: str


Line = Pair | Sentence


def translation(english: str, chinese: str) -> Pair:
    return Pair("translation", "en", english, "zh", chinese)
