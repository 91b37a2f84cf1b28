"""How the bag learns. Training minimizes a sum:

- Contrast (InfoNCE): each side of a pair must be nearer to its other side than to those of the batch's other pairs.
  Pairs are translations, definitions, titles with their paragraphs, synonyms, and questions with notes that answer
  them.
- Distillation: among texts of a batch, the bag's similarities must be distributed as the teacher's
  (Kullback-Leibler divergence of softmaxes, each text's similarity to itself left out).

Each is computed for the whole vectors and for their first 64 numbers, so that vectors can be cut (Matryoshka).
"""

import math
import time
from collections.abc import Callable, Sequence

import numpy as np
import torch
from bag import Bag, Encode
from corpus import SIDES, language
from sampling import Recipe, Sampler
from shape import N_EMBD
from torch import nn
from torch.nn import functional

TEMPERATURE = 0.08  # lets all pairs of a batch teach: at 0.05 only the nearest ones do
DIMS = ((N_EMBD, 1.0), (64, 1.5))  # what 64 numbers keep, the whole vectors have too
EVERY = 100


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
    """How far the bag's similarities are from the teacher's, at each of DIMS."""

    def distribution(rows: torch.Tensor) -> torch.Tensor:
        return functional.log_softmax((rows @ rows.T).fill_diagonal_(-1e4) / TEMPERATURE, dim=1)

    theirs = distribution(wanted)
    loss = torch.zeros(())
    for dim, weight in DIMS:
        ours = distribution(functional.normalize(vectors[:, :dim], dim=1))
        loss = loss + weight * functional.kl_div(ours, theirs, log_target=True, reduction="batchmean")
    return loss


Row = dict[str, float]
"""Step, seconds, the mean losses since the row before, and what the questions held back find."""


def train(recipe: Recipe, bag: Bag, encode: Encode, sampler: Sampler, say: Callable[[Row], None]) -> list[Row]:
    """Run a recipe: Adam, a warm-up of 100 steps, then half a cosine. A row every EVERY steps."""
    groups = [{"params": [bag.rows]}, {"params": [bag.log_weights]}]
    optimizer = torch.optim.Adam(groups, betas=(0.9, 0.98))
    began = time.monotonic()
    means = np.zeros(2)
    rows: list[Row] = []
    for step in range(1, recipe.steps + 1):
        speed = min(1.0, step / 100) * (0.03 + 0.97 * 0.5 * (1 + math.cos(math.pi * step / recipe.steps)))
        for group, rate in zip(optimizer.param_groups, recipe.rates, strict=True):
            group["lr"] = rate * speed
        batch = sampler.batch(recipe)
        n = len(batch.left)
        vectors = encode([*batch.left, *batch.right, *batch.taught])
        contrasted = contrast(vectors[:n], vectors[n : 2 * n])
        distilled = distil(vectors[2 * n :], batch.targets)
        optimizer.zero_grad()
        (contrasted + recipe.distillation * distilled).backward()
        nn.utils.clip_grad_norm_([bag.log_weights], 1.0)
        optimizer.step()
        means += [contrasted.item(), distilled.item()]
        if step % EVERY == 0:
            row = {"step": step, "contrast": means[0] / EVERY, "distillation": means[1] / EVERY}
            row |= {"seconds": time.monotonic() - began, **found(bag, encode, sampler)}
            rows.append(row)
            say(row)
            means[:] = 0
    return rows


@torch.no_grad()
def found(bag: Bag, encode: Encode, sampler: Sampler) -> dict[str, float]:
    """How often a question of an example that was held back finds its note among all of them."""
    bag.eval()
    vectors = [
        functional.normalize(encode([sampler.tokens.rows_of(i) for i in column]), dim=1)
        for column in sampler.held_back.T
    ]
    bag.train()

    def share(question: str, note: str) -> float:
        scores = vectors[SIDES.index(question)] @ vectors[SIDES.index(note)].T
        return (scores.argmax(dim=1) == torch.arange(len(scores))).float().mean().item()

    return {f"{question} {note}": share(question, note) for question in ("q_en", "q_zh") for note in ("en", "zh")}
