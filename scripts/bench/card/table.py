"""The table of a run: its machine, its checks, and its speeds.

Knows the rows that child.py says. Imports the standard library alone.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping
from typing import Any


def markdown(found: Mapping[str, Any]) -> str:
    """All that a run found. What it did not reach or could not do stands there with its reason."""
    lines = [f"# {found['title']}", "", *_machine(found), *_checks(found)]
    for model in dict.fromkeys(row["model"] for row in _rows(found, "speed")):
        lines += [f"## {model}: tokens a second", "", *_speeds(found, model)]
    lines += _rest(found)
    return "\n".join(lines).rstrip() + "\n"


def speeds(found: Mapping[str, Any], model: str) -> dict[tuple[str, int, str], float]:
    """The median of tokens a second, by runtime, tokens of a text, and mode: `one` text at a time, or `many`."""
    rounds: dict[tuple[str, int, str], list[float]] = {}
    for row in _rows(found, "speed"):
        if row["model"] == model and row.get("seconds"):
            key = (row["runtime"], row["tokens"], row["mode"])
            rounds.setdefault(key, []).append(row["tokens"] * row["texts"] / row["seconds"])
    return {key: statistics.median(of) for key, of in rounds.items()}


def _machine(found: Mapping[str, Any]) -> list[str]:
    rows = list(_rows(found, "machine"))
    facts = rows[-1]["facts"] if rows else {"machine": "not known: that step did not end"}
    return [*(f"- {name}: {value}" for name, value in facts.items()), ""]


def _checks(found: Mapping[str, Any]) -> list[str]:
    rows = list(_rows(found, "check"))
    if not rows:
        return []
    lines = ["## Checks", "", "| model | check | | |", "|---|---|---|---|"]
    words = {True: "right", False: "**wrong**", None: "left out"}
    lines += [f"| {row['model']} | {row['check']} | {words[row['ok']]} | {row['said']} |" for row in rows]
    return [*lines, ""]


def _speeds(found: Mapping[str, Any], model: str) -> list[str]:
    of_model = speeds(found, model)
    lines: list[str] = []
    for mode, heading in (("one", "one text at a time"), ("many", "many texts in a call")):
        of_mode = {(runtime, n): speed for (runtime, n, its), speed in of_model.items() if its == mode}
        if not of_mode:
            continue
        lengths = sorted({n for _, n in of_mode})
        lines += [f"| {heading} |" + "".join(f" {n:,} |" for n in lengths), "|---|" + "---:|" * len(lengths)]
        for runtime in dict.fromkeys(runtime for runtime, _ in of_mode):
            cells = (of_mode.get((runtime, n)) for n in lengths)
            lines.append(f"| {runtime} |" + "".join(f" {speed:,.0f} |" if speed else " |" for speed in cells))
        lines.append("")
    return lines


def _rest(found: Mapping[str, Any]) -> list[str]:
    lines = [
        f"- {name}: {step['state']}, {step['why']}"
        for name, step in found["steps"].items()
        if step["state"] != "done"
    ]
    lines += [
        f"- {row['runtime']}, {row['tokens']:,} tokens: {row['why']}"
        for row in _rows(found, "speed")
        if row.get("why")
    ]
    return ["## What is missing", "", *lines] if lines else []


def _rows(found: Mapping[str, Any], kind: str) -> Iterator[Mapping[str, Any]]:
    for step in found["steps"].values():
        yield from (row for row in step["rows"] if row["kind"] == kind)
