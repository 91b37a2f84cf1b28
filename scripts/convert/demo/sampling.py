"""What a step of training sees: pairs, questions, passages, excerpts, and texts that the teacher has embedded."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from corpus import SIDES, Corpus, Tokens, language

from q3e_local.embedding.prompts import TASKS, Prompts

KIND_WEIGHTS = {"translation": 1.0, "title": 1.0, "code": 0.5, "definition": 0.5, "synonym": 0.5}
# Which sides of an example make a pair, and how often.
SIDE_PAIRS = {
    ("q_en", "en"): 3, ("q_zh", "zh"): 3, ("q_en", "zh"): 2, ("q_zh", "en"): 2, ("q_en", "p_en"): 1,
    ("q_zh", "p_zh"): 1, ("p_en", "en"): 1, ("p_zh", "zh"): 1, ("q_en", "q_zh"): 0.5, ("en", "zh"): 0.5,
    ("q_en", "p_zh"): 0.5, ("q_zh", "p_en"): 0.5,
}  # fmt: skip
# What stands before and behind the words that a question takes from a text. A model that has never seen them there
# hears a problem in every "why", and prefers a text full of problems.
FRAMES = {
    "en": (
        ("why is the", "?"), ("why are the", "?"), ("why did", "?"), ("what happens when", "?"), ("what is", "?"),
        ("how does", "?"), ("how do I", "?"), ("when does", "?"), ("who", "?"), ("where is", "?"), ("which", "?"),
    ),
    "zh": (
        ("为什么", "？"), ("为何", "？"), ("怎么", "？"), ("", "怎么办？"), ("", "是什么？"), ("什么时候", "？"),
        ("谁", "？"), ("哪里", "？"), ("哪些", "？"), ("", "了吗？"),
    ),
}  # fmt: skip
N_INSTRUCTIONS = 200  # of our own, beside those of the tasks
# A token that makes up this share of all tokens weighs half as much as a rare one (SIF, Arora et al. 2017).
SMOOTHING = 1e-3


@dataclass(frozen=True)
class Recipe:
    """How many steps, how many texts of each kind in a batch, and how fast it learns."""

    steps: int
    n_pairs: int
    n_questions: int
    n_passages: int
    n_excerpts: int
    n_taught: int
    distillation: float  # its weight beside contrast
    prompted: float  # the share of questions with a prompt
    rates: tuple[float, float]  # of the rows, of their weights


@dataclass
class Batch:
    """Row numbers of the texts of a step: `pairs` of left and right ones, and texts with the teacher's vectors."""

    left: list[np.ndarray]
    right: list[np.ndarray]
    taught: list[np.ndarray]
    targets: torch.Tensor


class Sampler:
    """Batches without end, the same for the same seed."""

    def __init__(self, corpus: Corpus, tokens: Tokens, taught: np.ndarray, vectors: torch.Tensor, seed: int) -> None:
        """`taught` numbers the texts whose teacher's `vectors` are given, row by row."""
        self.tokens, self.taught, self.vectors = tokens, taught, vectors
        self.random = np.random.default_rng(seed)
        self.pairs = [np.array([tokens.numbers(pair) for pair in pairs]) for pairs in corpus.pairs.values()]
        weights = [KIND_WEIGHTS[kind] * len(pairs) ** 0.7 for (kind, _), pairs in corpus.pairs.items()]
        self.share = np.array(weights) / sum(weights)
        self.examples = np.array([tokens.numbers(sides) for sides in corpus.examples])
        self.held_back = np.array([tokens.numbers(sides) for sides in corpus.held_back])
        self.side_pairs = np.array([[SIDES.index(side) for side in pair] for pair in SIDE_PAIRS])
        self.side_share = np.array(list(SIDE_PAIRS.values())) / sum(SIDE_PAIRS.values())
        self.newline = tokens.encode("\n")
        self.frames = {
            name: [tuple(map(tokens.encode, frame)) for frame in frames] for name, frames in FRAMES.items()
        }
        self.rarity = 1 / (SMOOTHING + tokens.shares())
        prompts = Prompts()
        self.prompts = [tokens.encode(prompts.prefix("query", task)) for task in TASKS]
        english = [text for text in corpus.single if language(text) == "en"]
        own = self.random.choice(english, N_INSTRUCTIONS, replace=False)
        self.other_prompts = [tokens.encode(prompts.prefix("query", None, text)) for text in own]

    def prompt(self) -> np.ndarray:
        """The prompt of a task, mostly that of retrieval, now and then one with any sentence as its instruction."""
        chance = self.random.random()
        if chance < 0.5:
            return self.prompts[0]  # retrieval
        chosen = self.prompts if chance < 0.8 else self.other_prompts
        return chosen[self.random.integers(len(chosen))]

    def some_pairs(self, n: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
        left, right = [], []
        for pairs, count in zip(self.pairs, self.random.multinomial(n, self.share), strict=True):
            for pair in pairs[self.random.integers(len(pairs), size=count)]:
                a, b = self.random.permutation(pair)
                left.append(self.tokens.rows_of(a))
                right.append(self.tokens.rows_of(b))
        return left, right

    def some_questions(self, n: int, prompted: float) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """Two sides of each of `n` examples; of the share `prompted` the first has a prompt, now and then both."""
        left, right = [], []
        for row in self.random.choice(len(self.examples), n, replace=False):
            a, b = self.examples[row, self.side_pairs[self.random.choice(len(self.side_pairs), p=self.side_share)]]
            question, answer = self.tokens.rows_of(a), self.tokens.rows_of(b)
            chance = self.random.random()
            if chance < prompted:
                prompt = self.prompt()
                question = np.concatenate([prompt, question])
                if chance < 0.2 * prompted:
                    answer = np.concatenate([prompt, answer])
            left.append(question)
            right.append(answer)
        return left, right

    def passage(self, numbers: Sequence[int]) -> np.ndarray:
        """Texts that stand in one text, a line each."""
        return np.concatenate([part for i in numbers for part in (self.tokens.rows_of(i), self.newline)])

    def some_passages(self, n: int, prompted: float) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """Passages of 3 to 30 notes in one text, most of them of one theme.

        A passage is asked for by the question for one of its notes, or by some words of that note: a long text must
        keep both what a note in it means and the words that tell it from others of its theme.
        """
        left, right = [], []
        for size in self.random.integers(3, 31, size=n):
            start = self.random.integers(len(self.examples) - size)
            notes = self.examples[start : start + size]
            side = self.random.integers(4)  # of notes and paraphrases
            note = notes[self.random.integers(size)]
            if self.random.random() < 0.5:
                question = self.some_words(note[side])
            else:
                question = self.tokens.rows_of(note[SIDES.index("q_en") + self.random.integers(2)])
            left.append(self.asking(question, prompted))
            right.append(self.passage(notes[:, side]))
        return left, right

    def some_excerpts(self, n: int, prompted: float) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """Passages of up to 700 tokens, one side of neighbouring pairs of a source.

        A passage is asked for by some words of one of its texts, or by that text's other side.
        """
        left, right = [], []
        for source in self.random.choice(len(self.pairs), n, p=self.share):
            pairs, side = self.pairs[source], self.random.integers(2)
            start = self.random.integers(len(pairs))
            lengths = np.cumsum(self.tokens.length[pairs[start : start + 60, side]])
            size = max(1, int(np.searchsorted(lengths, self.random.integers(60, 700))))
            asked = pairs[start + self.random.integers(size)]
            is_words = self.random.random() < 0.6
            question = self.some_words(asked[side]) if is_words else self.tokens.rows_of(asked[1 - side])
            left.append(self.asking(question, prompted))
            right.append(self.passage(pairs[start : start + size, side]))
        return left, right

    def some_words(self, i: int) -> np.ndarray:
        """3 to 12 tokens of the text with this number, rare ones rather than frequent ones, half as a question."""
        words = self.tokens.rows_of(i)
        n = min(len(words), int(self.random.integers(3, 13)))
        rarity = self.rarity[words] / self.rarity[words].sum()
        chosen = words[np.sort(self.random.choice(len(words), n, replace=False, p=rarity))]
        if self.random.random() < 0.5:
            return chosen
        frames = self.frames[language(self.tokens.texts[i])]
        before, behind = frames[self.random.integers(len(frames))]
        return np.concatenate([before, chosen, behind])

    def asking(self, question: np.ndarray, prompted: float) -> np.ndarray:
        """The question, with the chance `prompted` behind a prompt."""
        return np.concatenate([self.prompt(), question]) if self.random.random() < prompted else question

    def batch(self, recipe: Recipe) -> Batch:
        parts = [
            self.some_pairs(recipe.n_pairs),
            self.some_questions(recipe.n_questions, recipe.prompted),
            self.some_passages(recipe.n_passages, recipe.prompted),
            self.some_excerpts(recipe.n_excerpts, recipe.prompted),
        ]
        chosen = self.random.integers(len(self.taught), size=recipe.n_taught)
        return Batch(
            [text for left, _ in parts for text in left],
            [text for _, right in parts for text in right],
            [self.tokens.rows_of(i) for i in self.taught[chosen]],
            self.vectors[chosen],
        )
