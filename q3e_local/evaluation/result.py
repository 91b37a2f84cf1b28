"""What an evaluation finds: `Evaluation`, with a `ColumnResult` for each column.

Frozen records that a notebook shows as a table. Knows nothing of how they were found.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from q3e_local.evaluation.columns import Column, names
from q3e_local.evaluation.intervals import Difference
from q3e_local.wording.counts import counted
from q3e_local.wording.html_table import html_table

# A measure's name in programs, which is MTEB's, and for people.
SHOWN = {
    "ndcg_at_10": "nDCG@10", "recall_at_10": "recall@10", "mrr_at_10": "MRR@10", "map": "MAP",
    "agree_at_10": "agree@10", "spearman": "Spearman", "accuracy": "accuracy", "v_measure": "V-measure",
}  # fmt: skip
AGREEMENT = "agree_at_10"  # with the first column, which is no measure of good and bad
FEW = 20  # below so many items an interval of the bootstrap is too narrow


@dataclass(frozen=True)
class ColumnResult:
    """What one column came to. Of `measures` the first is the one that columns are compared by; higher is better.

    `differences` to the first column has the same names, and is empty for the first column itself. `seconds` is what
    one question or text takes, computed anew. `vector_bytes` is the size of a stored vector; None without vectors.
    """

    column: Column  # with its model and dim, which are named
    measures: Mapping[str, float]
    differences: Mapping[str, Difference]
    seconds: float
    vector_bytes: int | None


@dataclass(frozen=True)
class Evaluation:
    """Columns side by side, the first one first, and how many items they were measured on."""

    what: str  # is called so by people: "45 questions, 39 passages of notes.q3e"
    item: str  # "question", "pair" or "text"
    n_items: int
    results: tuple[ColumnResult, ...]
    notes: tuple[str, ...] = ()  # what was cut or left out

    @property
    def names(self) -> tuple[str, ...]:
        """What to call each column."""
        return names([result.column for result in self.results])

    @property
    def measure(self) -> str:
        """The measure that columns are compared by."""
        return next(iter(self.results[0].measures))

    @property
    def timed(self) -> str:
        """What `seconds` are of: "question", or "text" where none is asked."""
        return "question" if self.item == "question" else "text"

    @property
    def items(self) -> str:
        """`45 questions`."""
        return counted(self.n_items, self.item)

    def verdict(self, result: ColumnResult) -> str:
        """What the interval of a column's difference says; nothing of the first column, nor of an agreement."""
        difference = result.differences.get(self.measure)
        if difference is None or self.measure == AGREEMENT:
            return ""
        if not difference.is_shown:
            return f"no difference that {self.items} can show"
        return "better" if difference.value > 0 else "worse"

    def __repr__(self) -> str:
        return f"<Evaluation: {counted(len(self.results), 'column')}, {self.what}>"

    def _repr_html_(self) -> str:
        """As a notebook shows it."""
        measures = list(self.results[0].measures)
        rows = (
            (
                name,
                *(result.measures[each] for each in measures),
                result.seconds,
                result.vector_bytes,
                self.verdict(result),
            )
            for name, result in zip(self.names, self.results, strict=True)
        )
        return html_table(["column", *(SHOWN[each] for each in measures), "seconds", "bytes", ""], rows, self.what)


def by_model(results: Sequence[ColumnResult]) -> str:
    """`, by demo`: the end of what an evaluation is called, where all columns that have a model have the same."""
    models = {result.column.model for result in results if result.column.model is not None}
    return f", by {models.pop()}" if len(models) == 1 else ""
