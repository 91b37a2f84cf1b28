"""The picture of a terminal session in the READMEs shows real commands, and can be drawn again."""

from __future__ import annotations

import html
import re
import runpy
from pathlib import Path

from paths import ROOT

PICTURE = ROOT / "docs" / "session.svg"


def lines(picture: Path) -> list[str]:
    """The lines of a picture of rich's, with each number as #: times, speeds and last digits differ."""
    by_place: dict[float, str] = {}
    for y, text in re.findall(r'<text [^>]*y="([\d.]+)"[^>]*clip-path[^>]*>(.*?)</text>', picture.read_text("utf-8")):
        by_place[float(y)] = by_place.get(float(y), "") + html.unescape(text).replace("\xa0", " ")
    found = [re.sub(r"[\d,.]*\d", "#", text).rstrip() for _, text in sorted(by_place.items())]
    return [line for line in found if line]


def test_the_picture_shows_what_the_commands_print(tmp_path):
    session = runpy.run_path(str(ROOT / "scripts" / "session.py"))
    session["draw"](tmp_path / "session.svg")
    assert lines(tmp_path / "session.svg") == lines(PICTURE)
    asked = [line[2:] for line in lines(PICTURE) if line.startswith("$ ")]
    assert asked == [re.sub(r"\d+", "#", command) for command in session["COMMANDS"]]


def test_the_picture_needs_no_network():
    text = PICTURE.read_text(encoding="utf-8")
    assert set(re.findall(r"https?://[^\s\"')]+", text)) <= {
        "http://www.w3.org/2000/svg",
        "https://www.textualize.io",
    }
    for readme in ("README.md", "README.zh-CN.md"):
        assert "(docs/session.svg)" in (ROOT / readme).read_text(encoding="utf-8")
