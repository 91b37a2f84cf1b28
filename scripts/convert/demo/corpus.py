"""What the model learns from: pairs of texts, examples of questions, and all their texts for the teacher."""

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from vocabulary import HAN, Vocabulary

HERE = Path(__file__).parent
JUDGED = HERE.parents[1] / "bench" / "understanding"
SIDES = ("en", "zh", "p_en", "p_zh", "q_en", "q_zh")
"""An example has a note, its paraphrase and a question for it, in both languages."""
HELD_BACK = 20  # every 20th example is not learned from: the losses are printed beside what its question finds
MOST_TOKENS = 96
# An example is left out where the teacher sees a side of it so near to a text that the model is judged by. Between
# 0.92 and 0.93 are texts with the same theme that say something else.
NEAREST = 0.93
GRAM = {"en": 8, "zh": 4}  # characters
PHRASE = {"en": 24, "zh": 10}  # grams
SHARED = 0.5


Known = dict[str, np.ndarray]
"""The teacher's vector (384,) of each text that it has embedded."""


def language(text: str) -> str:
    return "zh" if HAN.search(text) else "en"


def lines(path: Path) -> Iterator[dict[str, str]]:
    """The objects of a JSON Lines file."""
    with path.open(encoding="utf-8") as file:
        for line in file:
            yield json.loads(line)


def judged_texts() -> list[str]:
    """The texts that the model is judged by, of both splits."""
    found = (line for name in ("questions.jsonl", "pairs.jsonl") for line in lines(JUDGED / name))
    return [line[key] for line in found for key in ("text", "same", "across", "a", "b") if key in line]


def grams(text: str) -> set[str]:
    """All runs of GRAM characters, in lower case, without blanks and marks."""
    letters = "".join(filter(str.isalnum, text.lower()))
    size = GRAM[language(text)]
    return {letters[i : i + size] for i in range(max(1, len(letters) - size + 1))}


class Repetition:
    """Whether a text repeats one that the model is judged by.

    It does if it has half of that one's grams, or half of its own from there and more of them than a phrase has.
    """

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.places: dict[str, list[int]] = defaultdict(list)
        for i, text in enumerate(judged_texts()):
            own = grams(text)
            self.sizes.append(len(own))
            for gram in own:
                self.places[gram].append(i)

    def __contains__(self, text: str) -> bool:
        own = grams(text)
        shared = Counter(i for gram in own for i in self.places.get(gram, ()))
        is_phrase = len(own) < PHRASE[language(text)]
        return any(
            n >= SHARED * (self.sizes[i] if is_phrase else min(len(own), self.sizes[i])) for i, n in shared.items()
        )


class Corpus:
    """The texts as they were gathered and written, without those that repeat a text that the model is judged by.

    `pairs` has the two texts of each pair by its kind and source; `examples` and `held_back` the six sides of each
    example, in the order of the files; `single` texts without a partner.
    """

    def __init__(self, work: Path) -> None:
        repetition = Repetition()
        self.pairs: dict[tuple[str, str], list[tuple[str, str]]] = defaultdict(list)
        for line in lines(work / "pairs.jsonl"):
            if line["a"] not in repetition and line["b"] not in repetition:
                self.pairs[line["kind"], line["source"]].append((line["a"], line["b"]))
        files = sorted((HERE / "questions").glob("*.jsonl"))
        written = [[line[side] for side in SIDES] for path in files for line in lines(path)]
        every = [sides for sides in written if not any(side in repetition for side in sides)]
        self.examples = [sides for i, sides in enumerate(every) if i % HELD_BACK]
        self.held_back = every[::HELD_BACK]
        self.single = [line["text"] for line in lines(work / "sentences.jsonl") if line["text"] not in repetition]

    def leave_out_near(self, known: Known, judged: np.ndarray) -> list[str]:
        """Take out the examples of which a side comes too near to a text that the model is judged by.

        `known` has the teacher's vectors of all sides, `judged` those of `judged_texts`, rows of norm 1. Returns a
        line for each example: how near, the side, and the text. Nothing may be made of the corpus before: neither the
        vocabulary nor what is taught may have seen these examples.
        """
        kept, left_out = [], []
        for sides in self.examples:
            scores = np.stack([known[side] for side in sides]).astype(np.float32) @ judged.astype(np.float32).T
            side, text = np.unravel_index(scores.argmax(), scores.shape)
            if scores.max() > NEAREST:
                left_out.append(f"{scores.max():.3f}\t{sides[side]}\t{judged_texts()[text]}")
            else:
                kept.append(sides)
        self.examples = kept
        return left_out

    def learned(self) -> dict[str, None]:
        """Every text that is learned from, once."""
        found: dict[str, None] = dict.fromkeys(self.single)
        for pairs in self.pairs.values():
            found.update(dict.fromkeys(text for pair in pairs for text in pair))
        found.update(dict.fromkeys(side for sides in self.examples for side in sides))
        return found

    def texts(self) -> list[str]:
        """Every text once, those that are held back too."""
        return list(self.learned() | dict.fromkeys(side for sides in self.held_back for side in sides))


class Tokens:
    """Texts as row numbers of the token table, one after another."""

    def __init__(self, texts: Iterable[str], vocabulary: Vocabulary) -> None:
        self.texts = list(texts)
        self.number = {text: i for i, text in enumerate(self.texts)}
        self.tokenizer = vocabulary.tokenizer()
        self.rows, self.row_texts = vocabulary.groups()
        encoded = [self.encode(text) for text in self.texts]
        self.length = np.array([len(ids) for ids in encoded])
        self.start = np.concatenate([[0], np.cumsum(self.length)])
        self.flat = np.concatenate(encoded)

    def encode(self, text: str) -> np.ndarray:
        """The row numbers of a text's first MOST_TOKENS tokens."""
        return self.rows[self.tokenizer.encode(text).ids[:MOST_TOKENS]]

    def rows_of(self, i: int) -> np.ndarray:
        """The row numbers of a text by its number."""
        return self.flat[self.start[i] : self.start[i + 1]]

    def shares(self) -> np.ndarray:
        """The share of each row among all tokens (n_rows,)."""
        return np.bincount(self.flat, minlength=len(self.row_texts)) / len(self.flat)

    def numbers(self, texts: Iterable[str]) -> np.ndarray:
        return np.array([self.number[text] for text in texts])
