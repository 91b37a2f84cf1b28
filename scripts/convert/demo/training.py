"""How the student learns, in two stages: a bag of token vectors, and from it the transformer.

Both stages minimize the same sum:

- Contrast (InfoNCE): each side of a pair must be nearer to its other side than to those of the batch's other pairs.
  Pairs are translations, definitions, titles with their paragraphs, synonyms, and questions with notes that answer
  them.
- Distillation: among texts of a batch, the student's similarities must be distributed as the teacher's
  (Kullback-Leibler divergence of softmaxes, each text's similarity to itself left out).

Each is computed for the whole vectors and for their first 64 numbers, so that vectors can be cut (Matryoshka).
"""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from corpus import SIDES, Corpus, Tokens, language
from shape import N_EMBD
from student import Bag, Student
from torch import nn
from torch.nn import functional

from q3e_local.embedding.prompts import TASKS, Prompts

TEMPERATURE = 0.05
DIMS = ((N_EMBD, 1.0), (64, 0.4))
KIND_WEIGHTS = {"translation": 1.0, "title": 1.0, "definition": 0.5, "synonym": 0.5}
# Which sides of an example make a pair, and how often.
SIDE_PAIRS = {
    ("q_en", "en"): 3, ("q_zh", "zh"): 3, ("q_en", "zh"): 2, ("q_zh", "en"): 2, ("q_en", "p_en"): 1,
    ("q_zh", "p_zh"): 1, ("p_en", "en"): 1, ("p_zh", "zh"): 1, ("q_en", "q_zh"): 0.5, ("en", "zh"): 0.5,
    ("q_en", "p_zh"): 0.5, ("q_zh", "p_en"): 0.5,
}  # fmt: skip
BATCH_TOKENS = 4096
EVERY = 100
N_INSTRUCTIONS = 200  # of our own, beside those of the tasks
DROPPED = 0.15  # of the tokens of a text of more than 5


@dataclass
class Batch:
    """Row numbers of the texts of a step: `pairs` of left and right ones, and texts with the teacher's vectors."""

    left: list[np.ndarray]
    right: list[np.ndarray]
    taught: list[np.ndarray]
    targets: torch.Tensor


def targets(texts: Sequence[str], vectors: np.ndarray) -> torch.Tensor:
    """The teacher's vectors, norm 1 (n_texts, 256): what is common to a language taken off, the largest principal
    components, each shrunk by the fourth root of its standard deviation.

    The teacher's similarities depend on the language more than on the meaning; without a language's mean they do not.
    """
    centred = vectors.astype(np.float32)
    languages = np.array([language(text) for text in texts])
    for name in ("en", "zh"):
        centred[languages == name] -= centred[languages == name].mean(axis=0)
    variances, directions = np.linalg.eigh(np.cov(centred.T))
    largest = np.argsort(variances)[::-1][:N_EMBD]
    kept = centred @ directions[:, largest] / variances[largest] ** 0.125
    return functional.normalize(torch.from_numpy(kept.astype(np.float32)), dim=1)


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
        """Questions for one of 3 to 20 notes that stand in one text; most of the notes have one theme."""
        left, right = [], []
        for size in self.random.integers(3, 21, size=n):
            start = self.random.integers(len(self.examples) - size)
            notes = self.examples[start : start + size]
            side = self.random.integers(4)  # of notes and paraphrases
            asked = notes[self.random.integers(size), SIDES.index("q_en") + self.random.integers(2)]
            left.append(self.asking(self.tokens.rows_of(asked), prompted))
            right.append(self.passage(notes[:, side]))
        return left, right

    def some_excerpts(self, n: int, prompted: float) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """Passages of up to 700 tokens, one side of neighbouring pairs of a source.

        A passage is asked for by some of the tokens of one of its texts, or by that text's other side. So a long text
        keeps the words that tell it from others.
        """
        left, right = [], []
        for source in self.random.choice(len(self.pairs), n, p=self.share):
            pairs, side = self.pairs[source], self.random.integers(2)
            start = self.random.integers(len(pairs))
            lengths = np.cumsum(self.tokens.length[pairs[start : start + 60, side]])
            size = max(1, int(np.searchsorted(lengths, self.random.integers(60, 700))))
            asked = pairs[start + self.random.integers(size)]
            if self.random.random() < 0.6:
                words = self.tokens.rows_of(asked[side])
                kept = self.random.random(len(words)) < self.random.uniform(0.3, 0.7)
                question = words[kept] if kept.any() else words
            else:
                question = self.tokens.rows_of(asked[1 - side])
            left.append(self.asking(question, prompted))
            right.append(self.passage(pairs[start : start + size, side]))
        return left, right

    def asking(self, question: np.ndarray, prompted: float) -> np.ndarray:
        """The question, with the chance `prompted` behind a prompt."""
        return np.concatenate([self.prompt(), question]) if self.random.random() < prompted else question

    def batch(self, stage: "Stage") -> Batch:
        parts = [
            self.some_pairs(stage.n_pairs),
            self.some_questions(stage.n_questions, stage.prompted),
            self.some_passages(stage.n_passages, stage.prompted),
            self.some_excerpts(stage.n_excerpts, stage.prompted),
        ]
        chosen = self.random.integers(len(self.taught), size=stage.n_taught)
        return Batch(
            [text for left, _ in parts for text in left],
            [text for _, right in parts for text in right],
            [self.tokens.rows_of(i) for i in self.taught[chosen]],
            self.vectors[chosen],
        )


def contrast(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """InfoNCE in both directions, at each of DIMS."""
    loss = torch.zeros(())
    own = torch.arange(len(left))
    for dim, weight in DIMS:
        scores = (
            functional.normalize(left[:, :dim], dim=1) @ functional.normalize(right[:, :dim], dim=1).T / TEMPERATURE
        )
        loss = loss + weight * (functional.cross_entropy(scores, own) + functional.cross_entropy(scores.T, own)) / 2
    return loss


def distil(vectors: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """How far the student's similarities are from the teacher's, at each of DIMS."""

    def distribution(rows: torch.Tensor) -> torch.Tensor:
        return functional.log_softmax((rows @ rows.T).fill_diagonal_(-1e4) / TEMPERATURE, dim=1)

    theirs = distribution(wanted)
    loss = torch.zeros(())
    for dim, weight in DIMS:
        ours = distribution(functional.normalize(vectors[:, :dim], dim=1))
        loss = loss + weight * functional.kl_div(ours, theirs, log_target=True, reduction="batchmean")
    return loss


Encode = Callable[[Sequence[np.ndarray]], torch.Tensor]
"""Row numbers of texts to vectors (n_texts, N_EMBD)."""


def thinned(texts: Sequence[np.ndarray], random: np.random.Generator) -> list[np.ndarray]:
    """Most texts without some of their tokens, so that an example is never the same twice."""
    return [
        text if len(text) <= 5 or random.random() < 0.3 else text[random.random(len(text)) > DROPPED]
        for text in texts
    ]


def bag_encoder(bag: Bag, random: np.random.Generator) -> Encode:
    def encode(texts: Sequence[np.ndarray]) -> torch.Tensor:
        texts = thinned(texts, random) if bag.training else texts
        starts = np.cumsum([0, *map(len, texts[:-1])])
        return bag(torch.from_numpy(np.concatenate(texts)), torch.from_numpy(starts))

    return encode


def batches(lengths: np.ndarray, order: np.ndarray) -> Iterator[np.ndarray]:
    """Parts of `order`, which goes from the shortest to the longest, of at most BATCH_TOKENS with the filling."""
    start = 0
    for end in range(1, len(order) + 1):
        if end == len(order) or (end + 1 - start) * lengths[order[end]] > BATCH_TOKENS:
            yield order[start:end]
            start = end


def transformer_encoder(student: Student, random: np.random.Generator) -> Encode:
    """Texts of about a length are computed together."""
    end = len(student.token_embd) - 1

    def encode(texts: Sequence[np.ndarray]) -> torch.Tensor:
        texts = thinned(texts, random) if student.training else texts
        lengths = np.array([len(text) + 1 for text in texts])
        order = np.argsort(lengths, kind="stable")
        vectors = []
        for part in batches(lengths, order):
            ids = np.full((len(part), lengths[part].max()), end)
            for row, i in zip(ids, part, strict=True):
                row[: len(texts[i])] = texts[i]
            with torch.autocast("cpu", torch.bfloat16):
                vectors.append(student(torch.from_numpy(ids), torch.from_numpy(lengths[part])).float())
        return torch.cat(vectors)[torch.from_numpy(np.argsort(order))]

    return encode


@dataclass(frozen=True)
class Stage:
    """A stage of training: how many steps, how many texts of each kind in a batch, and how fast it learns."""

    name: str
    steps: int
    n_pairs: int
    n_questions: int
    n_passages: int
    n_excerpts: int
    n_taught: int
    distillation: float  # its weight beside contrast
    prompted: float  # the share of questions with a prompt
    rates: tuple[float, float]  # of the token table, of all else


Row = dict[str, float]
"""Step, seconds, the mean losses since the row before, and what the questions held back find."""


def train(
    stage: Stage,
    model: nn.Module,
    groups: tuple[list[nn.Parameter], list[nn.Parameter]],
    encode: Encode,
    sampler: Sampler,
    say: Callable[[Row], None],
) -> list[Row]:
    """Run a stage: Adam, a warm-up of 100 steps, then half a cosine. A row every EVERY steps."""
    optimizer = torch.optim.Adam(
        [{"params": group, "lr": rate} for group, rate in zip(groups, stage.rates, strict=True)], betas=(0.9, 0.98)
    )
    began = time.monotonic()
    means = np.zeros(2)
    rows: list[Row] = []
    for step in range(1, stage.steps + 1):
        speed = min(1.0, step / 100) * (0.03 + 0.97 * 0.5 * (1 + math.cos(math.pi * step / stage.steps)))
        for group, rate in zip(optimizer.param_groups, stage.rates, strict=True):
            group["lr"] = rate * speed
        batch = sampler.batch(stage)
        n = len(batch.left)
        vectors = encode([*batch.left, *batch.right, *batch.taught])
        contrasted = contrast(vectors[:n], vectors[n : 2 * n])
        distilled = distil(vectors[2 * n :], batch.targets)
        optimizer.zero_grad()
        (contrasted + stage.distillation * distilled).backward()
        nn.utils.clip_grad_norm_(groups[1], 1.0)  # the table's gradient is sparse and needs none
        optimizer.step()
        means += [contrasted.item(), distilled.item()]
        if step % EVERY == 0:
            row = {"step": step, "contrast": means[0] / EVERY, "distillation": means[1] / EVERY}
            row |= {"seconds": time.monotonic() - began, **found(model, encode, sampler)}
            rows.append(row)
            say(row)
            means[:] = 0
    return rows


@torch.no_grad()
def found(model: nn.Module, encode: Encode, sampler: Sampler) -> dict[str, float]:
    """How often a question of an example that was held back finds its note among all of them."""
    model.eval()
    vectors = [
        functional.normalize(encode([sampler.tokens.rows_of(i) for i in column]), dim=1)
        for column in sampler.held_back.T
    ]
    model.train()

    def share(question: str, note: str) -> float:
        scores = vectors[SIDES.index(question)] @ vectors[SIDES.index(note)].T
        return (scores.argmax(dim=1) == torch.arange(len(scores))).float().mean().item()

    return {f"{question} {note}": share(question, note) for question in ("q_en", "q_zh") for note in ("en", "zh")}
