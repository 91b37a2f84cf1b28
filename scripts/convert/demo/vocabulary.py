"""The model's vocabulary: byte-level BPE whose tokens are characters, words and parts of words, never a space.

A space is a token of its own, so that a word is the same token anywhere in a text. Chinese characters come first,
each made of its bytes; all other merges are learned on words, so that none joins parts of two characters.
"""

import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers

HAN = re.compile("[\u3400-\u9fff]")
PUNCTUATION = "，。、；：？！“”‘’（）《》【】「」—…·％￥～–•€£°×"
N_CHARACTERS = 4300
# The pre-tokenizer that llama.cpp calls qwen2: llama_vocab::impl in its src/llama-vocab.cpp.
PIECES = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
PLURALS = [("ies", "y"), ("s", ""), ("es", "")]
NO_PLURALS = {
    "news", "glasses", "goods", "customs", "arms", "species", "lens", "always", "perhaps", "besides", "minus",
    "alas", "mars", "odds", "adams", "williams", "manners", "regards", "jeans", "pants", "economics", "pros",
    "cons", "proceeds", "shorts", "contents", "yours", "ours", "hers", "theirs", "physics", "mathematics",
    "towards", "afterwards", "means", "series", "wales", "james", "thomas", "texas", "hours", "minutes", "times",
    "terms", "papers", "savings", "clothes",
}  # fmt: skip


def byte_alphabet() -> dict[int, str]:
    """The printable character that stands for each byte in a byte-level vocabulary, in GPT-2's order."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    return {byte: chr(byte) for byte in printable} | {byte: chr(256 + i) for i, byte in enumerate(others)}


ALPHABET = byte_alphabet()
BYTES = {character: byte for byte, character in ALPHABET.items()}


def spell(text: str) -> str:
    """The text in the letters of a byte-level vocabulary."""
    return "".join(ALPHABET[byte] for byte in text.encode())


def text_of(token: str) -> str | None:
    """The text that a token stands for, or None where the token is only a part of a character."""
    try:
        return bytes(BYTES[character] for character in token).decode()
    except UnicodeDecodeError:
        return None


class Vocabulary(NamedTuple):
    tokens: list[str]
    merges: list[tuple[str, str]]

    def save(self, path: Path) -> None:
        path.write_text(json.dumps(self._asdict()), encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> "Vocabulary":
        read = json.loads(path.read_text(encoding="utf-8"))
        return cls(read["tokens"], [(left, right) for left, right in read["merges"]])

    def tokenizer(self) -> Tokenizer:
        """A tokenizer that cuts texts as llama.cpp does."""
        tokenizer = Tokenizer(models.BPE({token: i for i, token in enumerate(self.tokens)}, self.merges))
        tokenizer.normalizer = normalizers.NFC()
        split = pre_tokenizers.Split(Regex(PIECES), "isolated")
        byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, byte_level])
        return tokenizer

    def groups(self) -> tuple[np.ndarray, list[str]]:
        """The number of the row that each token shares with its other forms (n_tokens,), and a text for each row.

        Forms are "Invoice", "invoices" and "invoice". A part of a character has a row of its own, without a text.
        """
        texts = [text_of(token) for token in self.tokens]
        known = {text.lower() for text in texts if text}
        rows: dict[str, int] = {}
        shared = []
        for token, text in zip(self.tokens, texts, strict=True):
            key = f"bytes {token}" if text is None else singular(text.lower(), known)
            shared.append(rows.setdefault(key, len(rows)))
        return np.array(shared), ["" if key.startswith("bytes ") else key for key in rows]


def singular(word: str, known: set[str]) -> str:
    """The word without the -s of a plural or of a third person, where the rest is a known word."""
    if not re.fullmatch("[a-z]{3,}s", word) or word in NO_PLURALS or word.endswith(("ss", "us", "is")):
        return word
    bases = [word.removesuffix(ending) + other for ending, other in PLURALS if word.endswith(ending)]
    return next((base for base in bases if len(base) > 2 and base in known), word)


def learn(weighed: Counter[str], size: int) -> Vocabulary:
    """A vocabulary of at most `size` tokens."""
    frequent: Counter[str] = Counter()
    for word, n in weighed.items():
        for character in word:
            if not character.isascii():
                frequent[character] += n
    characters = sorted({*(c for c, _ in frequent.most_common(N_CHARACTERS)), *PUNCTUATION})
    tokens = dict.fromkeys(ALPHABET.values())
    merges: dict[tuple[str, str], None] = {}
    for character in characters:
        spelled = spell(character)
        for end in range(1, len(spelled)):
            merges.setdefault((spelled[:end], spelled[end]))
            tokens.setdefault(spelled[: end + 1])
    alphabet = {*characters, *map(chr, range(33, 127))}
    for left, right in learn_merges(weighed, alphabet, size - len(tokens)):
        merges.setdefault((spell(left), spell(right)))
        tokens.setdefault(spell(left + right))
    return Vocabulary(list(tokens), list(merges))


def learn_merges(weighed: Counter[str], alphabet: set[str], n: int) -> list[tuple[str, str]]:
    """The first `n` merges of characters that shorten the words most."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    trainer = trainers.BpeTrainer(
        vocab_size=n + len(alphabet),
        initial_alphabet=sorted(alphabet),
        limit_alphabet=len(alphabet),
        show_progress=False,
    )

    def lines() -> Iterator[str]:
        for word, count in weighed.items():
            if alphabet.issuperset(word):
                for done in range(0, count, 200):
                    yield " ".join([word] * min(200, count - done))

    tokenizer.train_from_iterator(lines(), trainer)
    found = json.loads(tokenizer.to_str())["model"]["merges"]
    return [(left, right) for left, right in found][:n]
