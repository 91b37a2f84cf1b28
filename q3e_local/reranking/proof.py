"""The proof of a reranker that no card vouches for: it must tell a right answer from a wrong one, twice.

A file without a head has the tensors of an embedding model, whose scores would be numbers without a meaning. Such
numbers may have the right signs by chance, and seldom turn with the question.
"""

from __future__ import annotations

from q3e_local.errors import WrongModelError
from q3e_local.files import is_proved, note_proved
from q3e_local.reranking.reranker import Reranker

# From the tests of sentence-transformers for Qwen3-Reranker-0.6B (tests/cross_encoder/test_model.py), which has the
# logits 7.12 and -3.11.
QUERY = "Which planet is known as the Red Planet?"
RIGHT = "Mars, known for its reddish appearance, is often referred to as the Red Planet."
WRONG = "Venus is often called Earth's twin because of its similar size and proximity."
OTHER_QUERY = "Which planet is called Earth's twin?"  # to which the wrong answer is the right one


def proved_facts(digest: str) -> tuple[object, ...]:
    """What `note_proved` notes of the file with this fingerprint once it has passed."""
    return (digest, "reranker", QUERY, OTHER_QUERY)


def prove(reranker: Reranker) -> None:
    """Raise WrongModelError for a model that does not tell the two for both questions. Proved once for a file."""
    facts = proved_facts(reranker.engine.digest)
    if is_proved(*facts):
        return
    preparing = Reranker(reranker.engine, reranker.model, reranker.prompts)  # without the cache
    right, wrong = sorted(preparing.rank(QUERY, [RIGHT, WRONG]), key=lambda ranked: ranked.index)
    first = preparing.rank(OTHER_QUERY, [RIGHT, WRONG])[0]
    why = ""
    if not right.logit > 0 > wrong.logit:
        why = f"it gives {right.score:.2g} to a right answer and {wrong.score:.2g} to a wrong one"
    elif first.index == 0:
        why = "it puts the same document first for two questions that different documents answer"
    if why:
        raise WrongModelError(
            f"{reranker.model} is no reranker that works: {why}; get another file, such as that of "
            "q3e-local pull qwen3-reranker:0.6b"
        )
    note_proved(*facts)
