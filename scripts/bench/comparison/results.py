"""The JSON file of a comparison: read, added to a round at a time, written whole; and what follows from its figures.

{"runs": [...],                          when, with what command, on what machine, of what commit
 "cells": {"0.6b/128": {                 a model and a workload
    "model", "digest", "workload", "texts", "base",
    "rounds": [{"run": 0, "library": {"seconds": ..., "tokens_per_s": ...}, ...}, ...],
    "settings", "memory", "cosine" to the base, "exactness": cosine to float32,
    "skipped": {contender: why}, "died": {contender: how its process ended}}},
 "best": {"0.6b/batch": {"flags": [...], "tries": [...]}},      llama-server's flags, and what was tried
 "batches": {"0.6b/torch-bf16/128": {"n_batch": ..., "texts_per_s": {n_batch: ...}}},   texts a call, likewise
 "peaks": [{"run": 0, "model": ..., "int8": operations a second, ...}]}
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from q3e_local.files import land


def read(path: Path) -> dict[str, Any]:
    """What was measured before, or nothing yet."""
    if not path.exists():
        return {"runs": [], "cells": {}, "best": {}, "batches": {}, "peaks": []}
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    found.setdefault("batches", {})  # version 0.1.0 had none
    return found


def write(path: Path, results: dict[str, Any]) -> None:
    """Whole or not at all: an interrupted run keeps the rounds before."""
    land(path, json.dumps(results, indent=1) + "\n")


def cell_of(results: dict[str, Any], key: str, facts: dict[str, Any]) -> dict[str, Any]:
    """The cell of this key, made if there is none. Raises ValueError where it was measured on something else."""
    cell: dict[str, Any] = results["cells"].setdefault(key, {**facts, "rounds": []})
    for name in ("settings", "memory", "cosine", "exactness", "skipped", "died"):  # version 0.1.0 had not all of them
        cell.setdefault(name, {})
    for name, value in facts.items():
        if cell[name] != value:
            raise ValueError(
                f"{key} was measured with {name} {cell[name]}, this run has {value}; give another --output or --again"
            )
    return cell


def ratios(cell: dict[str, Any], contender: str) -> list[float]:
    """How many times as fast the base is, round by round."""
    base = cell["base"]
    return [
        each[base]["texts_per_s"] / each[contender]["texts_per_s"]
        for each in cell["rounds"]
        if base in each and contender in each
    ]


def speeds(cell: dict[str, Any], contender: str, unit: str = "tokens_per_s") -> list[float]:
    return [each[contender][unit] for each in cell["rounds"] if contender in each]


def contenders(cell: dict[str, Any]) -> list[str]:
    """Those with a figure, that died or were left out: the base first, the others by speed, the fastest first."""
    found = dict.fromkeys(name for each in cell["rounds"] for name in each if name != "run")
    found |= dict.fromkeys(cell.get("died", {})) | dict.fromkeys(cell.get("skipped", {}))

    def place(name: str) -> tuple[bool, float]:
        return name != cell["base"], -statistics.median(speeds(cell, name) or [0.0])

    return sorted(found, key=place)


def see_cosines(cosines_of: dict[str, Any], contender: str, ours: Any, theirs: Any) -> None:
    """Remember how near a contender's vectors are to others, over all rounds: fast and wrong is no result."""
    norms = np.linalg.norm(ours, axis=1) * np.linalg.norm(theirs, axis=1)
    cosines = (np.asarray(ours, np.float64) * theirs).sum(axis=1) / np.maximum(norms, 1e-30)
    old = cosines_of.get(contender, {"min": 1.0, "n": 0, "mean": 0.0})
    n = old["n"] + len(cosines)
    mean = (old["mean"] * old["n"] + float(cosines.sum())) / n
    cosines_of[contender] = {"min": min(old["min"], float(cosines.min())), "mean": mean, "n": n}


def operations(shape: dict[str, int], n_tokens: int) -> float:
    """Multiplications and additions of a token in a text of `n_tokens`: matrices, and attention to those before."""
    attention = 2 * shape["n_layer"] * shape["n_head"] * shape["head_dim"] * n_tokens
    return 2 * shape["n_weights"] + attention


def spread(values: Sequence[float], form: str = ",.0f") -> str:
    """The median, and between what."""
    if not values:
        return ""
    middle = format(statistics.median(values), form)
    if len(values) == 1:
        return middle
    return f"{middle} ({format(min(values), form)} to {format(max(values), form)})"
