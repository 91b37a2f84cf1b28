"""Maps: where points lie, and files that show texts and run none of them."""

from __future__ import annotations

import io
import json
import struct
from html.parser import HTMLParser

import numpy as np
import pytest
from command import expected, run, write
from test_jobs_library import rows, themes, unit

from q3e_local import jobs
from q3e_local.jobs import drawing
from q3e_local.vectors import finish

HOSTILE = '</script><b>x</b><img src=x onerror=alert(1)> \u2028 & "预算" $x$'


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("Q3E_MODEL", "demo")
    monkeypatch.setenv("Q3E_CACHE", "off")
    return tmp_path


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
    centres = np.stack([points[labels == one].mean(axis=0) for one in (0, 1)])
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


def test_a_png_is_the_same_each_time_and_says_which_characters_no_font_has(monkeypatch):
    monkeypatch.setattr(drawing, "_CHINESE_FONTS", ())  # whatever is installed here
    drawn = jobs.plot(unit(0, 90, 180), ["预算 $x", "b", "c"], ["one", "二", "二"])
    pictures = []
    for _ in range(2):
        stream = io.BytesIO()
        assert jobs.write_png(drawn, stream, "title") == "二算预"
        pictures.append(stream.getvalue())
    assert pictures[0] == pictures[1]
    assert png_size(pictures[0]) == (1500, 1500)


def test_a_folder_is_drawn_with_a_colour_for_each_folder(folder):
    write(folder, {"a/1.txt": "the cat", "a/2.txt": "the dog", "b/3.txt": "prices fell", "b/4.txt": HOSTILE})
    result = run("plot", "a", "b", "-o", "map.html")
    assert result.exit_code == 0, result.output
    assert "4 texts in 2 colours in map.html" in result.stderr
    data = json.loads(Page((folder / "map.html").read_text(encoding="utf-8")).scripts[0])
    assert [(one[2], one[3]) for one in data["points"]] == [
        (0, "a/1.txt"), (0, "a/2.txt"), (1, "b/3.txt"), (1, "b/4.txt"),
    ]  # fmt: skip
    assert [one["name"] for one in data["groups"]] == ["a", "b"]
    points = jobs.plot(expected(["the cat", "the dog", "prices fell", HOSTILE]).vectors).points
    assert np.allclose([one[:2] for one in data["points"]], points, atol=2e-3)


def test_lines_are_drawn_with_a_colour_for_each_cluster(folder):
    write(folder, {"x.txt": "the cat sat\nthe cat sits\n预算获得批准\n预算批准\n"})
    result = run("plot", "--lines", "x.txt", "--color", "cluster", "-k", "2", "--method", "tsne", "-o", "map.png")
    assert result.exit_code == 0, result.output
    assert "4 texts in 2 colours in map.png" in result.stderr
    assert png_size((folder / "map.png").read_bytes()) == (1500, 1500)
    again = run("plot", "--lines", "x.txt", "-o", "map.png")
    assert (again.exit_code, "map.png exists" in again.stderr) == (1, True)


def test_names_in_a_png_stay_in_the_frame_and_off_each_other(monkeypatch):
    kept = []
    thin_out = drawing._thin_out

    def looking(names, frame, taken):
        thin_out(names, frame, taken)
        kept.append(([name.get_window_extent() for name in names if name.axes is not None], frame))

    monkeypatch.setattr(drawing, "_thin_out", looking)
    texts = [f"a long name of text number {n}" for n in range(40)]
    jobs.write_png(jobs.plot(rows(40, 16), texts), io.BytesIO())
    ((boxes, frame),) = kept
    assert len(boxes) > 5
    assert all(frame.x0 <= box.x0 and box.x1 <= frame.x1 for box in boxes)
    assert not any(one.overlaps(other) for n, one in enumerate(boxes) for other in boxes[:n])


def test_twenty_groups_have_a_colour_each_and_more_are_told(folder):
    drawn = jobs.plot(rows(20, 8), groups=[str(n) for n in range(20)])
    assert len(set(drawn.colours.values())) == 20
    write(folder, {f"{n}/x.txt": f"text {n}" for n in range(21)})
    result = run("plot", *map(str, range(21)), "-o", "map.html", "--title", "My <map>")
    assert "21 texts in 21 groups, which share 20 colours, in map.html" in result.stderr
    assert "<title>My &lt;map&gt;</title>" in (folder / "map.html").read_text(encoding="utf-8")


def test_a_picture_is_named_by_the_last_of_a_path(folder):
    write(folder, {"deep/down/a.txt": "one\ntwo\n"})
    run("plot", "--lines", folder / "deep/down/a.txt", "-o", "map.html")
    page = (folder / "map.html").read_text(encoding="utf-8")
    assert json.loads(Page(page).scripts[0])["title"] == "a.txt"
