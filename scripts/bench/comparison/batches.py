"""How many texts a runtime computes at once, where its caller decides: found by trying, as llama-server's flags.

Knows nothing of contenders: it is handed what measures one.
"""

from __future__ import annotations

from collections.abc import Callable

TOKENS = (512, 1024, 2048)  # in a call; more do not stay in any cache


def candidates(n_tokens: int, n_texts: int) -> list[int]:
    """Texts a call, for texts of `n_tokens`; no more than there are."""
    return sorted({min(n_texts, max(1, tokens // n_tokens)) for tokens in TOKENS})


def best(choices: list[int], speed: Callable[[int], float]) -> tuple[int, dict[str, float]]:
    """The fastest of the choices, and texts a second of all that were tried; a single one is not."""
    if len(choices) == 1:
        return choices[0], {}
    tried = {str(n_batch): speed(n_batch) for n_batch in choices}
    return max(choices, key=lambda n_batch: tried[str(n_batch)]), tried
