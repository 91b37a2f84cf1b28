"""A map as a file: a PNG by matplotlib, or an HTML page that needs nothing beside itself.

The only file that imports matplotlib. Knows maps, nothing of vectors.
"""

from __future__ import annotations

import importlib.resources
import json
import warnings
from collections.abc import Iterable, Sequence
from html import escape
from typing import TYPE_CHECKING, Any, BinaryIO

from q3e_local.errors import MissingPackageError
from q3e_local.jobs.mapping import Map
from q3e_local.tables import shortened

if TYPE_CHECKING:
    from matplotlib.font_manager import FontProperties
    from matplotlib.text import Annotation
    from matplotlib.transforms import Bbox

_LABELLED = 60  # points; more and their names cover each other
_IN_LEGEND = 20  # groups
_HOVER = 400  # characters of a text
_LABEL = 24
# Fonts with Chinese characters as systems and their users have them, Latin ones with many scripts last.
_CHINESE_FONTS = (
    "Noto Sans CJK SC", "Noto Sans SC", "Source Han Sans SC", "Source Han Sans CN", "PingFang SC", "Hiragino Sans GB",
    "Heiti SC", "STHeiti", "Songti SC", "Microsoft YaHei", "SimHei", "SimSun", "WenQuanYi Micro Hei",
    "WenQuanYi Zen Hei", "Droid Sans Fallback", "Noto Sans CJK JP", "Noto Sans CJK TC", "Arial Unicode MS",
)  # fmt: skip


def write_png(drawn: Map, stream: BinaryIO, title: str = "") -> str:
    """Draw the map as a PNG. Returns the characters that no font here has, which show as boxes; mostly none."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingPackageError("a PNG", "matplotlib", "analysis") from None
    groups, colours = drawn.group_names, drawn.colours
    labels = [_plain(text, _LABEL) for text in drawn.texts] if len(drawn.texts) <= _LABELLED else []
    font, missing = _font("".join([title, *labels, *groups[:_IN_LEGEND]]))
    figure = Figure(figsize=(10, 10), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    size = max(4.0, min(60.0, 20_000 / len(drawn.points)))
    of_points = [colours[group] for group in drawn.groups]
    axes.scatter(drawn.points[:, 0], drawn.points[:, 1], s=size, c=of_points, alpha=0.8, linewidths=0)
    for group in groups[:_IN_LEGEND]:
        axes.scatter([], [], c=colours[group], label=_plain(group, 40))
    names = [
        # Towards the middle, where there is room.
        axes.annotate(
            label, (x, y), xytext=(4 if x < 0.5 else -4, 4), textcoords="offset points",
            ha="left" if x < 0.5 else "right", fontproperties=_sized(font, 7),
        )
        for (x, y), label in zip(drawn.points.tolist(), labels, strict=False)
    ]  # fmt: skip
    if groups:
        more = f"and {len(groups) - _IN_LEGEND} more" if len(groups) > _IN_LEGEND else None
        axes.legend(title=more, loc="best", prop=_sized(font, 8))
    axes.set(xticks=[], yticks=[])
    axes.set_aspect("equal", adjustable="datalim")
    axes.margins(0.1)
    if title:
        axes.set_title(_plain(title, 100), fontproperties=_sized(font, 11))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # said by what is returned
        figure.draw_without_rendering()
        legend = axes.get_legend()
        _thin_out(names, axes.get_window_extent(), [] if legend is None else [legend.get_window_extent()])
        # The same map is the same file: no date, no version of matplotlib.
        figure.savefig(stream, format="png", metadata={"Software": "q3e-local"})
    return missing


def _thin_out(names: Sequence[Annotation], frame: Bbox, taken: list[Bbox]) -> None:
    """Take away the names that would cover one before them or what is there, or run out of the frame."""
    for name in names:
        box = name.get_window_extent()
        is_inside = frame.x0 <= box.x0 and box.x1 <= frame.x1 and frame.y0 <= box.y0 and box.y1 <= frame.y1
        if not is_inside or box.count_overlaps(taken):
            name.remove()
        else:
            taken.append(box)


def html_page(drawn: Map, title: str) -> str:
    """The map as one HTML page: texts on hover, groups to switch off, zoom and pan. Loads nothing from anywhere."""
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


def _plain(text: str, n_most: int) -> str:
    """One line that matplotlib does not read as mathematics."""
    return shortened(text, n_most).replace("$", r"\$")


def _sized(font: FontProperties | None, size: float) -> FontProperties:
    from matplotlib.font_manager import FontProperties

    sized = FontProperties() if font is None else font.copy()
    sized.set_size(size)
    return sized


def _font(text: str) -> tuple[FontProperties | None, str]:
    """Families that have the characters of a text, matplotlib's own first, and the characters that none has."""
    from matplotlib import font_manager

    installed = {font.name for font in font_manager.fontManager.ttflist}
    missing = {character for character in text if not character.isspace()}
    families: list[str] = []
    for family in ("DejaVu Sans", *(name for name in _CHINESE_FONTS if name in installed)):
        path = font_manager.findfont(family)
        here = _had(path, missing)
        if here or not families:
            families.append(family)
        missing -= here
    return font_manager.FontProperties(family=families), "".join(sorted(missing))


def _had(path: str, characters: Iterable[str]) -> set[str]:
    from matplotlib.ft2font import FT2Font

    glyphs = FT2Font(path).get_charmap()
    return {character for character in characters if ord(character) in glyphs}
