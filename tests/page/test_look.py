"""The tab `look` in a real browser: the tokens, the cut, and the numbers are the library's."""

from __future__ import annotations

from urllib.parse import urlencode

import pytest
from browsing import Open
from command import demo, expected
from playwright.sync_api import expect

from q3e_local import EmbedRequest
from q3e_local.jobs import inspect, seen

TEXT = "The budget of the garden is 300 euros. 预算"


def test_tokens_and_numbers_are_the_librarys(open_page: Open) -> None:
    page = open_page("#/look?" + urlencode({"text": TEXT}))
    page.wait_for_selector(".token")
    tokens = [token.piece for token in seen(demo(), TEXT, EmbedRequest(())).tokens]
    shown = [text.replace("·", " ") for text in page.locator(".token").all_inner_texts()]
    assert shown == tokens
    assert f"{len(tokens)} tokens" in page.inner_text(".summary")
    assert "nothing is cut" in page.inner_text(".summary")
    facts = inspect(expected([TEXT]).vectors[0])
    said = dict(zip(page.locator("dt").all_inner_texts(), page.locator("dd").all_inner_texts(), strict=True))
    assert said["Dimension"] == "256"
    for name, value in {
        "Norm": facts.norm,
        "Mean": facts.mean,
        "Standard deviation": facts.spread,
        "Lowest": facts.lowest,
    }.items():
        assert float(said[name]) == pytest.approx(value, abs=6e-5), name
    titles = page.locator(".histogram title").evaluate_all("a => a.map((b) => parseInt(b.textContent))")
    assert (len(titles), sum(titles)) == (32, 256)


def test_what_is_cut_is_struck_through_and_the_end_token_stays(open_page: Open) -> None:
    page = open_page("#/look?" + urlencode({"text": TEXT, "limit": "4"}))
    page.wait_for_selector(".token")
    n = len(seen(demo(), TEXT, EmbedRequest(())).tokens)
    assert page.locator(".token.cut").count() == n - 4
    assert page.locator(".token").last.inner_text() == "<|endoftext|>"
    assert f"{n - 4} of them are cut" in page.inner_text(".summary")


def test_a_query_shows_its_instruction(open_page: Open) -> None:
    page = open_page("#/look?" + urlencode({"text": "oak", "kind": "query"}))
    page.wait_for_selector(".token")
    request = EmbedRequest((), kind="query")
    assert page.locator(".token").count() == len(seen(demo(), "oak", request).tokens)
    assert page.locator(".tokens").inner_text().startswith("Instruct")


def test_a_text_of_a_megabyte_shows_its_first_tokens(open_page: Open) -> None:
    page = open_page("#/look")
    page.get_by_label("A text").fill("the oak " * 125_000)
    page.get_by_label("Limit").fill("64")
    page.get_by_role("button", name="Look").click()
    expect(page.locator(".tokens")).to_contain_text("more are not shown")
    assert page.locator(".token").count() == 2_001
    assert len(page.url) < 8_000


def test_a_wrong_limit_is_said_in_a_sentence(open_page: Open) -> None:
    page = open_page("#/look")
    page.get_by_label("Limit").fill("0")
    page.get_by_role("button", name="Look").click()
    expect(page.get_by_role("alert")).to_contain_text("max_tokens must be between 1 and 32768")
    page.wait_for_load_state("networkidle")
    open_page.problems.clear()  # the two answers with status 400


def test_a_line_breaks_between_tokens_and_not_within_one(open_page: Open) -> None:
    page = open_page("#/look?text=" + "tokenization+" * 60, viewport={"width": 700, "height": 800})
    page.wait_for_selector(".token")
    boxes = page.locator(".token").evaluate_all("all => all.map((each) => each.getClientRects().length)")
    assert set(boxes) == {1}
