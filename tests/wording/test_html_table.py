"""Tables for notebooks stay small whatever is put into them, and say what they leave out."""

from __future__ import annotations

import pytest

from q3e_local.wording.html_table import html_table, shortened


@pytest.mark.parametrize(
    ("text", "line"),
    [("a\n b ", "a b"), ("abcdefghij", "abcdefghij"), ("abcdefghijk", "abcdefghi…"),
     ("a" + 100 * " " + "b" * 500, "a…"), ("a" + 100 * " ", "a")],
)  # fmt: skip
def test_a_text_that_was_cut_says_so(text, line):
    assert shortened(text, 10) == line


def test_heads_are_shortened_and_columns_bounded():
    shown = html_table(["<long> " + "x" * 1000, *map(str, range(149))], [[0.5] * 150] * 3)
    assert "<th>&lt;long&gt; xxx" in shown
    assert "x" * 300 not in shown
    assert "<th>98</th><th>and 50 more columns</th></tr>" in shown
    assert shown.count("<td>0.5000</td>") == 3 * 100
