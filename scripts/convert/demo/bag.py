"""The bag: a vector for each row of the vocabulary, of which those of a text's tokens are summed."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from corpus import Tokens
from sampling import SMOOTHING
from shape import N_MEANING
from torch import nn
from torch.nn import functional

DROPPED = 0.15  # of the tokens of a text of more than 5
# A token that makes up this share of all tokens weighs half as much as training found: questions that the model was
# not taught have frequent words of other kinds than those that it was.
DISCOUNTED = 4e-3

Encode = Callable[[Sequence[np.ndarray]], torch.Tensor]
"""Row numbers of texts to vectors (n_texts, N_MEANING)."""


class Bag(nn.Module):
    """The weighted sum of the rows of a text's tokens."""

    def __init__(self, rows: torch.Tensor, weights: torch.Tensor) -> None:
        super().__init__()
        self.rows, self.log_weights = nn.Parameter(rows.clone()), nn.Parameter(weights.log())

    def weighed(self) -> torch.Tensor:
        return self.rows * self.log_weights.exp()[:, None]

    def forward(self, ids: torch.Tensor, starts: torch.Tensor) -> torch.Tensor:
        return functional.embedding_bag(ids, self.weighed(), starts, mode="sum")


def first_bag(tokens: Tokens, vectors: np.ndarray) -> Bag:
    """The teacher's vectors of the words, centred for each script, turned to their principal components."""
    words = np.array([bool(text.strip()) and text.isalpha() for text in tokens.row_texts])
    chinese = np.array([not text.isascii() for text in tokens.row_texts])
    rows = vectors.astype(np.float32)
    for part in (words & chinese, words & ~chinese, ~words):
        rows[part] -= rows[part].mean(axis=0)
    left, sizes, _ = np.linalg.svd(rows, full_matrices=False)
    rows = left[:, :N_MEANING] * sizes[:N_MEANING]
    rows /= 16 * np.sqrt((rows**2).mean())  # of norm 1 on average
    weights = SMOOTHING / (SMOOTHING + tokens.shares())
    weights[~words] *= 0.1
    # Blanks and marks say nothing, but hundreds of them in a long text would outweigh a word. Log 0 stays log 0.
    weights[[bool(text) and not any(map(str.isalnum, text)) for text in tokens.row_texts]] = 0
    return Bag(torch.from_numpy(rows), torch.from_numpy(weights.astype(np.float32)))


def averaged(bags: Sequence[Bag]) -> Bag:
    """The bag whose weighted rows are the mean of those of bags that began alike.

    What each learned by chance shrinks (Wortsman et al., Model soups, 2022).
    """
    rows = torch.stack([bag.weighed().detach() for bag in bags]).mean(dim=0)
    return Bag(rows, torch.ones(len(rows)))


def discount(bag: Bag, tokens: Tokens) -> None:
    """Make frequent tokens weigh less than training found."""
    factors = DISCOUNTED / (DISCOUNTED + tokens.shares())
    bag.log_weights.data += torch.from_numpy(np.log(factors).astype(np.float32))


def thinned(texts: Sequence[np.ndarray], random: np.random.Generator) -> list[np.ndarray]:
    """Most texts without some of their tokens, so that an example is never the same twice."""
    return [
        text if len(text) <= 5 or random.random() < 0.3 else text[random.random(len(text)) > DROPPED]
        for text in texts
    ]


def encoder(bag: Bag, random: np.random.Generator) -> Encode:
    def encode(texts: Sequence[np.ndarray]) -> torch.Tensor:
        texts = thinned(texts, random) if bag.training else texts
        starts = np.cumsum([0, *map(len, texts[:-1])])
        return bag(torch.from_numpy(np.concatenate(texts)), torch.from_numpy(starts))

    return encode
