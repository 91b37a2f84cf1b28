"""Maps: where points lie, and files that show texts and run none of them."""

from __future__ import annotations

import io
import json
import shutil
import struct
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from command import expected, run, write
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from job_texts import rows, themes, unit
from matplotlib import font_manager
from paths import TESTS

from q3e_local import jobs
from q3e_local.jobs import drawing
from q3e_local.jobs.labels import place_labels
from q3e_local.vectors import finish

HOSTILE = '</script><b>x</b><img src=x onerror=alert(1)> \u2028 & "预算" $x$'


class Page(HTMLParser):
    """The elements of a page, and what stands in each script."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.scripts: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        assert not {"src", "href"} & {name for name, _ in attributes}

    def handle_data(self, data):
        if self.tags and self.tags[-1] == "script":
            self.scripts.append(data)


@pytest.mark.parametrize(("n", "dim"), [(40, 16), (10, 64), (2, 8)])
def test_pca_is_that_of_the_singular_values(n, dim):
    vectors = rows(n, dim)
    centred = vectors - vectors.mean(axis=0, dtype=np.float64)
    u, s, _ = np.linalg.svd(centred, full_matrices=False)
    want = (u * s)[:, :2]
    found = jobs.plot(vectors).points
    assert (found.min(), found.max()) == (0, 1)
    for axis in range(2):
        spread = want[:, axis] / np.ptp(want, axis=0).max()
        got = found[:, axis] - found[:, axis].mean()
        assert np.allclose(got, spread, atol=1e-3) or np.allclose(got, -spread, atol=1e-3)


@pytest.mark.parametrize("method", jobs.METHODS)
def test_themes_lie_apart_and_the_same_texts_give_the_same_map(method):
    vectors, labels = themes([12, 12], noise=0.5)
    points = jobs.plot(vectors, method=method).points
    centres = np.stack([points[labels == label].mean(axis=0) for label in (0, 1)])
    nearest = np.argmin(((points[:, None] - centres) ** 2).sum(axis=2), axis=1)
    assert np.array_equal(nearest, labels)
    assert np.array_equal(points, jobs.plot(vectors, method=method).points)


@pytest.mark.parametrize("method", jobs.METHODS)
def test_texts_that_are_all_alike_are_one_point(method):
    points = jobs.plot(finish(np.ones((6, 8), np.float32)), method=method).points
    assert np.array_equal(points, np.full((6, 2), 0.5))


def test_a_page_shows_any_text_and_runs_none():
    drawn = jobs.plot(unit(0, 90, 180), [HOSTILE, "two", "three"], [HOSTILE, "g", "g"], names=[HOSTILE, "", ""])
    page = Page(jobs.html_page(drawn, HOSTILE))
    assert {"b", "img"}.isdisjoint(page.tags)
    assert page.tags.count("script") == 2
    assert not set("<>&") & set(page.scripts[0])
    data = json.loads(page.scripts[0])
    assert data["title"] == HOSTILE
    assert [group["name"] for group in data["groups"]] == [HOSTILE, "g"]
    shown = " ".join(HOSTILE.split())
    assert data["points"][0][2:] == [0, HOSTILE, shown]
    assert "<b>" not in drawn._repr_html_()
    assert "&lt;b&gt;" in drawn._repr_html_()


def png_size(png: bytes) -> tuple[int, int]:
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    return struct.unpack(">II", png[16:24])


@pytest.fixture
def fonts(monkeypatch):
    """matplotlib's fonts as on a machine without any other: DejaVu alone. Tests may install more in the list."""
    manager = font_manager.fontManager
    monkeypatch.setattr(manager, "ttflist", [font for font in manager.ttflist if font.name.startswith("DejaVu")])
    installed = []
    monkeypatch.setattr(font_manager, "findSystemFonts", lambda: installed)
    yield installed
    manager._findfont_cached.cache_clear()


def made_font(path, characters, name):
    """A TrueType font in which each of the characters is a box."""
    pen = TTGlyphPen(None)
    for step, corner in enumerate([(0, 0), (0, 700), (500, 700), (500, 0)]):
        (pen.lineTo if step else pen.moveTo)(corner)
    pen.closePath()
    glyphs = {ord(character): f"u{ord(character):04x}" for character in characters}
    order = [".notdef", *glyphs.values()]
    builder = FontBuilder(1000)
    builder.setupGlyphOrder(order)
    builder.setupCharacterMap(glyphs)
    builder.setupGlyf(dict.fromkeys(order, pen.glyph()))
    builder.setupHorizontalMetrics(dict.fromkeys(order, (600, 0)))
    builder.setupHorizontalHeader(ascent=800, descent=-200)
    builder.setupNameTable({"familyName": name, "styleName": "Regular"})
    builder.setupOS2()
    builder.setupPost()
    builder.save(path)
    return str(path)


def test_a_png_is_the_same_each_time_and_says_which_characters_no_font_has(fonts):
    drawn = jobs.plot(unit(0, 90, 180), ["预算 $x", "b", "c"], ["one", "二", "二"])
    pictures = []
    for _ in range(2):
        stream = io.BytesIO()
        assert jobs.write_png(drawn, stream, "title") == "二算预"
        pictures.append(stream.getvalue())
    assert pictures[0] == pictures[1]
    assert png_size(pictures[0]) == (1500, 1500)


def test_a_font_is_found_that_was_installed_after_matplotlib_made_its_list(fonts, tmp_path):
    drawn = jobs.plot(unit(0, 90, 180), ["预算", "b", "c"])
    assert jobs.write_png(drawn, io.BytesIO()) == "算预"
    fonts.append(made_font(tmp_path / "new.ttf", "预算", "A Font Nobody Knows"))
    fonts.append(str(write(tmp_path, {"broken.ttf": "no font"})))
    assert jobs.write_png(drawn, io.BytesIO()) == ""


def page_of(*arguments):
    """The data in the page that `plot` draws into the current folder, and what it says on stderr."""
    result = run("plot", *arguments, "-o", "map.html", "--force")
    assert result.exit_code == 0, result.output
    return json.loads(Page(Path("map.html").read_text(encoding="utf-8")).scripts[0]), result.stderr


def test_a_folder_is_drawn_with_a_colour_for_each_folder(folder):
    write(folder, {"a/1.txt": "the cat", "a/2.txt": "the dog", "b/3.txt": "prices fell", "b/4.txt": HOSTILE})
    data, said = page_of("a", "b")
    assert "4 texts in 2 colours in map.html" in said
    named = [(group, name) for _, _, group, name, _ in data["points"]]
    assert named == [(0, "a/1.txt"), (0, "a/2.txt"), (1, "b/3.txt"), (1, "b/4.txt")]
    assert [group["name"] for group in data["groups"]] == ["a", "b"]
    points = jobs.plot(expected(["the cat", "the dog", "prices fell", HOSTILE]).vectors).points
    assert np.allclose([point[:2] for point in data["points"]], points, atol=2e-3)


def test_lines_are_drawn_with_a_colour_for_each_cluster(folder):
    write(folder, {"x.txt": "the cat sat\nthe cat sits\n预算获得批准\n预算批准\n"})
    result = run("plot", "--lines", "x.txt", "--color", "cluster", "-k", "2", "--method", "tsne", "-o", "map.png")
    assert result.exit_code == 0, result.output
    assert "4 texts in 2 colours in map.png" in result.stderr
    assert png_size((folder / "map.png").read_bytes()) == (1500, 1500)
    again = run("plot", "--lines", "x.txt", "-o", "map.png")
    assert (again.exit_code, "map.png exists" in again.stderr) == (1, True)


def test_clusters_of_a_map_are_named_by_their_key_words_and_their_most_central_text(folder):
    lines = ["the cat sat", "the cat sits", "prices fell", "prices rose"]
    write(folder, {"x.txt": "\n".join(lines)})
    data, _ = page_of("--lines", "x.txt", "--color", "cluster", "-k", "2")
    named = [group["name"].split(" · ") for group in data["groups"]]
    assert [set(words.split(": ")[1].split(", ")) for words, _ in named] == [
        {"cat", "sat", "sits"},
        {"prices", "fell", "rose"},
    ]
    assert [text in part for (_, text), part in zip(named, (lines[:2], lines[2:]), strict=True)] == [True, True]


def touches(box, x, y, radius):
    """Whether a disc reaches into a box of left, bottom, right, top."""
    far = np.hypot(max(box[0] - x, 0, x - box[2]), max(box[1] - y, 0, y - box[3]))
    return far < radius


def overlap(a, b):
    return min(a[2], b[2]) > max(a[0], b[0]) and min(a[3], b[3]) > max(a[1], b[1])


@pytest.mark.parametrize("n", [3, 40, 60])
def test_labels_of_a_png_stay_in_the_frame_off_the_points_and_off_each_other(n):
    texts = [f"a long name of text number {number}" for number in range(n)]
    drawn = jobs.plot(rows(n, 16), texts, groups=[str(number % 3) for number in range(n)])
    figure, _ = drawing.figure_of(drawn, "a title")
    (axes,) = figure.axes
    figure.draw_without_rendering()
    frame = axes.get_window_extent()
    boxes = [text.get_window_extent().extents for text in axes.texts]
    assert len(boxes) == n if n == 3 else len(boxes) > 8
    dots = axes.collections[0]
    radius = np.sqrt(dots.get_sizes()[0]) / 2 * figure.dpi / 72
    centres = dots.get_offset_transform().transform(dots.get_offsets())
    for number, box in enumerate(boxes):
        assert frame.x0 <= box[0] <= box[2] <= frame.x1
        assert frame.y0 <= box[1] <= box[3] <= frame.y1
        assert not any(touches(box, x, y, radius) for x, y in centres)
        assert not any(overlap(box, other) for other in boxes[:number])
    legend = figure.legends[0].get_window_extent()
    assert not any(legend.contains(x, y) for x, y in centres)


def test_a_label_goes_where_there_is_room_and_nowhere_where_there_is_none():
    points = np.array([[50.0, 50.0], [70.0, 50.0]])
    first, second = place_labels(points, 5, [(40, 10), (40, 10)], (0, 0, 200, 100), gap=3)
    assert first == (2, 45, 42, 55)  # on the left: the second point is on the right
    assert second == (78, 45, 118, 55)
    assert place_labels(points, 5, [(40, 10), (240, 10)], (0, 0, 200, 100), gap=3)[1] is None
    assert place_labels(np.empty((0, 2)), 5, [], (0, 0, 1, 1)) == []


@pytest.mark.parametrize("zoom", [1, 4])
def test_labels_of_a_page_stay_off_the_points_the_legend_and_each_other(tmp_path, zoom):
    if shutil.which("node") is None:
        pytest.skip("node is not installed: the script of the page cannot run without a JavaScript engine")
    texts = [f"the text with number {n}" for n in range(120)]
    drawn = jobs.plot(rows(120, 16), texts, groups=[f"group {n % 11 + 1}" for n in range(120)])
    page = tmp_path / "map.html"
    page.write_text(jobs.html_page(drawn, "a title"), encoding="utf-8")
    script = (TESTS / "node") / "map.mjs"
    done = subprocess.run(
        ["node", script, page, "900", "700", str(zoom)], capture_output=True, text=True, check=True, timeout=120
    )
    shown = json.loads(done.stdout)
    assert shown["legend"] == ["a title", *(f"group {n}" for n in range(1, 12))]  # 2 before 10
    assert len(shown["all"]["discs"]) == 120
    assert len(shown["light"]["discs"]) == 120 if zoom == 1 else len(shown["light"]["discs"]) < 120
    light, dark = ({text["colour"] for text in shown[screen]["texts"]} for screen in ("light", "dark"))
    assert light != dark
    for screen in ("light", "all"):
        texts = shown[screen]["texts"]
        boxes = [(text["x"], text["y"], text["x"] + text["width"], text["y"] + 14) for text in texts]
        assert len(boxes) > 10
        for number, box in enumerate(boxes):
            assert 0 <= box[0] <= box[2] <= 900
            assert 0 <= box[1] <= box[3] <= 700
            assert not overlap(box, (8, 8, 200, 90))
            assert not any(touches(box, disc["x"], disc["y"], disc["radius"]) for disc in shown[screen]["discs"])
            assert not any(overlap(box, other) for other in boxes[:number])


def test_twenty_groups_have_a_colour_each_and_more_are_announced(folder):
    drawn = jobs.plot(rows(20, 8), groups=[str(n) for n in range(20)])
    assert len(set(drawn.colours.values())) == 20
    write(folder, {f"{n}/x.txt": f"text {n}" for n in range(21)})
    _, said = page_of(*map(str, range(21)), "--title", "My <map>")
    assert "21 texts in 21 groups, which share 20 colours, in map.html" in said
    assert "<title>My &lt;map&gt;</title>" in (folder / "map.html").read_text(encoding="utf-8")


def test_a_picture_is_named_by_the_last_of_a_path(folder):
    write(folder, {"deep/down/a.txt": "one\ntwo\n"})
    data, _ = page_of("--lines", folder / "deep/down/a.txt")
    assert data["title"] == "a.txt"


def test_paths_are_those_below_the_folder_that_all_files_share(folder):
    write(folder, {"deep/down/a/1.txt": "the cat", "deep/down/b/2.txt": "the dog", "deep/down/3.txt": "prices"})
    data, _ = page_of(folder / "deep")
    assert [point[3] for point in data["points"]] == ["3.txt", "a/1.txt", "b/2.txt"]
    assert [group["name"] for group in data["groups"]] == ["a", "b", "down"]
    data, _ = page_of("--lines", folder / "deep/down/a/1.txt", "--text", "another")
    assert data["points"][1][3] == (folder / "deep/down/a/1.txt").as_posix() + ":1"  # nothing is shared with a --text


def test_the_legend_is_in_order_and_numbers_count_as_numbers(folder):
    write(folder, {f"{n}/x.txt": f"text {n}" for n in (10, 9, 2)})
    data, _ = page_of("10", "9", "2")
    assert [group["name"] for group in data["groups"]] == ["2", "9", "10"]
    clusters = jobs.plot(rows(3, 4), groups=["3: c", "1: a", "2: b"])
    assert list(clusters.colours) == ["1: a", "2: b", "3: c"]
    huge = "9" * 5000
    assert jobs.plot(rows(3, 4), groups=[f"x{huge}", "x10", "x9"]).group_names == ("x9", "x10", f"x{huge}")


def test_markdown_is_shown_without_its_marks(folder):
    marked = "---\ntitle: x\n---\n# The *plan*\n\nSee **all** of [it](http://there/) and `code`.\n\n- one\n- two\n"
    write(folder, {"a.md": marked, "b.md": "***\n", "c.txt": "# as it *is*"})
    data, _ = page_of("a.md", "b.md", "c.txt")
    assert [point[4] for point in data["points"]] == [
        "The plan See all of it and code. one two",
        "***",
        "# as it *is*",
    ]
