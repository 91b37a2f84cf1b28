"""What a check of a model found: `Report`, and what it comes to.

Knows the words of a verdict; checks nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from q3e_local.gguf.model_kind import ModelKind

Verdict = Literal["right", "unproved", "wrong"]


@dataclass(frozen=True)
class Check:
    """A check and its result; `is_ok` is None where there was nothing to compare with."""

    what: str
    is_ok: bool | None
    detail: str


@dataclass(frozen=True)
class Score:
    """A query against a document: the published score, a cosine or a logit, ours, and how far they may be apart."""

    query: str
    document: str
    expected: float
    got: float
    tolerance: float

    @property
    def is_ok(self) -> bool:
        return abs(self.got - self.expected) <= self.tolerance


@dataclass(frozen=True)
class Report:
    """What was checked of a model. `scores` are empty where none are published for it.

    `card` is the name of the model whose sizes and scores were expected, and `is_named` whether the file is known to
    be of that model, and does not only have its sizes.
    """

    checks: tuple[Check, ...]
    scores: tuple[Score, ...]
    card: str = ""
    is_named: bool = False
    kind: ModelKind = "embedder"

    @property
    def is_ok(self) -> bool:
        """Whether no check failed."""
        return all(check.is_ok is not False for check in self.checks) and all(score.is_ok for score in self.scores)

    @property
    def verdict(self) -> Verdict:
        """`right` only where the published scores were compared."""
        if not self.is_ok:
            return "wrong"
        return "right" if self.scores else "unproved"

    @property
    def summary(self) -> str:
        """A line for people: the verdict, what was checked, what could not be, and what to do."""
        left = ", ".join(check.what for check in self.checks if check.is_ok is None)
        if self.verdict == "right":
            return "right" if not left else f"right, by the published scores; could not be checked: {left}"
        if self.verdict == "unproved":
            checked = ", ".join(check.what for check in self.checks if check.is_ok)
            missing = (
                "vectors are right, since no scores" if self.kind == "embedder" else "scores are, since no logits"
            )
            return (
                f"nothing wrong with: {checked}; could not be checked: {f'{left}, and ' if left else ''}whether the "
                f"{missing} are published for this model"
            )
        if any(check.is_ok is False for check in self.checks):
            return "NOT right: see FAIL above; pull the model anew, or convert it again"
        remedy = "these weights do not give the published scores; pull the model anew, or convert it again"
        if self.is_named:
            return f"NOT right: {remedy}"
        return f"NOT right as {self.card}: {remedy}; if they were trained further, no scores are published for them"
