"""Which installed fonts have the characters of a text, for matplotlib.

matplotlib keeps a list of fonts from the first time it ran, so this module also looks for fonts that were installed
later. Imports matplotlib inside its functions, because not everybody has it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.font_manager import FontProperties

_FIRST = "DejaVu Sans"  # matplotlib ships it
# Fonts with Chinese characters as systems and their users have them, the best ones first.
_CHINESE_FONTS = (
    "Noto Sans CJK SC", "Noto Sans SC", "Source Han Sans SC", "Source Han Sans CN", "PingFang SC", "Hiragino Sans GB",
    "Heiti SC", "STHeiti", "Songti SC", "Microsoft YaHei", "SimHei", "SimSun", "WenQuanYi Micro Hei",
    "WenQuanYi Zen Hei", "Droid Sans Fallback", "Noto Sans CJK JP", "Noto Sans CJK TC", "Arial Unicode MS",
)  # fmt: skip


def font_for(text: str) -> tuple[FontProperties, str]:
    """The font families that together have the characters of `text`, and the characters that no installed font has.

    Fonts installed since matplotlib made its list are looked for only where characters would be missing otherwise.
    """
    from matplotlib.font_manager import FontProperties

    missing = {character for character in text if not character.isspace()}
    families: list[str] = []
    for family, path in _candidates():
        found = _outlined(path, missing)
        if found or not families:
            families.append(family)
        missing -= found
        if not missing:
            break
    return FontProperties(family=families), "".join(sorted(missing))


def _candidates() -> Iterator[tuple[str, str]]:
    """Family and file of each installed font: matplotlib's, the known Chinese ones, then the others by name."""
    from matplotlib.font_manager import findfont, findSystemFonts, fontManager

    yield _FIRST, findfont(_FIRST)
    listed = {font.fname for font in fontManager.ttflist}
    for path in sorted(set(findSystemFonts()) - listed):
        try:
            fontManager.addfont(path)
        except (OSError, RuntimeError, ValueError):  # a file that is no font, or of a kind matplotlib cannot draw
            continue
    files = {font.name: font.fname for font in fontManager.ttflist}
    known = [family for family in _CHINESE_FONTS if family in files]
    for family in (*known, *sorted(set(files) - {*known, _FIRST})):
        yield family, files[family]


def _outlined(path: str, characters: Iterable[str]) -> set[str]:
    """Those of the characters that a font file has outlines for; none for a file that cannot be drawn with."""
    from matplotlib.ft2font import FT2Font

    try:
        font = FT2Font(path)
    except (OSError, RuntimeError):
        return set()
    if not font.scalable:  # pictures of characters, as colour emoji are, cannot be drawn at any size
        return set()
    glyphs = font.get_charmap()
    return {character for character in characters if ord(character) in glyphs}
