"""What is run on a card, in which order, and for how long at most.

Knows steps by name; nothing of processes. Imports the standard library alone, as the parent does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

LENGTHS = (16, 128, 512, 2_048, 8_192, 32_768)
BATCHES = (1_024, 512, 2_048, 4_096)  # the default first: a run that is stopped has it
CHECKS = {"tap": 60, "parity": 90, "long": 90, "kill": 60, "full": 90}
_MEASURE_S = 75
_LONGEST = {"q3e": 32_768, "llama-server": 8_192, "sentence-transformers": 8_192}
# Quadratic in memory without flash attention: longer texts say nothing new.
_LONGEST_WITHOUT_FLASH = 8_192


@dataclass(frozen=True)
class Step:
    """Something that a child process does; `limit_s` ends it. Its rows are kept as it says them."""

    name: str
    kind: str  # a function of child.py, or `make`, `install`, `checkpoint`
    limit_s: float
    options: dict[str, Any] = field(default_factory=dict)


def planned(
    models: Sequence[str], *, installs: bool, has_server: bool, has_torch: bool, makes: bool = True
) -> list[Step]:
    """All steps: of each model its checks, then its speed, ours before others'. The first model comes whole."""
    steps = [Step("install", "install", 420)] if installs else []
    steps.append(Step("machine", "machine", 30))
    for model in models:
        of = {"model": model}
        if makes:
            steps.append(Step(f"{model}: make", "make", 120, of))
        steps += [Step(f"{model}: {check}", check, limit, of) for check, limit in CHECKS.items()]
        first = True
        for n_batch in BATCHES:
            for flash in (True, False):
                longest = _LONGEST["q3e"] if flash else _LONGEST_WITHOUT_FLASH
                # Pieces of a long text are as long as a batch: all lengths once, the short ones for each size.
                lengths = [n for n in LENGTHS if n <= longest]
                name = f"{model}: speed, {n_batch} tokens, flash attention {'on' if flash else 'off'}"
                options = of | {"n_batch": n_batch, "flash": flash, "lengths": lengths}
                steps.append(Step(name, "speed", _MEASURE_S, options))
                if first:
                    steps += _rivals(of, has_server, has_torch)
                    first = False
    return steps


def _rivals(of: dict[str, Any], has_server: bool, has_torch: bool) -> list[Step]:
    steps, model = [], of["model"]
    if has_server:
        lengths = [n for n in LENGTHS if n <= _LONGEST["llama-server"]]
        options = of | {"lengths": lengths}
        steps.append(Step(f"{model}: llama-server", "llama_server", _MEASURE_S, options))
    if has_torch:
        lengths = [n for n in LENGTHS if n <= _LONGEST["sentence-transformers"]]
        options = of | {"lengths": lengths}
        steps.append(Step(f"{model}: checkpoint", "checkpoint", 150, of))
        steps.append(Step(f"{model}: sentence-transformers", "sentence_transformers", _MEASURE_S, options))
    return steps


def missing(steps: Sequence[Step], found: Mapping[str, Mapping[str, Any]]) -> list[Step]:
    """Those that are not done: what failed or was stopped in an earlier run is tried again."""
    return [step for step in steps if found.get(step.name, {}).get("state") != "done"]


def allowed_s(step: Step, left_s: float) -> float:
    """How long a step may run with so much time left in all; 0: it is not begun."""
    return min(step.limit_s, left_s) if left_s >= min(10.0, step.limit_s) else 0.0


def n_texts(n_tokens: int, n_batch: int) -> int:
    """Texts of a call that fills about four batches; one where a text is as long as that."""
    return max(1, 4 * n_batch // n_tokens)
