"""The tab `compare` in a real browser: scores are the library's, at any dimension, and a reranker's are its own."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlencode

import httpx
import numpy as np
import pytest
import rerankers
from browsing import Open
from command import expected
from playwright.sync_api import expect
from servers import served_locally

LEFT = ["What is the capital of China?", "Explain gravity"]
RIGHT = ["The capital of China is Beijing.", "Gravity pulls.", "<b>The oak</b>"]


def link(left: list[str], right: list[str], **more: str) -> str:
    return "#/compare?" + urlencode({"left": "\n".join(left), "right": "\n".join(right), **more})


def cells(table: object) -> list[float]:
    return [float(text) for text in table.locator("td:has-text('.')").all_inner_texts()]


def scores(dim: int, **options: str) -> list[float]:
    queries = expected(LEFT, kind="query", dim=dim, **options).vectors
    return (queries @ expected(RIGHT, kind="document", dim=dim).vectors.T).ravel().tolist()


def test_the_matrix_is_the_librarys_at_every_dimension_without_asking_again(open_page: Open) -> None:
    page = open_page(link(LEFT, RIGHT))
    table = page.locator("table.matrix").first
    table.wait_for()
    assert cells(table) == pytest.approx(scores(256), abs=6e-4)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.get_by_role("slider").fill("32")
    expect(page.locator("output")).to_have_text("32 of 256 numbers")
    assert cells(table) == pytest.approx(scores(32), abs=6e-4)
    assert "dim=32" in page.url
    exact = page.get_by_label("Dimension as a number")
    expect(exact).to_have_value("32")
    for typed, taken in (("64", 64), ("7", 32), ("9999", 256), ("", 256), ("32", 32)):
        exact.fill(typed)
        page.keyboard.press("Tab")
        expect(page.locator("output")).to_have_text(f"{taken} of 256 numbers")
        expect(exact).to_have_value(str(taken))
        assert page.get_by_role("slider").input_value() == str(taken)
        assert cells(table) == pytest.approx(scores(taken), abs=6e-4)
        assert f"dim={taken}" in page.url or taken == 256
    assert asked == []
    best = np.array(scores(32)).reshape(2, 3).argmax(axis=1).tolist()
    marked = [
        row.locator("td").evaluate_all("a => a.findIndex(b => 'best' in b.dataset)")
        for row in table.locator("tbody tr").all()
    ]
    assert marked == best
    assert table.locator("b").count() == 0


def test_instructions_change_the_queries_and_a_link_has_them(open_page: Open) -> None:
    page = open_page(link(LEFT, RIGHT, task="own", instruction="Find the city"))
    table = page.locator("table.matrix").first
    table.wait_for()
    assert cells(table) == pytest.approx(scores(256, instruction="Find the city"), abs=6e-4)
    page.get_by_label("documents").check()
    page.get_by_role("button", name="Compare").click()
    expect(table).to_be_visible()
    page.wait_for_url("**kind=document**")
    bare = expected(LEFT, kind="document").vectors @ expected(RIGHT, kind="document").vectors.T
    assert cells(page.locator("table.matrix").first) == pytest.approx(bare.ravel().tolist(), abs=6e-4)


def test_an_empty_side_says_what_to_do(open_page: Open) -> None:
    page = open_page("#/compare")
    page.get_by_label("Left, one text a line").fill("\n \n")
    page.get_by_role("button", name="Compare").click()
    page.get_by_text("Write at least one line on each side.").wait_for()


@pytest.fixture(scope="module")
def ranking(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    path: Path = rerankers.write_taught(tmp_path_factory.mktemp("ranker") / "ranker.gguf")
    with served_locally(models=(str(path),)) as client:
        yield client


def test_a_reranker_scores_the_same_pairs(open_page: Open, ranking: httpx.Client) -> None:
    page = open_page(link([rerankers.QUESTION], list(rerankers.BEST_FIRST)), base_url=ranking.base_url)
    page.get_by_role("button", name="Score the same pairs").click()
    table = page.get_by_role("region", name="Reranker").locator("table")
    table.wait_for()
    probabilities = [1 / (1 + math.exp(-logit)) for logit in rerankers.TAUGHT]
    assert cells(table) == pytest.approx(probabilities, abs=0.02)
