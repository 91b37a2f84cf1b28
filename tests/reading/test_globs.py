"""Globs: which paths each lets through, and that none takes long."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from q3e_local.errors import OptionError
from q3e_local.reading.globs import pattern


@pytest.mark.parametrize(
    ("glob", "yes", "no"),
    [
        ("*.md", ["/a/b.md", "b.md"], ["/a/b.mdx", "/a/b.txt"]),
        ("notes/**", ["/me/notes/a/b.md", "notes/a"], ["/me/notebooks/a", "/me/notes.md"]),
        ("notes", ["/me/notes/a/b.md"], ["/me/note/a"]),
        ("notes/", ["/me/notes/a/b.md"], ["/me/mynotes/a"]),
        ("notes/*.md", ["/me/notes/a.md"], ["/me/notes/a/b.md"]),
        ("notes/**/x.md", ["/notes/x.md", "/notes/a/b/x.md"], ["/notes/ax.md"]),
        ("/me/*.md", ["/me/a.md"], ["/x/me/a.md", "/me/b/a.md"]),
        ("C:\\me\\*.md", ["C:/me/a.md"], ["D:/me/a.md"]),
        ("[ab]?.md", ["/a1.md", "b2.md"], ["c1.md", "a.md", "a/.md"]),
        ("[!ab].md", ["c.md"], ["a.md"]),
        ("[a-c-]&[]x].md", ["b&].md", "-&x.md"], ["d&x.md"]),
        ("报告*.md", ["/文/报告 (1).md"], ["/文/报.md"]),
        ("a[.md", ["/x/a[.md"], ["/x/a.md"]),
        ("a.(md|txt)+$", ["a.(md|txt)+$"], ["a.md"]),
        ("*a*b", ["xaxb", "b/aab"], ["ba", "a/b"]),
        ("a/**/b/*.md", ["a/b/x.md", "/a/b/c/b/x.md"], ["a/c/b/d/x.md"]),
        ("**", ["a", "/a/b"], []),
        ("[a--b&&[c]", ["a", "&", "["], ["d", "-", "/"]),
        # A matcher that tried every way to share the path out among the stars would never end.
        ("*a" * 40 + "b", ["a" * 255 + "b"], ["a" * 255]),
        ("**/" * 40 + "x", ["a/" * 200 + "x"], ["a/" * 200 + "b"]),
    ],
)
def test_globs(glob, yes, no):
    assert [path for path in yes + no if pattern(glob).fullmatch(path)] == yes


@given(st.text("ab/*?[]!^-&|~.\\(", max_size=12))
def test_any_glob_is_read_or_refused(glob):
    try:
        found = pattern(glob)
    except OptionError as error:
        assert repr(glob) in str(error)  # noqa: PT017
    else:
        assert set(glob) & set("*?[") or not found.fullmatch("xyz")
