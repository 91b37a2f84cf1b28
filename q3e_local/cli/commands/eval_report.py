"""How an evaluation is written: a table for people, an object a column for programs, or CSV.

Knows columns of figures; nothing of how they were found.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from q3e_local.cli.writing.outputs import stream_to
from q3e_local.cli.writing.report import Report, Target, write_report
from q3e_local.cli.writing.show import columns
from q3e_local.evaluation.result import AGREEMENT, SHOWN

if TYPE_CHECKING:
    from q3e_local.evaluation import ColumnResult, Evaluation


def write_evaluation(found: Evaluation, target: Target) -> None:
    """Write the evaluation in the form of the target. Raises OutputError."""
    if target.form != "table":
        objects = list(_objects(found))
        flat = [_flat(each) for each in objects]
        write_report(Report(objects, list(flat[0]), [list(each.values()) for each in flat]), target)
        return
    with stream_to(target.path) as stream:
        stream.write("".join(f"{line}\n" for line in _lines(found)).encode("utf-8"))


def _lines(found: Evaluation) -> list[str]:
    """The figures of each column, then for each but the first how far it is from the first."""
    measures = list(found.results[0].measures)
    rows = [
        (number, *result.measures.values(), f"{result.seconds:.4f}", result.vector_bytes, name)
        for number, (name, result) in enumerate(zip(found.names, found.results, strict=True), 1)
    ]
    if found.measure == AGREEMENT:
        return [found.what, *columns(["", SHOWN[AGREEMENT], "95 % interval", "bytes", "column"], _agreements(found))]
    # The name stands last: it may be long, and then goes on in the next line of a terminal.
    headings = ["", *(SHOWN[measure] for measure in measures), f"s/{found.timed}", "bytes", "column"]
    lines = [found.what, *columns(headings, rows, right=headings[:-1])]
    differences = [
        (number, f"{difference.value:+.4f}", difference.interval, found.verdict(result))
        for number, result in enumerate(found.results, 1)
        if (difference := result.differences.get(found.measure)) is not None
    ]
    if differences:
        headings = ["", SHOWN[found.measure], "95 % interval", "against 1"]
        lines += ["", *columns(headings, differences, right=headings[:2])]
    return lines


def _agreements(found: Evaluation) -> Iterator[tuple[object, ...]]:
    """Each column with its agreement, and the interval of that: the first agrees with itself."""
    for number, (name, result) in enumerate(zip(found.names, found.results, strict=True), 1):
        difference = result.differences.get(AGREEMENT)
        interval = "" if difference is None else f"{1 + difference.low:.4f} to {1 + difference.high:.4f}"
        yield number, result.measures[AGREEMENT], interval, result.vector_bytes, name


def _objects(found: Evaluation) -> Iterator[dict[str, Any]]:
    for number, (name, result) in enumerate(zip(found.names, found.results, strict=True), 1):
        yield {
            "column": number,
            "name": name,
            **asdict(result.column),
            "dtype": result.column.dtype if result.vector_bytes is not None else None,
            f"n_{found.item}s": found.n_items,
            **result.measures,
            "seconds": result.seconds,
            "bytes": result.vector_bytes,
            "differences": _differences(found, result),
            "verdict": found.verdict(result) or None,
        }


def _differences(found: Evaluation, result: ColumnResult) -> dict[str, dict[str, float]] | None:
    """The difference to the first column in each measure; None for the first."""
    if not result.differences:
        return None
    return {name: asdict(difference) for name, difference in result.differences.items()}


def _flat(fields: dict[str, Any]) -> dict[str, Any]:
    """The fields of an object as cells: of the differences the one that the verdict is about."""
    measure = next(name for name in SHOWN if name in fields)
    difference = (fields["differences"] or {}).get(measure, dict.fromkeys(("value", "low", "high")))
    cells = {name: value for name, value in fields.items() if name not in ("differences", "verdict")}
    ends = {"difference": difference["value"], "low": difference["low"], "high": difference["high"]}
    return cells | ends | {"verdict": fields["verdict"]}
