"""Links between the pages lead to files and headings that there are."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest
from pages import PAGES, links, prose
from paths import ROOT


def anchors(page: Path) -> set[str]:
    """What headings are called in links, as GitHub and GitLab do it: https://github.com/Flet/github-slugger."""
    found, seen = set(), Counter[str]()
    for heading in re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE):
        words = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).strip().lower()
        name = re.sub(r"[^\w\- ]", "", words).replace(" ", "-")
        found.add(f"{name}-{seen[name]}" if seen[name] else name)
        seen[name] += 1
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_link_leads_somewhere(page):
    for target, anchor in links(page):
        assert target.exists(), target
        assert not anchor or anchor in anchors(target), f"{target.name} has no heading #{anchor}"
