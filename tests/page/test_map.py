"""The tab `map` in a real browser: points under the mouse, groups, search, lasso, lines, and 20,000 points."""

from __future__ import annotations

import base64
import json
from typing import Any
from urllib.parse import urlencode

import httpx
import numpy as np
import pytest
from browsing import Open
from playwright.sync_api import expect

LINES = ["The oak is old.", "The elm is an old tree.", "The bank lowers the interest.", "Savings bring interest."]


def points_of(server: httpx.Client) -> dict[str, Any]:
    """The server's own map, which the page has to show."""
    while (found := server.post("/api/map", json={}).json())["status"] != "ready":
        pass
    return found


def on_screen(page: Any, found: dict[str, Any]) -> np.ndarray:
    """Where the points are, by the rule that the whole map fits with a margin of 28 pixels, in the middle."""
    points = np.frombuffer(base64.b64decode(found["points"]), "<u2").reshape(-1, 2) / 65535
    box = page.locator("canvas").bounding_box()
    spans = points.max(axis=0)
    scale = min((box["width"] - 56) / spans[0], (box["height"] - 56) / spans[1])
    left = box["x"] + (box["width"] - spans[0] * scale) / 2
    top = box["y"] + (box["height"] - spans[1] * scale) / 2
    return np.stack([left + points[:, 0] * scale, top + (spans[1] - points[:, 1]) * scale], axis=1)


@pytest.fixture
def opened(open_page: Open, server: httpx.Client) -> tuple[Any, dict[str, Any], np.ndarray]:
    """The page with the map of the sample notes, the server's map, and where its points are."""
    found = points_of(server)
    page = open_page("#/map", viewport={"width": 1200, "height": 800})
    page.wait_for_selector(".groups button")
    page.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    return page, found, on_screen(page, found)


def drawn_in(page: Any, colours: list[str]) -> set[str]:
    """Which of these colours points have that are drawn at full strength."""
    return set(
        page.evaluate(
            """(colours) => {
                const canvas = document.querySelector("canvas");
                const copy = new OffscreenCanvas(canvas.width, canvas.height);
                const context = copy.getContext("2d", { willReadFrequently: true });
                context.drawImage(canvas, 0, 0);
                const { data } = context.getImageData(0, 0, copy.width, copy.height);
                const inks = colours.map((colour) => colour.match(/\\d+/g).map(Number));
                const counts = colours.map(() => 0);
                const isNear = (ink, i) => ink.every((part, at) => Math.abs(part - data[i + at]) <= 2);
                for (let i = 0; i < data.length; i += 4) {
                    if (Math.abs(data[i + 3] - 191) > 1) continue;
                    const found = inks.findIndex((ink) => isNear(ink, i));
                    if (found >= 0) counts[found] += 1;
                }
                return colours.filter((_, at) => counts[at] > 3);  // edges of letters have a pixel or two
            }""",
            colours,
        )
    )


def text_of(server: httpx.Client, found: dict[str, Any], place: int) -> str:
    file_of, numbers = (np.frombuffer(base64.b64decode(found[name]), "<i4") for name in ("file_of", "numbers"))
    name = f"{found['files'][file_of[place]]}#{numbers[place]}"
    return server.post("/api/passages", json={"ids": [name]}).json()["passages"][0]["text"]


def test_a_point_under_the_mouse_shows_its_passage_and_a_click_lists_it(opened: Any, server: httpx.Client) -> None:
    page, found, places = opened
    distances = np.linalg.norm(places[:, None] - places[None], axis=2) + np.eye(len(places)) * 1e6
    alone = int(distances.min(axis=1).argmax())  # farthest from all others
    page.mouse.move(*places[alone])
    text = text_of(server, found, alone)
    expect(page.locator(".tip")).to_contain_text(" ".join(text.split())[:60].strip())
    page.mouse.down()
    page.mouse.up()
    expect(page.locator(".side .passage")).to_have_count(1)
    expect(page.locator(".side .passage .text")).to_contain_text(" ".join(text.split())[:60].strip())


def test_clusters_have_the_names_of_the_server_and_list_their_passages(opened: Any) -> None:
    page, found, _ = opened
    names = [", ".join(each["words"]) for each in found["clusters"]]
    assert page.locator(".groups .what > bdi:first-child").all_inner_texts() == names
    assert page.locator(".groups .n").all_inner_texts() == [str(each["size"]) for each in found["clusters"]]
    page.locator(".groups button").nth(1).click()
    expect(page.locator(".side .passage")).to_have_count(found["clusters"][1]["size"])
    page.get_by_label("folder").check()
    expect(page.locator(".groups button")).to_have_count(1)  # all notes lie in one folder
    assert page.url.endswith("colour=folder")


def test_a_lasso_lists_what_is_in_it(opened: Any) -> None:
    page, _, places = opened
    page.get_by_role("button", name="Lasso").click()
    box = page.locator("canvas").bounding_box()
    middle = box["x"] + box["width"] / 2
    expected = int((places[:, 0] < middle).sum())
    corners = [
        (box["x"] + 15, box["y"] + 15),
        (middle, box["y"] + 15),
        (middle, box["y"] + box["height"] - 15),
        (box["x"] + 15, box["y"] + box["height"] - 15),
    ]
    page.mouse.move(*corners[0])
    page.mouse.down()
    for corner in corners[1:]:
        page.mouse.move(*corner)
    page.mouse.up()
    expect(page.locator(".side .passage")).to_have_count(expected)


def test_a_search_in_the_map_lights_and_lists_what_it_finds(opened: Any, server: httpx.Client) -> None:
    page, _, _ = opened
    page.get_by_label("Search in the map").fill("checkout")
    hits = server.post("/api/search", json={"query": "checkout", "mode": "words", "k": 100}).json()["hits"]
    expect(page.locator(".side")).to_contain_text(f"{len(hits)} found")
    expect(page.locator(".side .passage")).to_have_count(len(hits))


def test_one_selection_at_a_time(opened: Any) -> None:
    page, found, _ = opened
    query = page.get_by_label("Search in the map")
    pressed = page.locator(".groups button[aria-pressed=true]")
    group = page.locator(".groups button").nth(1)
    group.click()
    expect(pressed).to_have_count(1)
    query.fill("checkout")
    expect(page.locator(".side")).to_contain_text(" found")
    expect(pressed).to_have_count(0)
    group.click()
    expect(query).to_have_value("")
    expect(page.locator(".side .passage")).to_have_count(found["clusters"][1]["size"])
    page.reload()  # the group is in the link
    expect(pressed).to_contain_text(", ".join(found["clusters"][1]["words"]))
    expect(page.locator(".side .passage")).to_have_count(found["clusters"][1]["size"])
    query.fill("checkout")
    page.get_by_role("button", name="Lasso").click()
    box = page.locator("canvas").bounding_box()
    page.mouse.move(box["x"] + 5, box["y"] + 5)
    page.mouse.down()
    for x, y in ((1, 0), (1, 1), (0, 1)):
        page.mouse.move(box["x"] + 5 + x * (box["width"] - 10), box["y"] + 5 + y * (box["height"] - 10))
    page.mouse.up()
    expect(page.locator(".side .passage")).to_have_count(min(50, found["n"]))
    expect(query).to_have_value("")
    expect(pressed).to_have_count(0)
    assert "group=" not in page.url


def test_lines_of_ones_own_are_drawn_and_are_in_the_link(open_page: Open) -> None:
    page = open_page("#/map?" + urlencode({"lines": "\n".join(LINES)}))
    page.wait_for_selector(".groups button")
    assert "4 passages" in page.inner_text(".summary")
    page.locator(".groups button").first.click()
    listed = page.locator(".side .passage .text").all_inner_texts()
    assert set(listed) < set(LINES)
    page.get_by_label("One text a line, at least two").fill("<b>one</b>\n<i>two</i>\nthree")
    page.get_by_role("button", name="Draw").click()
    expect(page.locator(".summary")).to_contain_text("3 passages")
    assert "%3Cb%3Eone" in page.url
    assert page.locator(".groups b, .groups i").count() == 0


def test_twenty_thousand_points_move_smoothly(open_page: Open) -> None:
    n = 20_000
    random = np.random.default_rng(0)

    def packed(values: np.ndarray, kind: str) -> str:
        return base64.b64encode(values.astype(kind).tobytes()).decode()

    labels = random.integers(0, 12, n)
    found = {
        "status": "ready", "index": "notes", "n": n, "all": 10 * n, "files": ["a/x.md"], "ids": [],
        "no_clusters": None,
        "points": packed(random.random((n, 2)) * 65535, "<u2"), "labels": packed(labels, "<u2"),
        "file_of": packed(np.zeros(n), "<i4"), "numbers": packed(np.arange(n), "<i4"),
        "clusters": [{"words": [f"word{i}"], "central": i, "text": "a", "size": 1} for i in range(12)],
    }  # fmt: skip
    body = json.dumps(found)
    hits = json.dumps({"hits": [{"id": "a/x.md#0"}]})

    def prepare(page: Any) -> None:
        page.route("**/api/map", lambda route: route.fulfill(body=body))
        page.route("**/api/search", lambda route: route.fulfill(body=hits))

    page = open_page("#/map", prepare=prepare)
    page.wait_for_selector(".groups button")
    assert "20,000 of 200,000 passages" in page.inner_text(".summary")
    colours = page.locator(".groups .dot").evaluate_all(
        "all => all.map((dot) => getComputedStyle(dot).backgroundColor)"
    )
    assert drawn_in(page, colours) == set(colours)
    page.get_by_label("Search in the map").fill("anything")  # finds the first passage alone
    expect(page.locator(".side")).to_contain_text("1 found")
    page.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    assert drawn_in(page, colours) == {colours[int(labels[0])]}
    page.get_by_label("Search in the map").fill("")
    took = page.evaluate(
        """async () => {
            const canvas = document.querySelector("canvas"), times = [];
            for (let i = 0; i < 20; i++) {
                const began = performance.now();
                const wheel = { deltaY: i % 2 ? 60 : -60, clientX: 300, clientY: 400, cancelable: true };
                canvas.dispatchEvent(new WheelEvent("wheel", wheel));
                await new Promise((done) => requestAnimationFrame(() => setTimeout(done)));
                times.push(performance.now() - began);
            }
            return times.sort((a, b) => a - b)[10];
        }"""
    )
    assert took < 100  # milliseconds of a frame, on two cores without a graphics card that others use too


@pytest.mark.parametrize(("locale", "label"), [("en-US", "Passages chosen"), ("zh-CN", "选中的段落")])
def test_the_list_of_passages_has_a_name(open_page: Open, locale: str, label: str) -> None:
    page = open_page("#/map", locale=locale)
    page.wait_for_selector(".groups button")
    assert page.locator(".listing").get_attribute("aria-label") == label


def test_without_clusters_the_summary_says_once_what_to_install(open_page: Open, server: httpx.Client) -> None:
    said = "clustering needs scikit-learn; install it with: pip install 'q3e-local[analysis]'"
    body = json.dumps({**points_of(server), "clusters": [], "no_clusters": said})
    page = open_page("#/map", prepare=lambda page: page.route("**/api/map", lambda route: route.fulfill(body=body)))
    page.wait_for_selector(".groups button")
    assert page.inner_text(".summary").count("scikit-learn") == 1
    assert "pip install 'q3e-local[analysis]'" in page.inner_text(".summary")
