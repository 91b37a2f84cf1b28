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

import numpy as np
import torch
from corpus import SIDES, language
from sampling import Sampler, Stage
from shape import N_EMBD
from student import Bag, Student
from torch import nn
from torch.nn import functional

TEMPERATURE = 0.05
DIMS = ((N_EMBD, 1.0), (64, 0.4))
BATCH_TOKENS = 4096
EVERY = 100
DROPPED = 0.15  # of the tokens of a text of more than 5


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
