"""The name of a vector space: which vectors may be compared with which.

Knows digests and dims, nothing of files or models.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

_PLAIN = "plain"
_FORM = re.compile(r"q3e1-[^-]+-[0-9]+-[^-]+")


@dataclass(frozen=True)
class Space:
    """Where a vector lives: the model file it came from, its dim, and the prompt put before the text.

    Written `q3e1-<model digest>-<dim>-<prompt>`, the prompt being `plain` or the first 8 hex digits of its
    SHA-256: `q3e1-5f0c9d1e2a3b4c5d-256-plain`. Plain ASCII, fit for a header or a file name. Queries and
    documents of one model and dim are comparable although their prompts differ: see `comparable`.
    """

    model_digest: str
    dim: int
    prefix: str = ""

    def __str__(self) -> str:
        prompt = hashlib.sha256(self.prefix.encode("utf-8")).hexdigest()[:8] if self.prefix else _PLAIN
        return f"q3e1-{self.model_digest[:16]}-{self.dim}-{prompt}"


def is_space(space: str) -> bool:
    """Whether a text has the form of a space."""
    return _FORM.fullmatch(space) is not None


def at_dim(space: str, dim: int) -> str:
    """The space of the same vectors, cut."""
    model, _, prompt = space.rsplit("-", 2)
    return f"{model}-{dim}-{prompt}"


def is_of(space: str, model_digest: str) -> bool:
    """Whether a space is of this model file, with any dim and prompt."""
    return space.startswith(f"q3e1-{model_digest[:16]}-")


def is_of_scores(space: str) -> bool:
    """Whether a space is that of a reranker's scores for one question: one number each, which no vector has."""
    return space.split("-")[2:3] == ["1"]


def without_prompt(space: str) -> str:
    """The space's model file and dim: what the scores of all questions have in common."""
    return space.rsplit("-", 1)[0]


def comparable(space: str, other: str) -> bool:
    """Whether scores between vectors of these two spaces mean anything: same model file and same dim."""
    return without_prompt(space) == without_prompt(other)


def is_plain(space: str) -> bool:
    """Whether the texts of this space had no prompt."""
    return space.endswith(f"-{_PLAIN}")
