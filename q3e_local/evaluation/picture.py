"""An evaluation as a picture: quality against bytes and against time, as a PNG or as an HTML page with its table.

Draws with matplotlib. Knows evaluations; nothing of how they were found.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from html import escape
from importlib.util import find_spec
from typing import TYPE_CHECKING, BinaryIO

from q3e_local.errors import MissingPackageError
from q3e_local.evaluation.result import SHOWN, ColumnResult, Evaluation
from q3e_local.jobs.fonts import font_for
from q3e_local.jobs.mapping import COLOURS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title><style>
:root {{ color-scheme: light; }}
body {{ font: 14px/1.5 system-ui, sans-serif; margin: 2em auto; max-width: 75em; padding: 0 1em; color: #111; }}
h1 {{ font-size: 1.3em; }}
svg {{ width: 100%; height: auto; }}
div {{ overflow-x: auto; }}
table {{ border-collapse: collapse; white-space: nowrap; }}
th, td {{ padding: 0.2em 0.7em; text-align: right; border-bottom: 1px solid #ddd; }}
th:nth-child(2), td:nth-child(2), th:last-child, td:last-child {{ text-align: left; }}
</style></head><body><h1>{title}</h1>
{picture}
<div>{table}</div>
<p>{about}</p>
</body></html>
"""
_ABOUT = (
    "A difference is a column's measure less that of column 1, with its 95 % interval by a paired bootstrap. Seconds "
    "are those of one {item}, computed anew. Bytes are those of a stored vector."
)


def need() -> None:
    """Raise MissingPackageError where matplotlib is not installed."""
    if find_spec("matplotlib") is None:
        raise MissingPackageError("a picture", "matplotlib", "eval")


def write_png(found: Evaluation, stream: BinaryIO) -> None:
    """Draw the evaluation as a PNG of 1,500 pixels' width. Raises MissingPackageError without matplotlib."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # a character that no font here has is a box
        # The same evaluation is the same file: no date, no version of matplotlib.
        _figure(found, found.what).savefig(stream, format="png", metadata={"Software": "q3e-local"})


def html_page(found: Evaluation) -> str:
    """The picture and the figures as one HTML page, which loads nothing from anywhere."""
    drawn = io.StringIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        _figure(found, "").savefig(drawn, format="svg", metadata={"Date": None})
    picture = drawn.getvalue()
    return _PAGE.format(
        title=escape(found.what), picture=picture[picture.index("<svg") :], table=_table(found),
        about=escape(_ABOUT.format(item=found.timed)),
    )  # fmt: skip


def _figure(found: Evaluation, title: str) -> Figure:
    need()
    from matplotlib.figure import Figure

    lines = [f"{number}  {name}" for number, name in enumerate(found.names, 1)]
    font, _ = font_for("".join([title, *lines]))
    n_lines = -(-len(lines) // 2)
    figure = Figure(figsize=(10, 4.6 + 0.2 * n_lines), dpi=150, layout="constrained")
    if title:
        figure.suptitle(_plain(title), fontproperties=font)
    of_bytes, of_time = figure.subplots(1, 2, sharey=True)
    for axes, label, values in (
        (of_bytes, "bytes a vector", [result.vector_bytes for result in found.results]),
        (of_time, f"seconds a {found.timed}", [result.seconds for result in found.results]),
    ):
        _draw(axes, found, values)
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter("{x:,g}")
        axes.set_xlabel(label)
    of_bytes.set_ylabel(SHOWN[found.measure])
    for number, line in enumerate(lines):
        of_time.scatter([], [], color=_colour(number), label=_plain(line))
    small = font.copy()
    small.set_size(8)
    figure.legend(loc="outside lower center", ncols=2, prop=small, frameon=False)
    return figure


def _draw(axes: Axes, found: Evaluation, values: Sequence[float | None]) -> None:
    """A point with its number for each column that has a value: a search by words alone has no bytes."""
    for number, (result, value) in enumerate(zip(found.results, values, strict=True)):
        if value is None or value <= 0:
            continue
        height = result.measures[found.measure]
        axes.scatter([value], [height], color=_colour(number), s=40, zorder=3)
        axes.annotate(str(number + 1), (value, height), xytext=(5, 4), textcoords="offset points", fontsize=8)
    axes.grid(alpha=0.3, zorder=0)
    axes.margins(0.12)


def _table(found: Evaluation) -> str:
    measures = list(found.results[0].measures)
    heads = ["", "column", *(SHOWN[each] for each in measures), "seconds", "bytes", "difference", "95 % interval", ""]
    rows = [
        f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in _row(found, number, name, result))}</tr>"
        for number, (name, result) in enumerate(zip(found.names, found.results, strict=True), 1)
    ]
    head = "".join(f"<th>{escape(each)}</th>" for each in heads)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"


def _row(found: Evaluation, number: int, name: str, result: ColumnResult) -> list[str]:
    difference = result.differences.get(found.measure)
    return [
        str(number), name, *(f"{value:.4f}" for value in result.measures.values()), f"{result.seconds:.4f}",
        "" if result.vector_bytes is None else f"{result.vector_bytes:,}",
        *(("", "") if difference is None else (f"{difference.value:+.4f}", difference.interval)),
        found.verdict(result),
    ]  # fmt: skip


def _colour(number: int) -> str:
    return COLOURS[number % len(COLOURS)]


def _plain(text: str) -> str:
    """The text, which matplotlib would read as mathematics between dollars."""
    return text.replace("$", r"\$")
