"""What all tabs share, in a real browser: widths, themes, what axe-core finds, keys, and a server that goes away."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from browsing import Open
from command import PROGRAM
from playwright.sync_api import expect
from served_indexes import make
from server_process import running_server
from servers import served_locally

from q3e_local import VectorIndex

READY = {
    "#/search?q=budget": "article",
    "#/compare?left=a%0Ab&right=c%0Ad": "table.matrix",
    "#/look?text=the+oak": ".token",
    "#/map": ".groups button",
    "#/models": ".lines pre",
}


def each_tab(page: Any, address: Any) -> Iterator[str]:
    """Go to each tab in turn, and wait until it shows something."""
    for link, shown in READY.items():
        page.goto(f"{address}/ui{link}")
        page.wait_for_selector(shown)
        yield link


@pytest.mark.parametrize(("scheme", "locale"), [("light", "en-US"), ("dark", "zh-CN")])
def test_axe_finds_nothing_serious(open_page: Open, server: httpx.Client, scheme: str, locale: str) -> None:
    from axe_playwright_python.sync_playwright import Axe

    page = open_page(color_scheme=scheme, locale=locale)
    for link in each_tab(page, server.base_url):
        found = Axe().run(page, options={"resultTypes": ["violations"]}).response["violations"]
        serious = [each for each in found if each["impact"] in ("serious", "critical")]
        assert [(each["id"], each["nodes"][0]["html"][:200]) for each in serious] == [], link


@pytest.mark.parametrize("width", [360, 2560])
def test_it_fits_every_width_in_letters_that_can_be_read(open_page: Open, server: httpx.Client, width: int) -> None:
    page = open_page(viewport={"width": width, "height": 900})
    for link in each_tab(page, server.base_url):
        assert page.evaluate("document.documentElement.scrollWidth") == width, link
        letters = "all => all.map((each) => parseFloat(getComputedStyle(each).fontSize))"
        sizes = page.locator("main *").evaluate_all(letters)
        assert min(sizes) >= 12, link


@pytest.mark.parametrize("locale", ["en-US", "zh-CN"])
def test_what_the_question_asks_for_fits_a_small_screen(open_page: Open, locale: str) -> None:
    page = open_page(locale=locale, viewport={"width": 360, "height": 700})
    room, text = page.get_by_role("searchbox").evaluate(
        """(box) => {
            const style = getComputedStyle(box);
            const context = document.createElement("canvas").getContext("2d");
            context.font = `${style.fontSize} ${style.fontFamily}`;
            const room = box.clientWidth - parseFloat(style.paddingLeft) - parseFloat(style.paddingRight);
            return [room, context.measureText(box.placeholder).width];
        }"""
    )
    assert text <= room


def test_the_theme_is_the_systems(open_page: Open) -> None:
    grounds = [
        open_page("#/look", color_scheme=scheme).evaluate("getComputedStyle(document.body).backgroundColor")
        for scheme in ("light", "dark")
    ]
    light, dark = ([int(part) for part in ground[4:-1].split(",")] for ground in grounds)
    assert min(light) > 230
    assert max(dark) < 40


def test_without_an_index_it_says_how_to_make_one(open_page: Open) -> None:
    with served_locally() as http:
        page = open_page(base_url=http.base_url)
        # A server runs already, this one, so that another needs a port of its own.
        expect(page.locator(".notice")).to_contain_text(
            "q3e-local index ~/notes\nq3e-local ui --port 0 --index default"
        )
        page.goto(f"{http.base_url}/ui#/map")
        expect(page.get_by_label("One text a line, at least two")).to_be_visible()


def test_an_empty_index_says_so(open_page: Open, tmp_path: Path) -> None:
    path = make(tmp_path / "empty.q3e", {"a": "the oak"}, 64)
    with VectorIndex(path) as index:
        index.delete(["a"])
    with served_locally(indexes=(str(path),)) as http:
        page = open_page(base_url=http.base_url)
        expect(page.locator(".notice")).to_contain_text("This index is empty")
        page.goto(f"{http.base_url}/ui#/map")
        expect(page.locator(".notice")).to_contain_text("A map needs two passages or more.")


def test_an_index_whose_model_is_gone_offers_the_pull(open_page: Open) -> None:
    def refuse(page: Any) -> None:
        body = json.dumps({"error": "qwen3-embedding:0.6b is not on this machine; bring it here with POST /api/pull"})
        indexes = json.dumps(
            {"indexes": [{"name": "notes", "model": "qwen3-embedding:0.6b", "files": 1, "chunks": 1}]}
        )
        page.route("**/api/search", lambda route: route.fulfill(status=404, body=body))
        page.route("**/api/indexes", lambda route: route.fulfill(body=indexes))

    page = open_page("#/search?q=oak", prepare=refuse)
    expect(page.get_by_role("alert")).to_contain_text("is not on this machine")
    expect(page.get_by_role("button", name="Pull qwen3-embedding:0.6b")).to_be_visible()
    open_page.problems.clear()  # the 404


def test_without_a_model_it_offers_the_pull_of_one(open_page: Open) -> None:
    def answer(route: Any) -> None:
        route.fulfill(body='{"models": []}')

    for tab in ("compare", "look"):
        page = open_page(f"#/{tab}", prepare=lambda page: page.route("**/api/tags", answer))
        expect(page.locator(".notice")).to_contain_text("There is no embedding model on this machine")
        assert page.get_by_role("button", name="Pull qwen3-embedding:0.6b").is_visible()


def test_a_key_is_asked_for_once_and_kept_for_the_tab(open_page: Open, notes: Path) -> None:
    program = [*PROGRAM, "serve", "--port", "0", "--index", str(notes)]
    with running_server(program=program, env={"Q3E_API_KEY": "secret"}) as running:
        page = open_page("#/search?q=oak", base_url=running.url)
        for key in ("密钥", "wrong", "secret"):  # no header can carry the first
            page.get_by_label("Key", exact=True).fill(key)
            page.keyboard.press("Enter")
            expect(page.get_by_text("The server does not know this key.")).to_be_visible(visible=key != "secret")
            assert page.locator(".banner").is_hidden()
        page.wait_for_selector("article")
        page.reload()
        page.wait_for_selector("article")
        assert page.get_by_role("dialog").count() == 0
        assert "secret" not in page.url
        assert page.evaluate("[localStorage.length, Object.values(sessionStorage)]")[1] == ["secret"]
        page.goto(f"{running.url}/ui#/models?model=demo")
        expect(page.locator(".lines pre").first).to_contain_text("Bearer $Q3E_API_KEY")
        page.close()  # which asks the server for news, until the server ends
        refused = [each for each in open_page.problems if "401" not in each]
        assert refused == []
        open_page.problems.clear()  # the requests that were refused before the key was known


def test_a_browser_that_keeps_nothing_for_pages_is_asked_for_the_key_once(open_page: Open, notes: Path) -> None:
    def refuse(page: Any) -> None:
        for area in ("sessionStorage", "localStorage"):
            thrown = "throw new DOMException('The operation is insecure.', 'SecurityError')"
            page.add_init_script(f"Object.defineProperty(window, '{area}', {{ get() {{ {thrown} }} }})")

    program = [*PROGRAM, "serve", "--port", "0", "--index", str(notes)]
    with running_server(program=program, env={"Q3E_API_KEY": "secret"}) as running:
        page = open_page("#/search?q=oak", base_url=running.url, prepare=refuse)
        page.get_by_label("Key", exact=True).fill("secret")
        page.keyboard.press("Enter")
        page.wait_for_selector("article")
        page.get_by_role("button", name="中文").click()
        page.wait_for_selector("article")
        page.get_by_role("link", name="模型").click()
        expect(page.locator(".lines pre").first).to_contain_text("Bearer $Q3E_API_KEY")
        assert page.get_by_role("dialog").count() == 0
        assert [each for each in open_page.problems if "401" not in each] == []
        open_page.problems.clear()  # the requests that were refused before the key was known


@pytest.mark.parametrize(
    ("link", "texts", "button"),
    [
        ("#/look", {"A text": "预算" * 3_000}, "Look"),
        ("#/compare", {"Left, one text a line": "预算" * 3_000}, "Compare"),
    ],
)
def test_texts_too_long_for_a_link_are_left_out_of_it_and_the_page_says_so(
    open_page: Open, link: str, texts: dict[str, str], button: str
) -> None:
    page = open_page(link)
    for label, text in texts.items():
        page.get_by_label(label).fill(text)
    page.get_by_role("button", name=button, exact=True).click()
    expect(page.locator("main")).to_contain_text("The texts are too long for the address of this page")
    assert len(page.url) < 1_000


def test_a_link_with_a_model_that_is_not_here_says_which_one_is_taken(open_page: Open) -> None:
    for tab in ("look?text=the+oak", "compare?left=a%0Ab&right=c%0Ad", "map?lines=a%0Ab%0Ac"):
        page = open_page(f"#/{tab}&model=my-own")
        said = "The link names my-own, which is not on this machine; here demo is chosen."
        expect(page.locator("main")).to_contain_text(said)


def test_a_server_that_restarts_is_waited_for(open_page: Open, notes: Path) -> None:
    def program(port: str) -> list[str]:
        return [*PROGRAM, "serve", "--port", port, "--index", str(notes)]

    with running_server(program=program("0")) as running:
        address = running.url
        page = open_page("#/search?q=oak", base_url=address)
        page.wait_for_selector("article")
        running.end()
    page.get_by_role("button", name="Ask").click()
    expect(page.locator(".banner")).to_contain_text("The server does not answer.")
    for tab in ("Search", "Models"):
        page.get_by_role("link", name=tab, exact=True).click()
        expect(page.locator(".spinner")).to_have_count(0)
        expect(page.get_by_text("The server does not answer.")).to_have_count(1)
    with running_server(program=program(address.rpartition(":")[2])):
        expect(page.locator(".banner")).to_be_hidden(timeout=30_000)
        page.wait_for_selector(".lines pre")
        page.get_by_role("link", name="Search", exact=True).click()
        page.wait_for_selector("article")
    open_page.problems.clear()  # the requests that nobody answered


def test_a_tab_comes_back_as_it_was_left(open_page: Open) -> None:
    page = open_page("#/search")
    page.get_by_role("searchbox").fill("budget")
    page.keyboard.press("Enter")
    page.wait_for_selector("article")
    found = page.locator("article .text").all_inner_texts()
    page.get_by_role("link", name="Look").click()
    page.get_by_label("A text").fill("the oak")
    page.get_by_role("link", name="Compare").click()
    page.get_by_label("Left, one text a line").fill("one")
    page.get_by_label("documents").check()
    page.get_by_role("link", name="Map").click()
    page.get_by_label("What to map").select_option("Lines of your own")
    page.get_by_label("One text a line, at least two").fill("first\nsecond")

    page.get_by_role("link", name="Search").click()
    expect(page.get_by_role("searchbox")).to_have_value("budget")
    page.wait_for_selector("article")
    assert page.locator("article .text").all_inner_texts() == found
    assert "q=budget" in page.url
    page.get_by_role("searchbox").fill("outage")  # is not asked
    page.get_by_role("link", name="Look").click()
    expect(page.get_by_label("A text")).to_have_value("the oak")
    assert page.locator(".token").count() == 0
    page.get_by_role("button", name="Look", exact=True).click()
    page.wait_for_selector(".token")
    page.get_by_role("link", name="Compare").click()
    expect(page.get_by_label("Left, one text a line")).to_have_value("one")
    expect(page.get_by_label("documents")).to_be_checked()
    page.keyboard.press("Escape")
    page.keyboard.press("4")
    expect(page.get_by_label("One text a line, at least two")).to_have_value("first\nsecond")
    page.get_by_role("link", name="Search").click()
    expect(page.get_by_role("searchbox")).to_have_value("outage")
    expect(page.locator(".summary")).to_contain_text("by words while you type")
    page.get_by_role("link", name="Look").click()
    page.wait_for_selector(".token")  # what was looked at is shown again


def test_another_language_keeps_what_was_typed_and_changes_the_sample(open_page: Open) -> None:
    page = open_page("#/look")
    page.get_by_role("button", name="中文").click()
    expect(page.get_by_label("一段文字")).to_have_value("模型读的是词元，而不是字：budget review。")
    page.get_by_label("一段文字").fill("橡树")
    page.get_by_role("button", name="English").click()
    expect(page.get_by_label("A text")).to_have_value("橡树")


def test_the_name_of_the_program_leads_to_an_empty_search(open_page: Open) -> None:
    page = open_page("#/search?q=budget")
    page.wait_for_selector("article")
    page.get_by_role("link", name="Look").click()
    page.get_by_role("link", name="q3e-local").click()
    expect(page.get_by_role("searchbox")).to_have_value("")
    expect(page.locator("article")).to_have_count(0)


def test_no_other_page_can_frame_it(open_page: Open, server: httpx.Client) -> None:
    page = open_page("#/look")
    # A page of the same server, and so one that the guard lets in: the frame is refused by the policy alone.
    page.goto(f"{server.base_url}/docs")
    page.evaluate(
        "(url) => { const f = document.createElement('iframe'); f.src = url; document.body.append(f); }",
        f"{server.base_url}/ui",
    )
    page.wait_for_timeout(500)
    assert page.frames[1].url == "chrome-error://chromewebdata/"
    open_page.problems.clear()  # the browser says that it refused


def test_switching_tabs_leaves_nothing_at_work(open_page: Open) -> None:
    page = open_page("#/models")
    page.wait_for_selector(".lines pre")
    page.get_by_role("link", name="Look").click()
    page.wait_for_selector("textarea")
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.wait_for_timeout(2_500)
    assert asked == []
