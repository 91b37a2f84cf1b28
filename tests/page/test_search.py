"""The tab `search` in a real browser: typing, asking, why, context, filters, links, keys, and hostile passages."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
import rerankers
from browsing import Open
from playwright.sync_api import expect
from served_indexes import make, search
from servers import served_locally

HIT = {
    "id": "a.md#0", "score": 0.5, "text": "", "file": "a.md", "line": 1, "last_line": 1, "page": None, "headings": [],
    "start": 0, "end": 9, "words_rank": None, "letters_rank": None, "vectors_rank": 1, "rerank": None,
    "rank_before": None, "best": None,
}  # fmt: skip


def answering(*hits: dict[str, Any]) -> Any:
    """Has the page get these hits to any search."""
    found = {
        "index": "notes", "model": "demo", "space": None, "mode": "vectors", "reranker": None, "explained": [],
        "milliseconds": {"search": 1.0}, "hits": [{**HIT, "id": str(n), **hit} for n, hit in enumerate(hits)],
    }  # fmt: skip
    body = json.dumps(found)
    return lambda page: page.route("**/api/search", lambda route: route.fulfill(body=body))


def test_words_alone_answer_while_typing_and_enter_asks(open_page: Open) -> None:
    page = open_page()
    modes: list[str] = []
    page.on(
        "request", lambda request: "search" in request.url and modes.append(json.loads(request.post_data)["mode"])
    )
    page.get_by_role("searchbox").press_sequentially("outage", delay=5)
    page.wait_for_selector("article")
    assert "by words while you type" in page.inner_text(".summary")
    page.keyboard.press("Enter")
    expect(page.locator(".summary")).to_contain_text("embed")
    assert modes[-1] == "auto"
    assert set(modes[:-1]) == {"words"}
    assert re.search(r"embed [\d.]+ ms\s+search [\d.]+ ms\s+sentences [\d.]+ ms", page.inner_text(".summary"))
    assert page.url.endswith("#/search?q=outage&index=notes")


def test_a_result_has_its_place_its_best_sentence_why_and_its_context(open_page: Open, server: Any) -> None:
    query = "Why did the payment service fail?"
    expected = server.post("/api/search", json={"query": query, "k": 10, "best": True}).json()
    page = open_page("#/search?q=" + query.replace(" ", "+"))
    page.wait_for_selector("article")
    first = page.locator("article").first
    hit = expected["hits"][0]
    assert page.locator("article").count() == len(expected["hits"])
    assert f"lines {hit['line']} to {hit['last_line']}" in first.inner_text()
    best = hit["best"]
    assert first.locator("mark").inner_text() == hit["text"][best["start"] : best["end"]]
    assert page.locator(".path").first.get_attribute("title") == hit["file"]
    first.get_by_role("button", name="Why").click()
    facts = first.locator(".facts").inner_text()
    assert "By meaning\nno. 1" in facts
    assert f"Cosine\n{hit['score']:.4f}" in facts
    first.get_by_role("button", name="Context").click()
    first.locator(".passage[aria-current]").wait_for()
    around = server.post("/api/passages", json={"ids": [hit["id"]], "around": 2}).json()
    texts = first.locator(".passage .text").all_inner_texts()
    assert [text.split() for text in texts] == [each["text"].split() for each in around["passages"]]


@pytest.mark.parametrize(("name", "inside"), [("Why", ".facts"), ("Context", ".passage[aria-current]")])
def test_what_was_opened_is_in_the_link(open_page: Open, name: str, inside: str) -> None:
    page = open_page("#/search?q=budget")
    page.wait_for_selector("article")
    page.locator("article").nth(1).get_by_role("button", name=name).click()
    page.reload()
    card = page.locator("article").nth(1)
    expect(card.locator(inside)).to_be_visible()
    expect(page.locator(inside)).to_have_count(1)
    button = card.get_by_role("button", name=name)
    expect(button).to_have_attribute("aria-expanded", "true")
    button.click()
    expect(page.locator(inside)).to_have_count(0)
    assert page.url.endswith("#/search?q=budget&index=notes")


def test_results_stand_by_file_and_in_the_order_of_the_first_of_each(open_page: Open) -> None:
    hits = [{"file": name, "text": name} for name in ("x/b.md", "x/a.md", "x/b.md")]
    page = open_page("#/search?q=oak", prepare=answering(*hits))
    page.wait_for_selector("article")
    assert [head.split("\n")[0] for head in page.locator(".path").all_inner_texts()] == ["x/b.md", "x/a.md"]
    assert page.locator(".file").first.locator("article .rank").all_inner_texts() == ["1", "3"]


def test_filters_and_mode_are_asked_for_and_are_in_the_link(open_page: Open) -> None:
    page = open_page("#/search?q=budget")
    page.wait_for_selector("article")
    page.get_by_label("Words", exact=True).check()
    page.get_by_label("Folder or file").fill("notes-en-*")
    page.keyboard.press("Enter")
    expect(page.locator(".results")).not_to_contain_text("notes-zh-budget.md")
    assert page.url.endswith("#/search?q=budget&index=notes&mode=words&path=notes-en-*")
    page.reload()
    page.wait_for_selector("article, .notice")
    assert page.get_by_label("Folder or file").input_value() == "notes-en-*"
    assert page.get_by_label("Words", exact=True).is_checked()
    page.go_back()
    expect(page.get_by_label("Folder or file")).to_have_value("")
    assert page.get_by_label("Words", exact=True).is_checked()


def test_the_keyboard_walks_and_opens(open_page: Open) -> None:
    page = open_page("#/search?q=budget")
    page.wait_for_selector("article")
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.type") == "search"
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    assert page.evaluate("document.activeElement.getAttribute('aria-label')") == "Result 2"
    page.keyboard.press("w")
    assert page.locator("article").nth(1).locator(".facts").is_visible()
    page.keyboard.press("ArrowUp")
    page.keyboard.press("ArrowUp")
    assert page.evaluate("document.activeElement.type") == "search"
    page.keyboard.press("Escape")
    page.keyboard.press("?")
    assert "Walk through the results" in page.get_by_role("dialog").inner_text()
    assert "Move the map" in page.get_by_role("dialog").inner_text()
    page.keyboard.press("Escape")
    page.keyboard.press("2")
    page.wait_for_url("**#/compare")


def test_arrow_keys_change_the_mode_where_it_is_chosen(open_page: Open) -> None:
    page = open_page("#/search?q=budget")
    page.wait_for_selector("article")
    page.get_by_label("Auto", exact=True).focus()
    page.keyboard.press("ArrowDown")
    expect(page.get_by_label("Meaning", exact=True)).to_be_checked()
    assert page.evaluate("document.activeElement.type") == "radio"


def test_a_hit_by_its_letters_alone_has_its_place_among_those(open_page: Open) -> None:
    hit = {"score": None, "vectors_rank": None, "letters_rank": 3, "text": "The oak."}
    page = open_page("#/search?q=oak", prepare=answering(hit))
    expect(page.locator("article .score")).to_have_text("words no. 3")


def test_nothing_of_a_document_is_html(open_page: Open) -> None:
    evil = "<script>window.hacked = 1</script><img src=x onerror='window.hacked = 2'>"
    hits = [
        {"text": evil, "file": f"{evil}/a.md", "headings": [evil], "best": {"start": 0, "end": 8}},
        {"text": "\u202egnitrats\u202c 🙂 The oak.", "file": "\u202edm.a", "best": {"start": 13, "end": 21}},
    ]
    page = open_page("#/search?q=oak", prepare=answering(*hits))
    page.wait_for_selector("article")
    assert page.evaluate("window.hacked") is None
    assert page.locator("main script, main img").count() == 0
    assert page.locator("mark").all_inner_texts() == ["<script>", "The oak."]
    # What turns the direction of writing ends where the name ends.
    assert page.locator(".path").nth(1).locator("bdi").count() == 2


def test_a_line_of_a_megabyte_and_ten_thousand_hits_leave_it_quick(open_page: Open) -> None:
    hits = [{"text": "x" * 1_000_000, "best": {"start": 500_000, "end": 500_010}}, *[{"text": "oak"}] * 9_999]
    page = open_page("#/search?q=oak", prepare=answering(*hits))
    page.wait_for_selector("article")
    assert page.locator("article").count() == 100
    assert len(page.locator("article .text").first.inner_text()) < 2_000
    assert page.locator("mark").inner_text() == "x" * 10
    page.get_by_role("button", name="Show more").click()
    assert page.locator("article").count() == 200
    page.get_by_role("button", name="Show all 1,000,000 characters").click()
    assert page.evaluate("document.querySelector('article .text').textContent.length") == 1_000_000


def test_a_passage_longer_than_an_answer_says_that_it_goes_on(open_page: Open) -> None:
    hits = [{"text": "oak " * 5_000, "cut": True}, {"text": "The oak.", "cut": False}]
    page = open_page("#/search?q=oak", prepare=answering(*hits))
    page.get_by_role("button", name="Show all 20,000 characters").click()
    said = "The passage goes on: an answer has its first 20,000 characters."
    expect(page.locator("article").first).to_contain_text(said)
    expect(page.locator("article").nth(1)).not_to_contain_text("goes on")


@pytest.mark.parametrize("tab", ["search", "map"])
def test_a_link_to_an_index_that_is_not_here_says_so_and_names_those_that_are(open_page: Open, tab: str) -> None:
    page = open_page(f"#/{tab}?q=budget")
    page.wait_for_selector("article, .groups button")
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.evaluate(f"location.hash = '#/{tab}?q=budget&index=gone'")
    expect(page.locator(".notice")).to_contain_text("This server has no index “gone”")
    assert page.locator("article, .groups button >> visible=true").count() == 0
    assert page.get_by_role("button", name=re.compile("Pull")).count() == 0
    page.get_by_role("link", name="notes").click()
    expect(page.locator("article, .groups button").first).to_be_visible()
    assert f"#/{tab}?" in page.url
    assert "index=notes" in page.url
    assert "q=budget" in page.url
    assert not [url for url in asked if "/api/pull" in url]


def test_a_reranker_that_is_missing_is_the_one_to_pull(open_page: Open) -> None:
    page = open_page("#/search?q=budget&rerank=qwen3-reranker%3A0.6b")
    expect(page.get_by_role("alert")).to_contain_text("qwen3-reranker:0.6b is not on this machine")
    expect(page.get_by_role("button", name=re.compile("Pull"))).to_have_accessible_name("Pull qwen3-reranker:0.6b")
    page.get_by_label("Reranker", exact=True).select_option("Off")
    page.wait_for_selector("article")
    assert "rerank" not in page.url
    open_page.problems.clear()  # the 404


def test_what_the_server_says_stands_below_what_to_do_in_the_language_of_the_page(open_page: Open) -> None:
    page = open_page("#/search?q=budget&path=%5Bz-a%5D", locale="zh-CN")
    alert = page.get_by_role("alert")
    expect(alert).to_contain_text("请求有误，请按服务器的说明改正后再试：")
    words = alert.locator("[lang=en]")
    expect(words).to_have_text("the path '[z-a]' has a range that ends before it begins")
    open_page.problems.clear()  # the 400


def test_a_browser_that_refuses_the_clipboard_has_the_button_say_so(open_page: Open) -> None:
    def refuse(page: Any) -> None:
        page.add_init_script(
            "navigator.clipboard.writeText = () => Promise.reject(new DOMException('no', 'NotAllowedError'));"
            "document.execCommand = () => false;"
        )

    page = open_page("#/search?q=budget", prepare=refuse)
    page.wait_for_selector("article")
    button = page.locator("article").first.locator(".copy")
    button.click()
    expect(button).to_have_text("The browser refused: select the text and copy it")


def test_a_text_is_copied_where_the_browser_lets_it(open_page: Open) -> None:
    page = open_page("#/search?q=budget", permissions=["clipboard-read", "clipboard-write"])
    page.wait_for_selector("article")
    card = page.locator("article").first
    card.locator(".copy").click()
    expect(card.locator(".copy")).to_have_text("Copied")
    copied = page.evaluate("navigator.clipboard.readText()")
    assert copied.split() == card.locator(".text").inner_text().split()


def test_a_reranker_orders_the_results_and_why_has_the_places_before(open_page: Open, tmp_path: Path) -> None:
    path = rerankers.write_taught(tmp_path / "ranker.gguf")
    index = make(tmp_path / "mars.q3e", {str(n): text for n, text in enumerate(rerankers.BEST_FIRST)})
    with served_locally(indexes=(str(index),), models=(str(path),)) as http:
        before = [hit["id"] for hit in search(http, rerankers.QUESTION, None, mode="vectors")["hits"]]
        page = open_page(f"#/search?mode=vectors&q={rerankers.QUESTION}", base_url=http.base_url)
        page.wait_for_selector("article")
        page.get_by_label("Reranker", exact=True).select_option("ranker")
        expect(page.locator(".summary")).to_contain_text("rerank")
        assert [text[:4] for text in page.locator("article .text").all_inner_texts()] == ["Mars", "Satu", "Venu"]
        first = page.locator("article").first
        first.get_by_role("button", name="Why").click()
        facts = first.locator(".facts").inner_text()
        assert f"Before the reranker\nno. {before.index('0') + 1}" in facts
        said = re.search(r"The reranker says\n([\d.]+)", facts)
        assert said is not None
        assert float(said[1]) == pytest.approx(1 / (1 + math.exp(-rerankers.TAUGHT[0])), abs=0.02)
        assert "rerank=ranker" in page.url


def test_in_chinese(open_page: Open) -> None:
    page = open_page("#/search?q=预算", locale="zh-CN")
    page.wait_for_selector("article")
    assert page.evaluate("document.documentElement.lang") == "zh-CN"
    assert page.get_by_role("button", name="命中原因").first.is_visible()
    assert re.search(r"10 个段落，来自 \d 个文件", page.inner_text(".summary"))
    page.get_by_role("button", name="English").click()
    page.wait_for_selector("article")
    assert page.get_by_role("button", name="Why").first.is_visible()
    page.reload()
    page.wait_for_selector("article")
    assert page.evaluate("document.documentElement.lang") == "en"
