"""One question to an index: by meaning, by words or by both, with an account of what was done.

Knows rankings and records; nothing of models (the question comes with its vector) nor of SQL.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Protocol

from q3e_local.search.database.query_words import Term, terms_of
from q3e_local.search.database.records import Counted, Entry, Filters, Ranked, Sharing
from q3e_local.search.hits import Found, Hit, Mode
from q3e_local.search.ranking import RRF_K, fuse, reasons_for_words, sharing, to_the_letter
from q3e_local.vectors import Vectors

# How much of each ranking is fused: deep enough that a good hit of one ranking is in the other too.
_FUSED_MIN, _FUSED_PER_HIT, _FUSED_MORE_MAX = 50, 4, 1000


@dataclass(frozen=True)
class Question:
    """What is looked for. Without a vector, the search is by words."""

    text: str
    vector: Vectors | None
    k: int
    mode: Mode
    exact: bool
    filters: Filters


class State(Protocol):
    """What a question is asked of: a Snapshot, or what answers as one does; see there what its methods mean."""

    def n_chunks(self) -> int: ...
    def exact(self, vector: Vectors, k: int, filters: Filters) -> Ranked: ...
    def nearest(self, vector: Vectors, k: int, filters: Filters) -> Ranked: ...
    def scores(self, vector: Vectors, rows: Iterable[int]) -> dict[int, float]: ...
    def counted(self, terms: Sequence[Term]) -> Counted: ...
    def words(
        self, counts: Mapping[Term, int], k: int, filters: Filters, sharing: Sharing | None = None
    ) -> Ranked: ...
    def entries_of(self, rows: Iterable[int]) -> tuple[Entry, ...]: ...


def ask(state: State, question: Question) -> Found:
    """The k best, of one state of the index."""
    explained: list[str] = [*_filtered(question.filters)]
    terms = terms_of(question.text) if question.mode != "vectors" else ()
    looked_up = state.counted(terms) if terms else Counted({})
    counts = looked_up.found
    if looked_up.absent:  # a chunk with only half of such a code has another code
        terms = terms_of(question.text, looked_up.absent)
        kept = set(terms)
        counts = {term: n for term, n in counts.items() if term in kept}
        looked_up = replace(looked_up, found=counts)
    mode, why = _chosen(state, question, counts)
    explained += looked_up.explained
    n = question.k
    if mode == "hybrid":
        n = max(_FUSED_MIN, min(_FUSED_PER_HIT * n, n + _FUSED_MORE_MAX))
    rankings: dict[str, Ranked] = {}
    if mode != "vectors":
        is_auto = question.mode == "auto" and mode == "hybrid"
        least = sharing(question.text, terms, looked_up, state.n_chunks()) if is_auto else None
        rankings["words"] = state.words(counts, n, question.filters, least)
        if is_auto and not len(rankings["words"].rows):
            mode, n = "vectors", question.k
            why = "auto: vectors alone, since no chunk shares enough of the query's words"
    explained += [why] if why else []
    if mode != "words":
        assert question.vector is not None  # without a vector no other mode is chosen
        search = state.exact if question.exact else state.nearest
        rankings["vectors"] = search(question.vector, n, question.filters)
    explained += [fact for name in ("vectors", "words") if name in rankings for fact in rankings[name].explained]
    if mode == "hybrid":
        if letters := to_the_letter(counts, state.n_chunks()):
            rankings["letters"] = state.words(letters, n, question.filters)
            explained.append(f"to the letter: {', '.join(repr(term.exact) for term in letters)}")
        explained.append(f"fused the first {n} of {len(rankings)} rankings by reciprocal rank (k = {RRF_K})")
    hits = _hits(state, question, rankings)
    return Found(hits, mode, tuple(explained), question.vector, looked_up.absent)


def _chosen(state: State, question: Question, counts: Mapping[Term, int]) -> tuple[Mode, str]:
    """How to search, and why."""
    if question.mode != "auto":
        return question.mode, ""
    if question.vector is None:
        return "words", "auto: words alone, since there is no model"
    reasons = reasons_for_words(counts, state.n_chunks())
    if not reasons:
        return "vectors", "auto: vectors alone, since nothing in the query is exact or rare"
    return "hybrid", f"auto: words too, for {', '.join(reasons[:5])}"


def _hits(state: State, question: Question, rankings: Mapping[str, Ranked]) -> tuple[Hit, ...]:
    # In this order, because among equal sums the first ranking decides.
    ranks: dict[str, dict[int, int]] = {"letters": {}, "words": {}, "vectors": {}}
    for name, ranked in rankings.items():
        ranks[name] = {row: place for place, row in enumerate(ranked.rows.tolist(), start=1)}
    rows = fuse([list(places) for places in ranks.values()])[: question.k]
    scores: dict[int, float] = {}
    if near := rankings.get("vectors"):
        scores = dict(zip(near.rows.tolist(), near.scores.tolist(), strict=True))
    if question.vector is not None:
        scores |= state.scores(question.vector, [row for row in rows if row not in scores])
    return tuple(
        Hit(
            entry.id,
            scores.get(entry.row, math.nan),
            file=entry.file,
            mtime=entry.mtime,
            indexed_at=entry.indexed_at,
            vectors_rank=ranks["vectors"].get(entry.row),
            words_rank=ranks["words"].get(entry.row),
            letters_rank=ranks["letters"].get(entry.row),
            **vars(entry.chunk),
        )
        for entry in state.entries_of(rows)
    )


def _filtered(filters: Filters) -> list[str]:
    parts = [] if filters.path is None else [f"path {filters.path}"]
    if filters.since is not None:
        parts.append(f"since {_date(filters.since)}")
    return [f"filters: {', '.join(parts)}"] if parts else []


def _date(seconds: float) -> str:
    with suppress(ValueError, OverflowError, OSError):  # a year that Python has no date for
        return datetime.fromtimestamp(seconds).astimezone().isoformat(" ", "seconds")
    return f"{seconds:g}"
