"""Is a reranker right? Checks its header, head, checksum and scores, and compares its logits with the published ones.

Knows what a right reranker looks like; prints nothing. What it has in common with an embedding model is in verify.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

from q3e_local.checks import verify
from q3e_local.checks.report import Check, Report, Score
from q3e_local.errors import BadVectorError
from q3e_local.gguf.header import read_header
from q3e_local.gguf.model_file import ModelInfo
from q3e_local.gguf.model_kind import head_in_words
from q3e_local.models.card import LogitTable
from q3e_local.models.installed import Located
from q3e_local.reranking.proof import QUERY, RIGHT, WRONG
from q3e_local.reranking.reranker import Reranker

# How far a logit may be from the published one. How much quantization adds is not published, so these bounds are
# ours: at the largest, documents of the example, which are 2.7 apart and more, cannot change places. Logits, because
# a probability of 0.999 is the same for many of them.
TOLERANCES = {"f32": 0.1, "f16": 0.1, "bf16": 0.2, "q8_0": 0.4, "q6_k": 0.6, "q5_k_m": 1.0, "q4_k_m": 1.3}
LOOSEST = 1.3
# Of a file that ships with this program, whose logits on the card are of this very file's weights: only arithmetic
# differs between CPUs.
OF_SHIPPED = 0.1

# The most that a document's logits alone and among others may differ by: rounding, and the shared prompt.
_SAME = 0.1
_PROOF = LogitTable(QUERY, (RIGHT, WRONG), ())


def examine(reranker: Reranker, located: Located, on_bytes: Callable[[int], None] = lambda n_bytes: None) -> Report:
    """Check all that can be checked of a reranker. Reads the whole file; calls `on_bytes` with the bytes read so far.

    Raises ModelError for a file that cannot be read.
    """
    info = located.inspect()
    card = located.card or verify.card_of(info)
    published = None if card is None else card.logits
    table = published or _PROOF
    fresh = Reranker(reranker.engine, reranker.model, reranker.prompts)  # without the cache
    scores: list[Score] = []
    try:
        logits = _logits(fresh, table.query, table.documents)
        of_scores = [check_order(logits), check_alone(fresh, table, logits)]
        is_shipped = card is not None and card.is_bundled
        scores = check_logits(table, logits, OF_SHIPPED if is_shipped else TOLERANCES.get(info.quantization, LOOSEST))
    except BadVectorError as error:
        of_scores = [Check("scores", False, error.message)]
    checks = [
        check_head(info),
        *verify.check_sizes(read_header(located.path), info, card),
        *of_scores,
        verify.check_sum(located, on_bytes),
    ]
    name = "" if card is None else card.name
    return Report(tuple(checks), tuple(scores), name, is_named=located.card is not None, kind="reranker")


def check_head(info: ModelInfo) -> Check:
    """What the score is read from. A coarse head is no fault of the file, and is told."""
    assert info.answers is not None
    return Check("head", True, head_in_words(info.answers))


def check_order(logits: list[float]) -> Check:
    """Whether documents that were given best first come out in this order, a right one above 0, a wrong one below."""
    what = "order and signs"
    shown = ", ".join(f"{logit:+.2f}" for logit in logits)
    in_order = all(better > worse for better, worse in pairwise(logits))
    if in_order and logits[0] > 0 > logits[-1]:
        return Check(what, True, f"logits {shown}")
    return Check(what, False, f"logits {shown}: they must fall, from above 0 to below 0")


def check_alone(reranker: Reranker, table: LogitTable, together: list[float]) -> Check:
    """Whether a document's logit is the same alone as among others."""
    what = "batches"
    alone = [_logits(reranker, table.query, (document,))[0] for document in table.documents]
    farthest = max(abs(one - other) for one, other in zip(alone, together, strict=True))
    if farthest > _SAME:
        return Check(what, False, f"alone and among others a document's logits differ by {farthest:.2f}")
    return Check(what, True, "a document has the same logit alone as among others")


def check_logits(table: LogitTable, logits: list[float], tolerance: float) -> list[Score]:
    """Compare the logits with those that are published, if any are."""
    return [
        Score(table.query, document, expected, got, tolerance)
        for document, expected, got in zip(table.documents, table.expected, logits, strict=False)
    ]


def _logits(reranker: Reranker, query: str, documents: tuple[str, ...]) -> list[float]:
    ranked = sorted(reranker.rank(query, documents), key=lambda one: one.index)
    return [one.logit for one in ranked]
