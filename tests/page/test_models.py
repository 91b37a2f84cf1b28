"""The tab `models` in a real browser: load, unload, pull, counters, and lines that work."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from typing import Any

import httpx
import pytest
from browsing import Open
from playwright.sync_api import expect
from servers import served_locally
from world import World


def test_a_model_is_loaded_used_and_unloaded(open_page: Open, server: httpx.Client) -> None:
    server.post("/api/generate", json={"model": "demo", "keep_alive": 0})
    page = open_page("#/models")
    loaded, here = page.get_by_role("region", name="In memory"), page.get_by_role("region", name="On this machine")
    expect(loaded).to_contain_text("No model is loaded")
    here.get_by_role("button", name="Load demo", exact=True).click()
    expect(loaded.get_by_role("row", name="demo embeds")).to_contain_text("embeds")
    assert [model["name"] for model in server.get("/api/ps").json()["models"]] == ["demo:latest"]
    expect(page.locator(".tiles")).to_contain_text("1 model")
    expect(here.get_by_role("row", name="demo embeds")).to_contain_text("loaded")
    expect(here.get_by_role("button", name="Load demo", exact=True)).to_have_count(0)
    loaded.get_by_role("button", name="Unload demo", exact=True).click()
    expect(loaded).to_contain_text("No model is loaded")
    expect(here.get_by_role("button", name="Load demo", exact=True)).to_be_visible()


def test_what_is_loaded_already_is_marked(open_page: Open, server: httpx.Client) -> None:
    server.post("/api/generate", json={"model": "demo"})
    page = open_page("#/models", locale="zh-CN")
    row = page.get_by_role("region", name="本机模型").get_by_role("row", name="demo 嵌入")
    expect(row).to_contain_text("已加载")
    server.post("/api/generate", json={"model": "demo", "keep_alive": 0})  # another client's
    expect(row.get_by_role("button", name="加载 demo", exact=True)).to_be_visible()


def test_counters_are_the_servers(open_page: Open, server: httpx.Client) -> None:
    page = open_page("#/models")
    expect(page.locator(".tiles")).to_contain_text("since the start")
    server.post("/api/embed", json={"model": "demo", "input": [f"text {n}" for n in range(30)]})
    n_tokens = re.search(r"^q3e_computed_tokens_total (\S+)$", server.get("/metrics").text, re.MULTILINE)
    assert n_tokens is not None
    expect(page.locator(".tiles")).to_contain_text(f"{int(float(n_tokens[1])):,} since the start")
    rate = page.locator(".tile .value").first.inner_text().replace(",", "")
    assert int(rate) > 0


def test_the_lines_work(open_page: Open, server: httpx.Client) -> None:
    page = open_page("#/models?model=demo")
    page.wait_for_selector(".lines pre")
    curl, python, ollama = page.locator(".lines pre").all_inner_texts()
    said = subprocess.run(curl, shell=True, capture_output=True, check=True).stdout
    assert b'"embeddings":[[' in said
    for text, result in ((python, "data[0].embedding"), (ollama, "embeddings[0]")):
        head, last = text.rsplit("\n", 1)
        program = f"{head}\nprint(len(({last}).{result}))"
        assert subprocess.run([sys.executable, "-c", program], capture_output=True, check=True).stdout == b"256\n"


def test_a_model_is_pulled_with_its_progress(open_page: Open, world: World) -> None:
    with served_locally() as http:
        page = open_page("#/models", base_url=http.base_url)
        row = page.get_by_role("region", name="To pull").get_by_role("row", name="tiny:1b-q8_0")
        row.get_by_role("button", name="Pull tiny:1b-q8_0").click()
        expect(page.get_by_role("region", name="On this machine")).to_contain_text("tiny:1b-q8_0", timeout=30_000)
        expect(row).to_contain_text("here")
        assert world.requests() == ["Tiny-1B-Q8_0.gguf"]


@pytest.mark.parametrize(("locale", "headers"), [("en-US", ("Size", "Download")), ("zh-CN", ("大小", "下载量"))])
def test_what_is_to_be_downloaded_is_told_from_the_size_of_a_file(
    open_page: Open, locale: str, headers: tuple[str, str]
) -> None:
    page = open_page("#/models", locale=locale)
    for place, header in enumerate(headers, 1):
        table = page.locator(".models > .wide").nth(place)
        expect(table.get_by_role("columnheader", name=header, exact=True)).to_be_visible()


def test_a_pull_that_fails_says_why_and_can_be_tried_again(open_page: Open, world: World) -> None:
    lines = '{"status": "pulling manifest"}\n{"total": 100, "completed": 40}\n{"error": "the disk is full"}\n'
    with served_locally() as http:
        page = open_page(
            "#/models",
            base_url=http.base_url,
            prepare=lambda page: page.route("**/api/pull", lambda route: route.fulfill(body=lines)),
        )
        row = page.get_by_role("region", name="To pull").get_by_role("row", name="tiny:1b-q8_0")
        row.get_by_role("button").click()
        expect(row.get_by_role("alert")).to_have_text(
            "The pull failed; press again to go on with what came so far. the disk is full"
        )
        assert row.get_by_role("button", name="Pull tiny:1b-q8_0").is_visible()


def test_a_pull_that_runs_stays_in_its_place_when_another_is_done(open_page: Open) -> None:
    def answer(route: Any) -> None:
        if "first" in route.request.post_data:  # the second goes on
            route.fulfill(body='{"status": "success"}\n')

    def prepare(page: Any) -> None:
        page.route("**/api/pull", answer)
        page.route("**/q3e/catalog", lambda route: route.fulfill(body=json.dumps({"models": [first, second]})))

    card = {"kind": "embedding", "description": "", "license": "", "quantization": "Q8_0", "download_bytes": 1}
    first, second = ({**card, "name": name, "is_here": False} for name in ("first", "second"))
    page = open_page("#/models", prepare=prepare)
    page.get_by_role("button", name="Pull second").click()
    first["is_here"] = True
    page.get_by_role("button", name="Pull first").click()
    expect(page.get_by_role("row", name="first")).to_contain_text("here")
    assert page.get_by_role("progressbar", name="Pull second").is_visible()
    assert page.get_by_role("button", name="Stop").is_visible()


def test_what_went_wrong_goes_when_it_is_tried_again(open_page: Open, server: httpx.Client) -> None:
    server.post("/api/generate", json={"model": "demo", "keep_alive": 0})  # a model in memory has no such button
    statuses = [500, 200]

    def answer(route: Any) -> None:
        route.fulfill(status=statuses.pop(0), body='{"error": "no room"}')

    page = open_page("#/models", prepare=lambda page: page.route("**/api/generate", answer))
    load = page.get_by_role("button", name="Load demo", exact=True)
    load.click()
    expect(page.get_by_role("alert").locator("[lang=en]")).to_have_text("no room")
    load.click()
    expect(page.get_by_role("alert")).to_have_count(0)
    open_page.problems.clear()  # the 500


@pytest.mark.parametrize("locale", ["en-US", "zh-CN"])
def test_it_fits_a_small_screen(open_page: Open, locale: str) -> None:
    page = open_page("#/models", viewport={"width": 360, "height": 700}, locale=locale)
    page.wait_for_selector(".lines pre")
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    rows = page.locator("tbody tr")
    expect(rows.last).to_contain_text("Apache-2.0")
    assert max(row.bounding_box()["height"] for row in rows.all()) < 260
    for button in page.locator(".wide button").all():  # none lies outside, where nobody would look for it
        box = button.bounding_box()
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= 360
