"""A map as a file: a PNG by matplotlib, or an HTML page that needs nothing beside itself.

Draws with matplotlib, whose fonts are in fonts.py. Knows maps, nothing of vectors.
"""

from __future__ import annotations

import importlib.resources
import json
import warnings
from html import escape
from typing import TYPE_CHECKING, Any, BinaryIO
from unicodedata import east_asian_width

from q3e_local.errors import MissingPackageError
from q3e_local.jobs.fonts import font_for
from q3e_local.jobs.labels import place_labels
from q3e_local.jobs.mapping import Map
from q3e_local.wording.html_table import shortened

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.font_manager import FontProperties

_LABELLED = 60  # points; the labels of more would hide the map
_IN_LEGEND = 20  # groups
_HOVER = 400  # characters of a text
_LABEL = 40  # columns of a terminal, where a Chinese character takes two
_DPI = 150
_POINTS_PER_INCH = 72


def write_png(drawn: Map, stream: BinaryIO, title: str = "") -> str:
    """Draw the map as a PNG of 1,500 by 1,500 pixels.

    Up to 60 points have labels; a label that would cover a point or another label is left out. Returns the characters
    that no installed font has, which show as boxes; mostly none. Raises MissingPackageError without matplotlib.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # the caller gets these characters
        figure, missing = figure_of(drawn, title)
        # The same map is the same file: no date, no version of matplotlib.
        figure.savefig(stream, format="png", metadata={"Software": "q3e-local"})
    return missing


def figure_of(drawn: Map, title: str = "") -> tuple[Figure, str]:
    """The map as a matplotlib figure, and the characters that no installed font has."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingPackageError("a PNG", "matplotlib", "analysis") from None
    groups, colours = drawn.group_names, drawn.colours
    labels = [_label_text(text) for text in drawn.texts] if len(drawn.texts) <= _LABELLED else []
    font, missing = font_for("".join([title, *labels, *groups[:_IN_LEGEND]]))
    figure = Figure(figsize=(10, 10), dpi=_DPI, layout="constrained")
    axes = figure.add_subplot()
    diameter = max(2.0, min(8.0, (20_000 / len(drawn.points)) ** 0.5))  # in points, as matplotlib has sizes
    of_points = [colours[group] for group in drawn.groups]
    axes.scatter(drawn.points[:, 0], drawn.points[:, 1], s=diameter**2, c=of_points, alpha=0.8, linewidths=0)
    for group in groups[:_IN_LEGEND]:
        axes.scatter([], [], c=colours[group], label=_plain(group, 40))
    if groups:
        more = f"and {len(groups) - _IN_LEGEND} more" if len(groups) > _IN_LEGEND else None
        # Outside of the frame, where no point can be.
        figure.legend(title=more, loc="outside lower center", ncols=2, prop=_sized(font, 8), frameon=False)
    axes.set(xticks=[], yticks=[])
    axes.set_aspect("equal", adjustable="datalim")
    axes.margins(0.1)
    if title:
        axes.set_title(_plain(title, 100), fontproperties=_sized(font, 11))
    figure.draw_without_rendering()  # from here on it is known where each point is
    figure.set_layout_engine("none")
    _label(axes, drawn, labels, diameter / 2 / _POINTS_PER_INCH * _DPI, _sized(font, 7))
    return figure, missing


def _label(axes: Axes, drawn: Map, labels: list[str], radius: float, font: FontProperties) -> None:
    """Write the labels, each where it covers nothing; `radius` of the points is in pixels."""
    from matplotlib.transforms import IdentityTransform

    if not labels:
        return
    texts = [
        axes.text(0, 0, label, transform=IdentityTransform(), fontproperties=font, va="bottom") for label in labels
    ]
    extents = [text.get_window_extent() for text in texts]
    points = axes.transData.transform(drawn.points)
    frame = axes.get_window_extent()
    sizes = [(extent.width, extent.height) for extent in extents]
    boxes = place_labels(points, radius, sizes, (frame.x0, frame.y0, frame.x1, frame.y1))
    for text, extent, box in zip(texts, extents, boxes, strict=True):
        if box is None:
            text.remove()
        else:
            # The extent of a text need not begin where the text does.
            text.set_position((box[0] - extent.x0, box[1] - extent.y0))


def html_page(drawn: Map, title: str) -> str:
    """The map as one HTML page: labels, texts on hover, groups to switch off, zoom and pan, light and dark.

    The page loads nothing from anywhere.
    """
    place = {name: number for number, name in enumerate(drawn.colours)}
    data = {
        "title": title,
        "groups": [{"name": name, "colour": colour} for name, colour in drawn.colours.items()],
        "points": [
            [round(x, 4), round(y, 4), place[group], name, shortened(text, _HOVER)]
            for (x, y), group, name, text in zip(
                drawn.points.tolist(), drawn.groups, drawn.names or [""] * len(drawn.texts), drawn.texts, strict=True
            )
        ],
    }
    page = importlib.resources.files("q3e_local.jobs").joinpath("map.html").read_text(encoding="utf-8")
    return page.replace("__TITLE__", escape(title)).replace("__DATA__", _for_script(data))


def _for_script(data: Any) -> str:
    """JSON that can stand inside a script: without `<`, no text in it can end the element or begin another."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _label_text(text: str) -> str:
    """As much of a text as `_LABEL` columns hold."""
    line, n_columns = shortened(text, _LABEL), 0
    for place, character in enumerate(line):
        n_columns += 2 if east_asian_width(character) in "WF" else 1
        if n_columns > _LABEL:
            return _plain(line, place - 1)
    return _plain(line, _LABEL)


def _plain(text: str, n_most: int) -> str:
    """One line that matplotlib does not read as mathematics."""
    return shortened(text, n_most).replace("$", r"\$")


def _sized(font: FontProperties, size: float) -> FontProperties:
    sized = font.copy()
    sized.set_size(size)
    return sized
