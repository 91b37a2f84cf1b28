"""The Chinese pages keep up with the English ones: links, options, variables and figures."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest
from cli.test_help import commands
from pages import CHINESE, english, links, prose
from paths import ROOT

OPTION = r"(?<![\w-])--[a-z][a-z-]+"
VARIABLE = r"\b[A-Z][A-Z0-9]*_[A-Z0-9_]+\b"

each_page = pytest.mark.parametrize("page", CHINESE, ids=lambda page: page.relative_to(ROOT).as_posix())


def in_tables(page: Path) -> set[str]:
    rows = "\n".join(line for line in page.read_text(encoding="utf-8").splitlines() if line.startswith("|"))
    return set(re.findall(f"{OPTION}|{VARIABLE}", rows))


def figures(text: str) -> set[str]:
    """Numbers with a point, or of three digits and more: 2.50, 20,000, 512."""
    return set(re.findall(r"(?<![\w.])\d[\d,]*\.\d+|(?<![\w.])\d[\d,]*\d{2}\b", text))


def said_in_english(page: Path) -> str:
    """Its English page, README.md, and the English of the pages that it links to."""
    sources = {english(page), ROOT / "README.md", *(english(target) for target, _ in links(page))}
    return "\n".join(each.read_text(encoding="utf-8") for each in sources if each.suffix == ".md")


@each_page
def test_a_page_and_its_english_one_link_to_each_other(page):
    assert english(page) in [target for target, _ in links(page)]
    assert page in [target for target, _ in links(english(page))]


@each_page
def test_a_page_sends_its_readers_to_chinese_pages_where_there_are_some(page):
    for target, anchor in links(page):
        chinese = target.with_name(f"{target.stem}.zh-CN.md")
        # The English page may say more: its own, or a heading that the Chinese one does not have.
        assert target == english(page) or anchor or not chinese.exists(), target.name


@pytest.mark.parametrize("name", ["embed", "models", "search", "server"])
def test_tables_of_options_and_variables_have_those_of_the_english_page(name):
    page = ROOT / "docs" / f"{name}.zh-CN.md"
    assert in_tables(page) == in_tables(english(page))


@each_page
def test_every_option_and_variable_is_one(page):
    options = {
        name
        for command in commands().values()
        for parameter in command.params
        if isinstance(parameter, click.Option)
        for name in (*parameter.opts, *parameter.secondary_opts)
    }
    said = said_in_english(page)
    for name in re.findall(f"{OPTION}|{VARIABLE}", prose(page)):
        assert name in options or name in said, name


@each_page
def test_figures_are_those_of_english_pages(page):
    assert figures(prose(page)) - figures(said_in_english(page)) == set()
